// SPDX-License-Identifier: Apache-2.0
// Where is the first NaN or Inf of a run of stored elements? An element is finite unless all bits
// of its exponent are set, so the raw bits are enough.
#include "data/finite.h"

#include <cstring>

namespace raingauge {
namespace {

constexpr std::int64_t kStrip = 256;  // a fixed length, so that the inner loop vectorises at -O2

template <typename Bits>
std::int64_t find(const char* data, std::int64_t count, Bits exponent) {
  Bits strip[kStrip];
  for (std::int64_t start = 0; start < count; start += kStrip) {
    const std::int64_t here = count - start < kStrip ? count - start : kStrip;
    const char* source = data + start * static_cast<std::int64_t>(sizeof(Bits));
    if (here < kStrip) std::memset(strip, 0, sizeof strip);
    std::memcpy(strip, source, static_cast<std::size_t>(here) * sizeof(Bits));
    Bits any = 0;
    for (std::int64_t i = 0; i < kStrip; ++i) {
      any = static_cast<Bits>(any | ((strip[i] & exponent) == exponent ? 1 : 0));
    }
    if (any == 0) continue;
    for (std::int64_t i = 0; i < here; ++i) {
      if ((strip[i] & exponent) == exponent) return start + i;
    }
  }
  return -1;
}

}  // namespace

std::int64_t first_nonfinite(const void* data, DType dtype, std::int64_t count) {
  const auto* bytes = static_cast<const char*>(data);
  switch (dtype) {
    case DType::f32:
      return find<std::uint32_t>(bytes, count, 0x7f800000U);
    case DType::f16:
      return find<std::uint16_t>(bytes, count, 0x7c00U);
    case DType::bf16:
      return find<std::uint16_t>(bytes, count, 0x7f80U);
  }
  return -1;
}

}  // namespace raingauge
