// SPDX-License-Identifier: Apache-2.0
// Level `avx512_bf16`: as avx512, and products of bf16 pairs added in fp32 by one instruction.
#if defined(__x86_64__)
#define RAINGAUGE_LEVEL avx512_bf16
#define RAINGAUGE_LEVEL_PAIRS 1
#define RAINGAUGE_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c"
#include "methods/kernels/cpu/vec_avx512.h"

namespace raingauge::cpu::avx512_bf16 {

RAINGAUGE_INLINE Vec dot_pairs(Vec sum, Vec a, Vec b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
// 32 (16) floats, rounded to nearest even, as 32 (16) consecutive bf16.
RAINGAUGE_INLINE void store_two_as_pairs(std::uint32_t* target, Vec low, Vec high) {
  _mm512_storeu_si512(target, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}
RAINGAUGE_INLINE void store_one_as_pairs(std::uint32_t* target, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

}  // namespace raingauge::cpu::avx512_bf16

// Needs the primitives above.
#include "methods/kernels/cpu/level_impl.h"

namespace raingauge::cpu {

const LevelOps& avx512_bf16_ops() {
  static const LevelOps ops = avx512_bf16::make_ops("avx512_bf16", true);
  return ops;
}

}  // namespace raingauge::cpu
#endif
