// SPDX-License-Identifier: Apache-2.0
// Conversion to bf16, for the AVX-512 levels that have it. Included after vec_avx512.h.
#pragma once

#include "methods/kernels/cpu/vec_avx512.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {

// 32 (16) floats, rounded to nearest even, as 32 (16) consecutive bf16.
RAINGAUGE_INLINE void store_two_as_pairs(std::uint32_t* target, Vec low, Vec high) {
  _mm512_storeu_si512(target, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}
RAINGAUGE_INLINE void store_one_as_pairs(std::uint32_t* target, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
