// SPDX-License-Identifier: Apache-2.0
// Runs a piece of work in a forked copy of this process. libhdf5 follows addresses and lengths of a
// file's metadata into memory (variable strings above all), so a damaged file can crash it or make
// it loop: files are tried in a copy first, and the copy dies instead of the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace raingauge {

enum class Trial {
  finished,   // the work returned
  threw,      // it threw; doing it here throws the same
  crashed,    // the copy died of a signal
  timed_out,  // it used up its processor time, or far more time than that by the clock
};

// The work may read anything of this process; of what it writes only SharedBuffers are seen
// afterwards. Nothing is printed, whatever happens. Where no copy can be made (out of processes or
// memory) the work counts as finished without having run when `required` is false, and Error is
// thrown when it is true.
Trial try_isolated(const std::function<void()>& work, int cpu_seconds, bool required);

// True inside the copy, which has a single thread: locks of the original's threads mean nothing
// there.
bool in_isolated_copy();

// Throws Error naming `path` for `crashed` and `timed_out`.
void check_trial(Trial trial, const std::string& path);

// Processor seconds that reading the metadata of a file of `bytes` may take: a hundred times what
// it needs, and at least 1.
int metadata_seconds(std::int64_t bytes);

// Memory that an isolated copy can write for its parent. Page aligned.
class SharedBuffer {
 public:
  explicit SharedBuffer(std::int64_t bytes);  // throws std::bad_alloc
  ~SharedBuffer();
  SharedBuffer(const SharedBuffer&) = delete;
  SharedBuffer& operator=(const SharedBuffer&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace raingauge
