// SPDX-License-Identifier: Apache-2.0
// The judges: exact rows with fp64 carries, and the mass of every block. Part of level_impl.h.
#pragma once

#include "methods/kernels/cpu/level_tiles.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

// ---- The fp32 judge. ----

// Scores -> probabilities in place, kCount vectors; returns their sum.
template <int kCount>
RAINGAUGE_INLINE Vec judged_probabilities(const Exp2Fine& exp2, float* scores, Vec largest,
                                          Vec factor) {
  Vec p[kCount];
#pragma GCC unroll 8
  for (int j = 0; j < kCount; ++j) {
    p[j] = mul(sub(load(scores + j * kWidth), largest), factor);
  }
  Exp2Fine::apply<kCount>(exp2, p);
#pragma GCC unroll 8
  for (int j = 0; j < kCount; ++j) {
    store(scores + j * kWidth, p[j]);
  }
  return add_all<kCount>(p);
}

// Probabilities of one row of scores; per-vector partial sums of all keys and of two classes.
RAINGAUGE_INLINE void judge_row(const Exp2Fine& exp2, const RowTile& tile, int vecs, float* scores,
                                std::int32_t row) {
  const std::ptrdiff_t dim = tile.shape.padded_dim();
  const float top = row_max(scores, vecs);
  float& largest = tile.largest[row];
  if (top > largest) {
    if (largest != kMinusInfinity) {
      const double factor = std::exp2((static_cast<double>(largest) - static_cast<double>(top)) *
                                      static_cast<double>(tile.log2_scale));
      tile.sum[row] *= factor;
      tile.class_sum[0][row] *= factor;
      tile.class_sum[1][row] *= factor;
      for (std::ptrdiff_t c = 0; c < dim; ++c) {
        tile.o[row * dim + c] *= factor;
      }
    }
    largest = top;
  }
  const Vec offset = set1(largest == kMinusInfinity ? 0.0F : largest);
  const Vec factor = set1(tile.log2_scale);
  Vec sum = zero();
  int n = 0;
  for (; n + kExpBlock <= vecs; n += kExpBlock) {
    sum = add(sum, judged_probabilities<kExpBlock>(exp2, scores + n * kWidth, offset, factor));
  }
  for (; n < vecs; ++n) {
    sum = add(sum, judged_probabilities<1>(exp2, scores + n * kWidth, offset, factor));
  }
  tile.sum[row] += static_cast<double>(reduce_add(sum));
  for (int which = 0; which < 2; ++which) {
    if (tile.class_weight[which] == nullptr) {
      continue;
    }
    Vec part = zero();
    for (int i = 0; i < vecs; ++i) {
      part = fma(load(scores + i * kWidth), load(tile.class_weight[which] + i * kWidth), part);
    }
    tile.class_sum[which][row] += static_cast<double>(reduce_add(part));
  }
}

RAINGAUGE_NOINLINE void evaluate_tile(const RowTile& tile) {
  const PackShape& shape = tile.shape;
  const int dim = shape.padded_dim();
  const std::ptrdiff_t depth = shape.depth();
  const int vecs = tile.unit_count * kVecs;
  float* o = tile.scratch;                 // [rows, dim]
  float* scores = o + kMaxTileRows * dim;  // [rows, kChunkKeys]
  auto* gathered =
      reinterpret_cast<std::uint32_t*>(scores + kMaxTileRows * kChunkKeys);  // [rows, depth]
  std::int32_t units[kChunkUnits];
  for (int u = 0; u < kChunkUnits; ++u) {
    units[u] = u;
  }
  const Places keys = key_places(shape, tile.k, units, tile.unit_count);
  const Exp2Fine exp2 = exp2_fine();
  for (std::int64_t first = 0; first < tile.active_count; first += kMaxTileRows) {
    const std::int64_t left = tile.active_count - first;
    const int rows = left < kMaxTileRows ? static_cast<int>(left) : kMaxTileRows;
    const std::uint32_t* q = tile.q + tile.active[first] * depth;
    if (tile.active[first + rows - 1] - tile.active[first] != rows - 1) {  // not neighbours
      q = gathered;
      for (int i = 0; i < rows; ++i) {
        std::memcpy(gathered + i * depth, tile.q + tile.active[first + i] * depth,
                    static_cast<std::size_t>(depth) * sizeof(gathered[0]));
      }
    }
    score_rows<Floats>(q, rows, shape, keys, scores, Places{});
    for (int u = 0; u < tile.unit_count && !tile.full; ++u) {
      add_bias(scores + u * kUnit, rows, tile.bias + u * kUnit);
    }
    for (int i = 0; i < rows; ++i) {
      judge_row(exp2, tile, vecs, scores + i * kChunkKeys, tile.active[first + i]);
    }
    std::memset(o, 0, static_cast<std::size_t>(rows * dim) * sizeof(float));
    output_rows<Floats>(reinterpret_cast<const std::uint32_t*>(scores), rows, shape, tile.v, units,
                        tile.unit_count, o, Places{});
    for (int i = 0; i < rows; ++i) {
      double* target = tile.o + tile.active[first + i] * static_cast<std::ptrdiff_t>(dim);
      for (int c = 0; c < dim; c += kWidth) {
        add_to_double(target + c, load(o + i * dim + c));
      }
    }
  }
}

