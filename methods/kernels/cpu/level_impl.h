// SPDX-License-Identifier: Apache-2.0
// The CPU kernels themselves, written once over the primitives of a vec_*.h and compiled once per
// instruction-set level. Everything here is static in the level's namespace and uses no library
// templates, so that no code for a wide level can be picked by the linker for a narrow machine.
//
// Order of arithmetic. A score is one chain of fused multiply-adds over head_dim ascending, whatever
// the tile it falls in; a row of a tile never mixes with its neighbours. So a row's result depends on
// its own list only, not on the other rows, the tiling or the thread.
#pragma once

#include "methods/kernels/cpu/level_attend.h"
#include "methods/kernels/cpu/level_judge.h"
#include "methods/kernels/cpu/level_pack.h"
#include "methods/kernels/cpu/level_tiles.h"
#include "methods/kernels/cpu/ops.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

// ---- The machine's peak. ----

constexpr int kChains = 12;  // covers the latency of two units, and fits 16 registers

template <class A>
RAINGAUGE_NOINLINE double spin_chains(std::int64_t rounds) {
  Vec sum[kChains];
  const Vec a = set1(0.9990234375F), b = set1(0.0009765625F);
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) {
    sum[i] = set1(static_cast<float>(i));
  }
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      sum[i] = A::link(sum[i], a, b);
    }
  }
  Vec total = zero();
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) {
    total = add(total, sum[i]);
  }
  // Never taken: the sums are used, so they are computed.
  if (reduce_add(total) < 0.0F) {
    return 0.0;
  }
  return static_cast<double>(rounds) * kChains * kWidth * (A::kPairs ? 4.0 : 2.0);
}

double spin_any([[maybe_unused]] Products products, std::int64_t rounds) {
#ifdef RAINGAUGE_LEVEL_PAIRS
  if (products == Products::pairs) {
    return spin_chains<Pairs>(rounds);
  }
#endif
  return spin_chains<Floats>(rounds);
}

// ---- The table. ----

void attend_any(const AttendTile& tile) {
#ifdef RAINGAUGE_LEVEL_PAIRS
  if (tile.shape.pairs()) {
    attend_tile<Pairs>(tile);
    return;
  }
#endif
  attend_tile<Floats>(tile);
}

void mass_any(const MassTile& tile) {
#ifdef RAINGAUGE_LEVEL_PAIRS
  if (tile.shape.pairs()) {
    local_sums<Pairs>(tile);
    add_shares(tile);
    return;
  }
#endif
  local_sums<Floats>(tile);
  add_shares(tile);
}

LevelOps make_ops(std::string_view name, Products bf16) {
  LevelOps ops;
  ops.name = name;
  ops.bf16 = bf16;
  ops.pack_k = pack_k;
  ops.pack_v = pack_v;
  ops.pack_q = pack_q;
  ops.attend = attend_any;
  ops.evaluate = evaluate_tile;
  ops.mass = mass_any;
  ops.add_rows = add_rows;
  ops.scores = score_matrix;
  ops.spin = spin_any;
  return ops;
}

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
