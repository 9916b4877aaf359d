// SPDX-License-Identifier: Apache-2.0
// Level `avx2`: 8 floats, fused multiply-add, half-precision conversion.
#if defined(__x86_64__)
#define RAINGAUGE_LEVEL avx2
#define RAINGAUGE_TARGET "avx2,fma,f16c"
#include "methods/kernels/cpu/vec_avx2.h"

// Needs the primitives above.
#include "methods/kernels/cpu/level_impl.h"

namespace raingauge::cpu {

const LevelOps& avx2_ops() {
  static const LevelOps ops = avx2::make_ops("avx2", Products::floats);
  return ops;
}

}  // namespace raingauge::cpu
#endif
