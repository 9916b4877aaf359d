// SPDX-License-Identifier: Apache-2.0
// Vector primitives of the AVX-512 levels. Included by one level's .cpp only, after it has defined
// RAINGAUGE_LEVEL (namespace) and RAINGAUGE_TARGET (target attribute).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "data/dtype.h"

// g++ 12 and 13 take the deliberately undefined operands of their own AVX-512 header for a mistake.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#define RAINGAUGE_INLINE \
  static inline __attribute__((always_inline, unused, target(RAINGAUGE_TARGET)))
#define RAINGAUGE_NOINLINE static __attribute__((noinline, target(RAINGAUGE_TARGET)))

namespace raingauge::cpu::RAINGAUGE_LEVEL {

using Vec = __m512;
constexpr int kWidth = 16;
constexpr int kMaxRows = 6;   // query rows of a register tile
constexpr int kMaxUnits = 4;  // key units, or 16-column panels, of a register tile
constexpr int kExpBlock = 2;  // exponentials computed in step

RAINGAUGE_INLINE Vec zero() { return _mm512_setzero_ps(); }
RAINGAUGE_INLINE Vec set1(float x) { return _mm512_set1_ps(x); }
RAINGAUGE_INLINE Vec keep(Vec x) { return x; }
RAINGAUGE_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
RAINGAUGE_INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
RAINGAUGE_INLINE Vec load_words(const std::uint32_t* p) { return _mm512_loadu_ps(p); }
RAINGAUGE_INLINE void store_words(std::uint32_t* p, Vec x) { _mm512_storeu_ps(p, x); }
RAINGAUGE_INLINE Vec broadcast_word(const std::uint32_t* p) {
  return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*p)));
}
RAINGAUGE_INLINE Vec add(Vec a, Vec b) { return a + b; }
RAINGAUGE_INLINE Vec sub(Vec a, Vec b) { return a - b; }
RAINGAUGE_INLINE Vec mul(Vec a, Vec b) { return a * b; }
RAINGAUGE_INLINE Vec div(Vec a, Vec b) { return a / b; }
RAINGAUGE_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// The second operand when either is NaN.
RAINGAUGE_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
RAINGAUGE_INLINE float reduce_max(Vec x) { return _mm512_reduce_max_ps(x); }
RAINGAUGE_INLINE float reduce_add(Vec x) { return _mm512_reduce_add_ps(x); }

// 2^x in two parts: rest = x - n in [-1/2, 1/2], and n. Adding 1.5 * 2^23 rounds to an integer, which
// then stands in the lowest bits, here with the bias of an exponent less one: x below -125.5 gives the
// power 0, and nothing is ever denormal. NaN stays NaN in `rest`. (VRNDSCALEPS and VSCALEFPS take two
// slots each.)
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
  return mul(p, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(power.biased), 23)));
}

RAINGAUGE_INLINE void add_to_double(double* target, Vec x) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
  _mm512_storeu_pd(target, _mm512_loadu_pd(target) + low);
  _mm512_storeu_pd(target + 8, _mm512_loadu_pd(target + 8) + high);
}

// 16 elements as floats.
RAINGAUGE_INLINE void convert16(const void* source, DType dtype, float* target) {
  if (dtype == DType::f32) {
    store(target, _mm512_loadu_ps(source));
  } else if (dtype == DType::f16) {
    store(target, _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(source))));
  } else {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(source)));
    store(target, _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
  }
}

// target[c] = low[c] | high[c] << 16 for 16 bf16 of two rows.
RAINGAUGE_INLINE void interleave16(const std::uint16_t* low, const std::uint16_t* high,
                                   std::uint32_t* target) {
  const __m512i a =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low)));
  const __m512i b =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
  _mm512_storeu_si512(target, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
}

// target[j * 16 + i] = word j of rows[i], 16 x 16 words that need no alignment.
RAINGAUGE_INLINE void transpose16(const void* const* rows, std::uint32_t* target) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    a[i] = _mm512_loadu_si512(rows[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // a[i + c]: column c of each 128-bit lane, rows i..i+3
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i low01 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x44);   // lanes 0, 1
    const __m512i high01 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xee);  // lanes 2, 3
    const __m512i low23 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xee);
    b[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    b[4 + c] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    b[8 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    b[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) {
    _mm512_storeu_si512(target + 16 * j, b[j]);
  }
}

}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
