// SPDX-License-Identifier: Apache-2.0
#include "data/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

#include "data/error.h"
#include "data/random.h"

namespace raingauge {
namespace {

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

// Value of a 16-bit float computed in double from its fields alone.
double decode(std::uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

struct Format {
  DType dtype;
  int exponent_bits, mantissa_bits;
  float (*widen)(std::uint16_t);
  std::uint16_t (*round)(float);
};

const Format kFormats[] = {{DType::bf16, 8, 7, bf16_to_float, float_to_bf16},
                           {DType::f16, 5, 10, f16_to_float, float_to_f16}};

TEST(DtypeTest, WideningIsExactForAllPatterns) {
  for (const Format& f : kFormats) {
    for (std::uint32_t i = 0; i < 65536; ++i) {
      const auto bits = static_cast<std::uint16_t>(i);
      const double expected = decode(bits, f.exponent_bits, f.mantissa_bits);
      const float got = f.widen(bits);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(got)) << name_of(f.dtype) << " " << i;
      } else {
        ASSERT_EQ(expected, double{got}) << name_of(f.dtype) << " " << i;
        ASSERT_EQ(std::signbit(expected), std::signbit(got));
      }
    }
  }
}

TEST(DtypeTest, RoundTripKeepsEveryFinitePattern) {
  for (const Format& f : kFormats) {
    for (std::uint32_t i = 0; i < 65536; ++i) {
      const auto bits = static_cast<std::uint16_t>(i);
      if (std::isnan(f.widen(bits))) continue;
      ASSERT_EQ(f.round(f.widen(bits)), bits) << name_of(f.dtype) << " " << i;
    }
  }
}

// For every pair of neighbours the midpoint goes to the even one, and the next floats on either
// side of the midpoint go to the nearer one.
TEST(DtypeTest, TiesGoToEvenBetweenAllNeighbours) {
  for (const Format& f : kFormats) {
    const std::uint32_t infinity = ((1U << f.exponent_bits) - 1) << f.mantissa_bits;
    for (std::uint32_t low = 0; low + 1 <= infinity; ++low) {
      // Above the largest finite value the format would continue with the same step.
      const float a = f.widen(static_cast<std::uint16_t>(low));
      const double below_step =
          low == 0 ? 0.0 : double{a} - double{f.widen(static_cast<std::uint16_t>(low - 1))};
      const double b = low + 1 == infinity ? double{a} + below_step
                                           : double{f.widen(static_cast<std::uint16_t>(low + 1))};
      const auto middle = static_cast<float>((double{a} + b) / 2.0);
      if (double{middle} != (double{a} + b) / 2.0) continue;  // not a float (bf16 subnormals)
      const std::uint32_t even = low % 2 == 0 ? low : low + 1;
      ASSERT_EQ(f.round(middle), even) << name_of(f.dtype) << " above " << low;
      ASSERT_EQ(f.round(-middle), even | 0x8000U);
      ASSERT_EQ(f.round(std::nextafter(middle, 0.0F)), low);
      ASSERT_EQ(f.round(std::nextafter(middle, INFINITY)), low + 1);
    }
  }
}

TEST(DtypeTest, SpecialValues) {
  EXPECT_EQ(float_to_bf16(from_bits(0x3f808000)), 0x3f80);  // tie, even below
  EXPECT_EQ(float_to_bf16(from_bits(0x3f818000)), 0x3f82);  // tie, even above
  EXPECT_EQ(float_to_bf16(3.4e38F), 0x7f80);                // nearer to 2^128 than to the largest
  EXPECT_EQ(float_to_f16(65519.0F), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0F), 0x7c00);
  EXPECT_EQ(float_to_f16(0x1p-25F), 0x0000);
  EXPECT_EQ(float_to_f16(std::nextafter(0x1p-25F, 1.0F)), 0x0001);
  for (const Format& f : kFormats) {
    EXPECT_EQ(f.round(-0.0F), 0x8000);
    EXPECT_TRUE(std::isinf(f.widen(f.round(INFINITY))));
    for (const std::uint32_t nan : {0x7f800001U, 0xff800001U, 0x7fffffffU, 0x7fc00000U}) {
      const float back = f.widen(f.round(from_bits(nan)));
      EXPECT_TRUE(std::isnan(back)) << std::hex << nan;
      EXPECT_EQ(std::bit_cast<std::uint32_t>(back) & 0x400000U, 0x400000U) << "quiet";
    }
  }
}

// Odd lengths and starts cover the vector loops and their tails.
TEST(DtypeTest, BulkEqualsScalar) {
  std::vector<float> values;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    values.push_back(from_bits(static_cast<std::uint32_t>(mix64(i))));
  }
  values.insert(values.end(), {0.0F, -0.0F, INFINITY, -INFINITY, NAN, 65520.0F, 1e-8F, 3.4e38F});
  for (const Format& f : kFormats) {
    for (const std::size_t start : {0U, 1U, 3U}) {
      const std::size_t count = values.size() - start - 2;
      std::vector<std::uint16_t> bits(count + 1, 0xabcd);
      convert_from_float(values.data() + start, bits.data(), f.dtype, count);
      EXPECT_EQ(bits[count], 0xabcd) << "writes past the end";
      std::vector<float> back(count);
      convert_to_float(bits.data(), f.dtype, back.data(), count);
      for (std::size_t i = 0; i < count; ++i) {
        ASSERT_EQ(bits[i], f.round(values[start + i])) << name_of(f.dtype) << " " << i;
        ASSERT_EQ(std::bit_cast<std::uint32_t>(back[i]),
                  std::bit_cast<std::uint32_t>(f.widen(bits[i])));
      }
    }
  }
  std::vector<float> copy(values.size());
  convert_to_float(values.data(), DType::f32, copy.data(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(copy[i]), std::bit_cast<std::uint32_t>(values[i]));
  }
}

TEST(DtypeTest, Names) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    EXPECT_EQ(parse_dtype(name_of(dtype)), dtype);
  }
  EXPECT_THROW(parse_dtype("float64"), Error);
  EXPECT_EQ(size_of(DType::f32), 4U);
  EXPECT_EQ(size_of(DType::bf16), 2U);
}

// The unit roundoff is half the distance from 1 to the next value.
TEST(DtypeTest, UnitRoundoff) {
  for (const Format& f : kFormats) {
    const auto one = f.round(1.0F);
    const double step = double{f.widen(static_cast<std::uint16_t>(one + 1))} - 1.0;
    EXPECT_EQ(unit_roundoff(f.dtype), step / 2.0);
  }
  EXPECT_EQ(unit_roundoff(DType::f32), std::numeric_limits<float>::epsilon() / 2.0);
}

}  // namespace
}  // namespace raingauge
