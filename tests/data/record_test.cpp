// SPDX-License-Identifier: Apache-2.0
#include "data/record.h"

#include <gtest/gtest.h>

#include <vector>

namespace raingauge {
namespace {

// Views of host memory find their copies by address; nothing else does.
TEST(DeviceMirror, FindsWholeTensorsAndHeads) {
  std::vector<std::uint16_t> host(3 * 4 * 5 * 8), other(host.size());
  const std::vector<char> device(1);
  const auto q = contiguous_view(host.data(), DType::bf16, 4, 5, 8);
  const auto k = contiguous_view(host.data() + 160, DType::bf16, 4, 5, 8);
  const auto v = contiguous_view(host.data() + 320, DType::bf16, 4, 5, 8);
  const Device cuda{DeviceKind::cuda, 0};
  const auto copy = [&](std::int64_t place) {
    return contiguous_view(device.data() + place, DType::bf16, 4, 5, 8, cuda);
  };
  const DeviceMirror mirror{{q, copy(0)}, {k, copy(1000)}, {v, copy(2000)}};
  ASSERT_TRUE(mirror.of(k).has_value());
  EXPECT_EQ(mirror.of(k)->data, device.data() + 1000);
  const auto one = mirror.of(v.slice_heads(2, 1));
  ASSERT_TRUE(one.has_value());
  EXPECT_EQ(one->data, device.data() + 2000 + 2 * 40 * 2);
  EXPECT_EQ(one->heads, 1);
  EXPECT_TRUE(one->device == cuda);
  EXPECT_FALSE(mirror.of(contiguous_view(other.data(), DType::bf16, 4, 5, 8)).has_value());
  EXPECT_FALSE(mirror.of(contiguous_view(host.data() + 8, DType::bf16, 1, 5, 8)).has_value());
  EXPECT_FALSE(mirror.of(contiguous_view(host.data(), DType::bf16, 4, 4, 8)).has_value());
  EXPECT_FALSE(mirror.of(contiguous_view(host.data(), DType::f16, 4, 5, 8)).has_value());
  EXPECT_FALSE(mirror.of(copy(0)).has_value()) << "a device's view is no view of host memory";
}

}  // namespace
}  // namespace raingauge
