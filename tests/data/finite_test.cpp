// SPDX-License-Identifier: Apache-2.0
#include "data/finite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace raingauge {
namespace {

TEST(FiniteTest, FindsTheFirstNanOrInfAtEveryPlace) {
  const std::int64_t count = 700;  // two whole strips and a part
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    std::vector<float> values(static_cast<std::size_t>(count), -2.0F);
    // One byte into the buffer: nothing may assume alignment.
    std::vector<char> bytes(values.size() * 4 + 1);
    const auto scan = [&] {
      std::vector<char> packed(values.size() * 4);
      convert_from_float(values.data(), packed.data(), dtype, values.size());
      std::copy(packed.begin(), packed.end(), bytes.begin() + 1);
      return first_nonfinite(bytes.data() + 1, dtype, count);
    };
    EXPECT_EQ(scan(), -1);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY}) {
      for (const std::size_t at : {0U, 255U, 256U, 511U, 512U, 699U}) {
        values[at] = bad;
        EXPECT_EQ(scan(), static_cast<std::int64_t>(at)) << name_of(dtype);
        values[at] = 1.0F;
      }
    }
  }
}

TEST(FiniteTest, LargestValuesAreFinite) {
  const std::uint16_t f16 = 0xfbff;
  const std::uint16_t bf16 = 0xff7f;
  const float f32 = std::numeric_limits<float>::lowest();
  EXPECT_EQ(first_nonfinite(&f16, DType::f16, 1), -1);
  EXPECT_EQ(first_nonfinite(&bf16, DType::bf16, 1), -1);
  EXPECT_EQ(first_nonfinite(&f32, DType::f32, 1), -1);
  EXPECT_EQ(first_nonfinite(nullptr, DType::f32, 0), -1);
}

}  // namespace
}  // namespace raingauge
