// SPDX-License-Identifier: Apache-2.0
// Non-owning strided views of Q, K, V and of outputs. head_dim is always contiguous.
#pragma once

#include <cstdint>
#include <string>

#include "data/dtype.h"

namespace raingauge {

enum class DeviceKind { cpu, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

std::string to_string(const Device& device);   // "cpu", "cuda:0"
Device parse_device(const std::string& text);  // "cpu", "cuda", "cuda:1"; throws Error

// [heads, tokens, head_dim]; strides in elements.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t heads = 0;
  std::int64_t tokens = 0;
  std::int64_t head_dim = 0;
  std::int64_t head_stride = 0;
  std::int64_t token_stride = 0;
  Device device;

  const void* row(std::int64_t head, std::int64_t token) const {
    const auto offset = head * head_stride + token * token_stride;
    return static_cast<const char*>(data) + offset * static_cast<std::int64_t>(size_of(dtype));
  }
  TensorView slice_heads(std::int64_t first, std::int64_t count) const {
    TensorView view = *this;
    view.data = row(first, 0);
    view.heads = count;
    return view;
  }
};

// A dense [heads, tokens, head_dim] view.
inline TensorView contiguous_view(const void* data, DType dtype, std::int64_t heads,
                                  std::int64_t tokens, std::int64_t head_dim, Device device = {}) {
  return {data, dtype, heads, tokens, head_dim, tokens * head_dim, head_dim, device};
}

}  // namespace raingauge
