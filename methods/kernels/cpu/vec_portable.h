// SPDX-License-Identifier: Apache-2.0
// Vector primitives in standard C++ plus the compilers' 16-byte vectors: runs on any machine, and
// turns into SSE2 or NEON. Included by one level's .cpp only, after it has defined RAINGAUGE_LEVEL.
#pragma once

#include <cstdint>
#include <cstring>

#include "data/dtype.h"

#define RAINGAUGE_INLINE static inline __attribute__((always_inline, unused))
#define RAINGAUGE_NOINLINE static __attribute__((noinline))

namespace raingauge::cpu::RAINGAUGE_LEVEL {

typedef float Vec __attribute__((vector_size(16)));
constexpr int kWidth = 4;
constexpr int kMaxRows = 2;
constexpr int kMaxUnits = 1;
constexpr int kExpBlock = 2;  // exponentials computed in step

RAINGAUGE_INLINE Vec zero() { return Vec{0.0F, 0.0F, 0.0F, 0.0F}; }
RAINGAUGE_INLINE Vec set1(float x) { return Vec{x, x, x, x}; }
RAINGAUGE_INLINE Vec keep(Vec x) { return x; }
RAINGAUGE_INLINE Vec load(const float* p) {
  Vec x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
RAINGAUGE_INLINE void store(float* p, Vec x) { std::memcpy(p, &x, sizeof(x)); }
RAINGAUGE_INLINE Vec load_words(const std::uint32_t* p) {
  Vec x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
RAINGAUGE_INLINE void store_words(std::uint32_t* p, Vec x) { std::memcpy(p, &x, sizeof(x)); }
RAINGAUGE_INLINE Vec broadcast_word(const std::uint32_t* p) {
  float x;
  std::memcpy(&x, p, sizeof(x));
  return set1(x);
}
RAINGAUGE_INLINE Vec add(Vec a, Vec b) { return a + b; }
RAINGAUGE_INLINE Vec sub(Vec a, Vec b) { return a - b; }
RAINGAUGE_INLINE Vec mul(Vec a, Vec b) { return a * b; }
RAINGAUGE_INLINE Vec div(Vec a, Vec b) { return a / b; }
RAINGAUGE_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
// The second operand when either is NaN.
RAINGAUGE_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
RAINGAUGE_INLINE float reduce_max(Vec x) {
  const float low = x[0] > x[2] ? x[0] : x[2];
  const float high = x[1] > x[3] ? x[1] : x[3];
  return low > high ? low : high;
}
RAINGAUGE_INLINE float reduce_add(Vec x) { return (x[0] + x[2]) + (x[1] + x[3]); }

// 2^x in two parts: rest = x - n in [-1/2, 1/2], and n. Adding 1.5 * 2^23 rounds to an integer, which
// then stands in the lowest bits, here with the bias of an exponent less one: x below -125.5 gives the
// power 0, and nothing is ever denormal. NaN stays NaN in `rest`.
struct Power {
  Vec rest;
  Vec biased;
};
constexpr float kMagic = 12582912.0F + 126.0F;
constexpr float kPolynomialScale = 2.0F;  // makes up for the power's being half of 2^n
RAINGAUGE_INLINE Power split_power(Vec x, Vec magic, Vec least) {
  const Vec bounded = max(least, x);
  const Vec biased = bounded + magic;
  return {bounded - (biased - magic), biased};
}
RAINGAUGE_INLINE Vec times_power(Vec p, const Power& power) {
  typedef std::uint32_t Bits __attribute__((vector_size(16)));
  return p * reinterpret_cast<Vec>(reinterpret_cast<Bits>(power.biased) << 23);
}

RAINGAUGE_INLINE void add_to_double(double* target, Vec x) {
  for (int i = 0; i < 4; ++i) {
    target[i] += static_cast<double>(x[i]);
  }
}

// 16 elements as floats.
RAINGAUGE_INLINE void convert16(const void* source, DType dtype, float* target) {
  if (dtype == DType::f32) {
    std::memcpy(target, source, 16 * sizeof(float));
    return;
  }
  std::uint16_t bits[16];
  std::memcpy(bits, source, sizeof(bits));
  for (int i = 0; i < 16; ++i) {
    target[i] = dtype == DType::f16 ? f16_to_float(bits[i]) : bf16_to_float(bits[i]);
  }
}

RAINGAUGE_INLINE void interleave16(const std::uint16_t* low, const std::uint16_t* high,
                                   std::uint32_t* target) {
  for (int c = 0; c < 16; ++c) {
    target[c] = std::uint32_t{low[c]} | (std::uint32_t{high[c]} << 16);
  }
}

RAINGAUGE_INLINE void transpose16(const void* const* rows, std::uint32_t* target) {
  for (int i = 0; i < 16; ++i) {
    std::uint32_t words[16];
    std::memcpy(words, rows[i], sizeof(words));
    for (int j = 0; j < 16; ++j) {
      target[j * 16 + i] = words[j];
    }
  }
}

}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
