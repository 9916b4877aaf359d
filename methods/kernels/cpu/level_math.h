// SPDX-License-Identifier: Apache-2.0
// How a packed word multiplies, and exponentials. Part of level_impl.h.
#pragma once

#include <cmath>
#include <limits>

#include "methods/kernels/cpu/ops.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

constexpr int kVecs = kUnit / kWidth;  // vectors in a unit
static_assert(kMaxUnits == 1 || kMaxUnits == 4, "the code for left-over units covers these two");
constexpr int kRestRows = kMaxRows > 4 ? 4 : kMaxRows / 2;  // 2 * kRestRows > kMaxRows - 1
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// ---- Arithmetic: how a packed word multiplies. ----

struct Floats {
  static constexpr bool kPairs = false;
  RAINGAUGE_INLINE Vec dot(Vec sum, Vec a, Vec b) { return fma(a, b, sum); }
  // One link of a chain that stays bounded and that no compiler can shorten.
  RAINGAUGE_INLINE Vec link(Vec sum, Vec a, Vec b) { return fma(sum, a, b); }
};

#ifdef RAINGAUGE_LEVEL_PAIRS
struct Pairs {
  static constexpr bool kPairs = true;
  RAINGAUGE_INLINE Vec dot(Vec sum, Vec a, Vec b) { return dot_pairs(sum, a, b); }
  RAINGAUGE_INLINE Vec link(Vec sum, Vec a, Vec b) { return dot_pairs(sum, a, b); }
};
#endif

// ---- exp2: minimax polynomials of 2^r on [-1/2, 1/2] with p(0) = 1. ----

// A polynomial of kTerms + 1 coefficients, the highest power first, and what splits its argument.
template <int kTerms>
struct Exp2 {
  Vec coefficient[kTerms + 1];
  Vec magic, least;

  RAINGAUGE_INLINE Exp2 make(const float (&values)[kTerms + 1]) {
    Exp2 e;
#pragma GCC unroll 8
    for (int i = 0; i <= kTerms; ++i) {
      e.coefficient[i] = keep(set1(kPolynomialScale * values[i]));
    }
    e.magic = keep(set1(kMagic));
    e.least = keep(set1(-126.0F));
    return e;
  }

  // x[i] = 2^x[i], in step: one exponential is a chain of dependent instructions.
  template <int kCount>
  RAINGAUGE_INLINE void apply(const Exp2& e, Vec* x) {
    Power power[kCount];
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      power[i] = split_power(x[i], e.magic, e.least);
      x[i] = fma(e.coefficient[0], power[i].rest, e.coefficient[1]);
    }
#pragma GCC unroll 8
    for (int term = 2; term <= kTerms; ++term) {
#pragma GCC unroll 8
      for (int i = 0; i < kCount; ++i) {
        x[i] = fma(x[i], power[i].rest, e.coefficient[term]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      x[i] = times_power(x[i], power[i]);
    }
  }
};

// Relative error 2.9e-6 + rounding: for weights that are rounded to bf16 (2e-3) at once.
using Exp2Rough = Exp2<4>;
RAINGAUGE_INLINE Exp2Rough exp2_rough() {
  return Exp2Rough::make({9.5828532e-3F, 5.5906425e-2F, 2.4024099e-1F, 6.9312419e-1F, 1.0F});
}

// Relative error 1.5e-7 + rounding.
using Exp2Fast = Exp2<5>;
RAINGAUGE_INLINE Exp2Fast exp2_fast() {
  return Exp2Fast::make(
      {1.3276472e-3F, 9.6755413e-3F, 5.5507133e-2F, 2.4022120e-1F, 6.9314697e-1F, 1.0F});
}

// Relative error 4e-9 + rounding.
using Exp2Fine = Exp2<6>;
RAINGAUGE_INLINE Exp2Fine exp2_fine() {
  return Exp2Fine::make({1.5469732e-4F, 1.3410001e-3F, 9.6180308e-3F, 5.5502973e-2F, 2.4022651e-1F,
                         6.9314723e-1F, 1.0F});
}

template <int kCount>
RAINGAUGE_INLINE Vec add_all(const Vec* x) {
  if constexpr (kCount == 1) {
    return x[0];
  } else {
    return add(add_all<kCount / 2>(x), add_all<kCount - kCount / 2>(x + kCount / 2));
  }
}

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
