// SPDX-License-Identifier: Apache-2.0
// Uninitialised memory on cache-line (large buffers: huge-page) boundaries.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace raingauge::cpu {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

template <class T>
using Buffer = std::unique_ptr<T[], Free>;

template <class T>
Buffer<T> make_buffer(std::size_t count) {
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  const std::size_t bytes = count * sizeof(T);
  const std::size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const std::size_t rounded = (bytes + alignment) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
#ifdef __linux__
  if (alignment == kHugePage) {
    (void)madvise(memory, rounded, MADV_HUGEPAGE);  // a hint: most of packing's time is page faults
  }
#endif
  return Buffer<T>(static_cast<T*>(memory));
}

}  // namespace raingauge::cpu