// ---- Block mass. ----

// Sum of 2^(score * factor + offset) over kCount vectors of scores.
template <int kCount>
RAINGAUGE_INLINE Vec exponentials(const Exp2Fast& exp2, const float* scores, Vec factor,
                                  Vec offset) {
  Vec p[kCount];
#pragma GCC unroll 8
  for (int j = 0; j < kCount; ++j) {
    p[j] = fma(load(scores + j * kWidth), factor, offset);
  }
  Exp2Fast::apply<kCount>(exp2, p);
  return add_all<kCount>(p);
}

// Folds one chunk of scores into the (block, row) maximum and sum.
RAINGAUGE_INLINE void fold_scores(const Exp2Fast& exp2, const float* scores, int vecs, float scale,
                                  float& largest, float& sum) {
  const float top = row_max(scores, vecs) * scale;
  if (top > largest) {
    sum = largest == kMinusInfinity ? 0.0F : sum * exp2_scalar(largest - top);
    largest = top;
  }
  const Vec offset = set1(largest == kMinusInfinity ? 0.0F : -largest);
  Vec total = zero();
  int n = 0;
  for (; n + kExpBlock <= vecs; n += kExpBlock) {
    total = add(total, exponentials<kExpBlock>(exp2, scores + n * kWidth, set1(scale), offset));
  }
  for (; n < vecs; ++n) {
    total = add(total, exponentials<1>(exp2, scores + n * kWidth, set1(scale), offset));
  }
  sum += reduce_add(total);
}

template <class A>
RAINGAUGE_NOINLINE void local_sums(const MassTile& tile) {
  float* scores = tile.scratch;  // [rows, kChunkKeys]
  const Exp2Fast exp2 = exp2_fast();
  for (std::int64_t b = 0; b < tile.blocks; ++b) {
    float* largest = tile.largest + b * kMaxTileRows;
    float* sum = tile.sum + b * kMaxTileRows;
    for (int i = 0; i < kMaxTileRows; ++i) {
      largest[i] = kMinusInfinity;
      sum[i] = 0.0F;
    }
    for (std::int64_t u = tile.block_units[b]; u < tile.block_units[b + 1]; u += kChunkUnits) {
      const std::int64_t left = tile.block_units[b + 1] - u;
      const int count = left < kChunkUnits ? static_cast<int>(left) : kChunkUnits;
      std::int32_t units[kChunkUnits + kMaxUnits];
      for (int n = 0; n < kChunkUnits + kMaxUnits; ++n) {
        units[n] = static_cast<std::int32_t>(u) + n;
      }
      const std::int64_t all = tile.block_units[tile.blocks];
      const std::int64_t next = all - u - count < kMaxUnits ? all - u - count : kMaxUnits;
      score_rows<A>(tile.q, tile.rows, tile.shape, key_places(tile.shape, tile.k, units, count),
                    scores, key_places(tile.shape, tile.k, units + count, static_cast<int>(next)));
      for (int n = 0; n < count; ++n) {
        if (tile.full[units[n]] == 0) {
          add_bias(scores + n * kUnit, tile.rows, tile.bias + std::ptrdiff_t{units[n]} * kUnit);
        }
      }
      for (int i = 0; i < tile.rows; ++i) {
        fold_scores(exp2, scores + i * kChunkKeys, count * kVecs, tile.log2_scale, largest[i],
                    sum[i]);
      }
    }
  }
}

// Sums of blocks -> shares of the row's softmax, added up over rows. NaN scores give NaN.
RAINGAUGE_NOINLINE void add_shares(const MassTile& tile) {
  const Exp2Fast exp2 = exp2_fast();
  float* top = tile.scratch;
  float* total = top + kMaxTileRows;
  for (int i = 0; i < kMaxTileRows; i += kWidth) {
    Vec m = set1(kMinusInfinity);
    for (std::int64_t b = 0; b < tile.blocks; ++b) {
      m = max(load(tile.largest + b * kMaxTileRows + i), m);
    }
    store(top + i, m);
    store(total + i, zero());
  }
  for (std::int64_t b = 0; b < tile.blocks; ++b) {
    for (int i = 0; i < kMaxTileRows; i += kWidth) {
      float* sum = tile.sum + b * kMaxTileRows + i;
      Vec share = sub(load(tile.largest + b * kMaxTileRows + i), load(top + i));
      Exp2Fast::apply<1>(exp2, &share);
      store(sum, mul(load(sum), share));
    }
  }
  for (std::int64_t b = 0; b < tile.blocks; ++b) {
    for (int i = 0; i < kMaxTileRows; i += kWidth) {
      store(total + i, add(load(total + i), load(tile.sum + b * kMaxTileRows + i)));
    }
  }
  for (std::int64_t b = 0; b < tile.blocks; ++b) {
    if (tile.block_units[b] == tile.block_units[b + 1]) {
      continue;  // an empty block has no mass, even where the others are not finite
    }
    double mass = 0.0;
    for (int i = 0; i < tile.rows; ++i) {
      mass += static_cast<double>(tile.sum[b * kMaxTileRows + i] / total[i]);
    }
    tile.mass[b] += mass;
  }
}

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
