// SPDX-License-Identifier: Apache-2.0
// Vector primitives of the AVX2 + FMA level. Included by one level's .cpp only, after it has defined
// RAINGAUGE_LEVEL (namespace) and RAINGAUGE_TARGET (target attribute).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "data/dtype.h"

#define RAINGAUGE_INLINE \
  static inline __attribute__((always_inline, unused, target(RAINGAUGE_TARGET)))
#define RAINGAUGE_NOINLINE static __attribute__((noinline, target(RAINGAUGE_TARGET)))

namespace raingauge::cpu::RAINGAUGE_LEVEL {

using Vec = __m256;
constexpr int kWidth = 8;
constexpr int kMaxRows = 6;
constexpr int kMaxUnits = 1;
constexpr int kExpBlock = 2;  // exponentials computed in step

RAINGAUGE_INLINE Vec zero() { return _mm256_setzero_ps(); }
RAINGAUGE_INLINE Vec set1(float x) { return _mm256_set1_ps(x); }
// A constant that stays in a register: as memory operands, constants would take all loads of a loop.
RAINGAUGE_INLINE Vec keep(Vec x) {
  asm("" : "+x"(x));
  return x;
}
RAINGAUGE_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
RAINGAUGE_INLINE void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
RAINGAUGE_INLINE Vec load_words(const std::uint32_t* p) {
  return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
}
RAINGAUGE_INLINE void store_words(std::uint32_t* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_castps_si256(x));
}
RAINGAUGE_INLINE Vec broadcast_word(const std::uint32_t* p) {
  return _mm256_broadcast_ss(reinterpret_cast<const float*>(p));
}
RAINGAUGE_INLINE Vec add(Vec a, Vec b) { return a + b; }
RAINGAUGE_INLINE Vec sub(Vec a, Vec b) { return a - b; }
RAINGAUGE_INLINE Vec mul(Vec a, Vec b) { return a * b; }
RAINGAUGE_INLINE Vec div(Vec a, Vec b) { return a / b; }
RAINGAUGE_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
// The second operand when either is NaN.
RAINGAUGE_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
RAINGAUGE_INLINE float reduce_max(Vec x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
RAINGAUGE_INLINE float reduce_add(Vec x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

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
  const Vec biased = add(bounded, magic);
  return {sub(bounded, sub(biased, magic)), biased};
}
RAINGAUGE_INLINE Vec times_power(Vec p, const Power& power) {
  return mul(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(power.biased), 23)));
}

RAINGAUGE_INLINE void add_to_double(double* target, Vec x) {
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
  const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
  _mm256_storeu_pd(target, _mm256_loadu_pd(target) + low);
  _mm256_storeu_pd(target + 4, _mm256_loadu_pd(target + 4) + high);
}

// 16 elements as floats.
RAINGAUGE_INLINE void convert16(const void* source, DType dtype, float* target) {
  if (dtype == DType::f32) {
    std::memcpy(target, source, 16 * sizeof(float));
    return;
  }
  for (int half = 0; half < 2; ++half) {
    const __m128i bits = _mm_loadu_si128(static_cast<const __m128i*>(source) + half);
    const __m256 wide =
        dtype == DType::f16
            ? _mm256_cvtph_ps(bits)
            : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    store(target + 8 * half, wide);
  }
}

// target[c] = low[c] | high[c] << 16 for 16 bf16 of two rows.
RAINGAUGE_INLINE void interleave16(const std::uint16_t* low, const std::uint16_t* high,
                                   std::uint32_t* target) {
  for (int c = 0; c < 16; ++c) {
    target[c] = std::uint32_t{low[c]} | (std::uint32_t{high[c]} << 16);
  }
}

// target[j * 16 + i] = word j of rows[i], 16 x 16 words that need no alignment, as four 8 x 8 transposes.
RAINGAUGE_INLINE void transpose8(const void* const* rows, int column, std::uint32_t* target) {
  __m256 a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[i] = load_words(static_cast<const std::uint32_t*>(rows[i]) + column);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    store_words(target + 16 * j, _mm256_permute2f128_ps(a[j], a[4 + j], 0x20));
    store_words(target + 16 * (4 + j), _mm256_permute2f128_ps(a[j], a[4 + j], 0x31));
  }
}
RAINGAUGE_INLINE void transpose16(const void* const* rows, std::uint32_t* target) {
  transpose8(rows, 0, target);
  transpose8(rows + 8, 0, target + 8);
  transpose8(rows, 8, target + 128);
  transpose8(rows + 8, 8, target + 136);
}

}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
