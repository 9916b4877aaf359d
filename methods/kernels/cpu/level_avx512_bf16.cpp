// SPDX-License-Identifier: Apache-2.0
// Level `avx512_bf16`: as avx512, and products of bf16 pairs added in fp32 by one instruction.
#if defined(__x86_64__)
#define RAINGAUGE_LEVEL avx512_bf16
#define RAINGAUGE_LEVEL_PAIRS 1
#define RAINGAUGE_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c"
#include "methods/kernels/cpu/vec_avx512.h"
#include "methods/kernels/cpu/vec_avx512_bf16.h"

namespace raingauge::cpu::avx512_bf16 {

RAINGAUGE_INLINE Vec dot_pairs(Vec sum, Vec a, Vec b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

}  // namespace raingauge::cpu::avx512_bf16

// Needs the primitives above.
#include "methods/kernels/cpu/level_impl.h"

namespace raingauge::cpu {

const LevelOps& avx512_bf16_ops() {
  static const LevelOps ops = avx512_bf16::make_ops("avx512_bf16", Products::pairs);
  return ops;
}

}  // namespace raingauge::cpu
#endif
