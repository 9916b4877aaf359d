// SPDX-License-Identifier: Apache-2.0
// Level `portable`: any CPU.
#define RAINGAUGE_LEVEL portable
#include "methods/kernels/cpu/vec_portable.h"

// Needs the primitives above.
#include "methods/kernels/cpu/level_impl.h"

namespace raingauge::cpu {

const LevelOps& portable_ops() {
  static const LevelOps ops = portable::make_ops("portable", Products::floats);
  return ops;
}

}  // namespace raingauge::cpu
