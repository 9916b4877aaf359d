// SPDX-License-Identifier: Apache-2.0
// Level `amx_bf16`: products of bf16 on matrix tiles; everything else as avx512.
#if defined(__x86_64__)
#define RAINGAUGE_LEVEL amx_bf16
#define RAINGAUGE_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c"
#include "methods/kernels/cpu/vec_avx512.h"
#include "methods/kernels/cpu/vec_avx512_bf16.h"

// Needs the primitives above.
#include "methods/kernels/cpu/level_impl.h"
// Needs the level's own code.
#include "methods/kernels/cpu/amx_attend.h"
#include "methods/kernels/cpu/amx_judge.h"

namespace raingauge::cpu {
namespace amx_bf16 {
namespace {

void attend_with_tiles(const AttendTile& tile) {
  if (tile.shape.tiles()) {
    attend_tiles(tile);
  } else {
    attend_any(tile);
  }
}

void evaluate_with_tiles(const RowTile& tile) {
  if (tile.shape.tiles()) {
    evaluate_tiles(tile);
  } else {
    evaluate_tile(tile);
  }
}

void mass_with_tiles(const MassTile& tile) {
  if (tile.shape.tiles()) {
    local_sums_tiles(tile);
    add_shares(tile);
  } else {
    mass_any(tile);
  }
}

double spin_with_tiles(Products products, std::int64_t rounds) {
  return products == Products::tiles ? spin_tiles(rounds / 16) : spin_any(products, rounds);
}

}  // namespace
}  // namespace amx_bf16

const LevelOps& amx_bf16_ops() {
  static const LevelOps ops = [] {
    LevelOps made = amx_bf16::make_ops("amx_bf16", Products::tiles);
    made.attend = amx_bf16::attend_with_tiles;
    made.evaluate = amx_bf16::evaluate_with_tiles;
    made.mass = amx_bf16::mass_with_tiles;
    made.spin = amx_bf16::spin_with_tiles;
    return made;
  }();
  return ops;
}

}  // namespace raingauge::cpu
#endif
