// SPDX-License-Identifier: Apache-2.0
// Level `avx512`: 16 floats; bf16 is widened to fp32.
#if defined(__x86_64__)
#define RAINGAUGE_LEVEL avx512
#define RAINGAUGE_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#include "methods/kernels/cpu/vec_avx512.h"

// Needs the primitives above.
#include "methods/kernels/cpu/level_impl.h"

namespace raingauge::cpu {

const LevelOps& avx512_ops() {
  static const LevelOps ops = avx512::make_ops("avx512", Products::floats);
  return ops;
}

}  // namespace raingauge::cpu
#endif
