// SPDX-License-Identifier: Apache-2.0
// Attention of one tile of query rows over a list of packed units, with an online softmax. Part of
// level_impl.h.
#pragma once

#include "methods/kernels/cpu/level_tiles.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

// ---- Attention. ----

// The running maximum follows only growth by more than this (in log2 units): probabilities then stay
// below 2^8, which costs fp32 sums nothing, and most chunks need no rescaling.
constexpr float kMaxGrowth = 8.0F;

template <class A>
RAINGAUGE_INLINE void store_probabilities(std::uint32_t* target, const Vec* p, int vecs) {
  if constexpr (A::kPairs) {
#ifdef RAINGAUGE_LEVEL_PAIRS
    int n = 0;
    for (; n + 2 <= vecs; n += 2) {
      store_two_as_pairs(target + n * (kWidth / 2), p[n], p[n + 1]);
    }
    if (n < vecs) {
      store_one_as_pairs(target + n * (kWidth / 2), p[n]);
    }
#endif
  } else {
    for (int n = 0; n < vecs; ++n) {
      store_words(target + n * kWidth, p[n]);
    }
  }
}

struct RowState {
  float max;
  float sum;
};

// Vectors [n, n + kCount) of a row of scores: stored for the product with V; returns their sum.
template <class A, int kCount>
RAINGAUGE_INLINE Vec probabilities_of(const Exp2Fast& exp2, const float* scores, int n, Vec factor,
                                      Vec offset, std::uint32_t* probabilities) {
  Vec p[kCount];
#pragma GCC unroll 8
  for (int j = 0; j < kCount; ++j) {
    p[j] = fma(load(scores + (n + j) * kWidth), factor, offset);
  }
  Exp2Fast::apply<kCount>(exp2, p);
  store_probabilities<A>(probabilities + n * (A::kPairs ? kWidth / 2 : kWidth), p, kCount);
  return add_all<kCount>(p);
}

// Online softmax of one row of a chunk: scores -> probabilities, state and output row rescaled.
template <class A>
RAINGAUGE_INLINE void softmax_row(const Exp2Fast& exp2, const float* scores, int vecs, float scale,
                                  RowState& state, float* o, int padded_dim,
                                  std::uint32_t* probabilities) {
  const float top = row_max(scores, vecs) * scale;
  if (top > state.max + kMaxGrowth || state.max == kMinusInfinity) {
    if (state.max != kMinusInfinity) {
      const float factor = exp2_scalar(state.max - top);
      state.sum *= factor;
      for (int c = 0; c < padded_dim; c += kWidth) {
        store(o + c, mul(load(o + c), set1(factor)));
      }
    }
    state.max = top > kMinusInfinity ? top : kMinusInfinity;  // NaN shows in p, not here
  }
  const Vec offset = set1(state.max == kMinusInfinity ? 0.0F : -state.max);
  const Vec factor = set1(scale);
  Vec sum = zero();
  int n = 0;
  for (; n + kExpBlock <= vecs; n += kExpBlock) {
    sum = add(sum, probabilities_of<A, kExpBlock>(exp2, scores, n, factor, offset, probabilities));
  }
  for (; n < vecs; ++n) {
    sum = add(sum, probabilities_of<A, 1>(exp2, scores, n, factor, offset, probabilities));
  }
  state.sum += reduce_add(sum);
}

template <class A>
RAINGAUGE_NOINLINE void softmax_rows(const float* scores, int rows, int vecs, float scale,
                                     RowState* states, float* o, int padded_dim,
                                     std::uint32_t* probabilities) {
  constexpr int kRowWords = kChunkUnits * (A::kPairs ? kUnit / 2 : kUnit);
  const Exp2Fast exp2 = exp2_fast();
  for (int i = 0; i < rows; ++i) {
    softmax_row<A>(exp2, scores + i * kChunkKeys, vecs, scale, states[i],
                   o + i * static_cast<std::ptrdiff_t>(padded_dim), padded_dim,
                   probabilities + i * kRowWords);
  }
}

RAINGAUGE_INLINE void write_row(const AttendTile& tile, int row, const RowState& state,
                                const float* o) {
  const int dim = tile.shape.head_dim;
  float* out = tile.out[row];
  if (state.sum == 0.0F) {  // no kept key, or only scores of -inf; NaN goes on below
    std::memset(out, 0, static_cast<std::size_t>(dim) * sizeof(float));
    tile.lse[row] = kMinusInfinity;
    return;
  }
  const float inverse = 1.0F / state.sum;
  int c = 0;
  for (; c + kWidth <= dim; c += kWidth) {
    store(out + c, mul(load(o + c), set1(inverse)));
  }
  for (; c < dim; ++c) {
    out[c] = o[c] * inverse;
  }
  constexpr double kLn2 = 0.693147180559945309417;
  tile.lse[row] = static_cast<float>(static_cast<double>(state.max) * kLn2 +
                                     std::log(static_cast<double>(state.sum)));
}

template <class A>
RAINGAUGE_NOINLINE void attend_tile(const AttendTile& tile) {
  const PackShape shape = tile.shape;
  const int dim = shape.padded_dim();
  float* o = tile.scratch;                 // [rows, dim]
  float* scores = o + kMaxTileRows * dim;  // [rows, kChunkKeys]
  // [rows, words]; floats take the scores' own place, which is in the first-level cache already.
  auto* p =
      reinterpret_cast<std::uint32_t*>(A::kPairs ? scores + kMaxTileRows * kChunkKeys : scores);
  RowState states[kMaxTileRows];
  for (int i = 0; i < tile.rows; ++i) {
    states[i] = {kMinusInfinity, 0.0F};
  }
  std::memset(o, 0, static_cast<std::size_t>(tile.rows * dim) * sizeof(float));
  for (std::int64_t first = 0; first < tile.unit_count; first += kChunkUnits) {
    const std::int32_t* units = tile.units + first;
    const std::int64_t left = tile.unit_count - first;
    const int count = left < kChunkUnits ? static_cast<int>(left) : kChunkUnits;
    bool full = true;
    for (int u = 0; u < count; ++u) {
      full = full && tile.full[units[u]] != 0;
    }
    const int panels = shape.panels() < kMaxUnits ? shape.panels() : kMaxUnits;
    score_rows<A>(tile.q, tile.rows, shape, key_places(shape, tile.k, units, count), scores,
                  value_places(shape, tile.v, units, count, 0, panels));
    for (int u = 0; u < count && !full; ++u) {
      if (tile.full[units[u]] == 0) {
        add_bias(scores + u * kUnit, tile.rows, tile.bias + std::ptrdiff_t{units[u]} * kUnit);
      }
    }
    softmax_rows<A>(scores, tile.rows, count * kVecs, tile.log2_scale, states, o, dim, p);
    const std::int64_t next = left - count < kMaxUnits ? left - count : kMaxUnits;
    output_rows<A>(p, tile.rows, shape, tile.v, units, count, o,
                   key_places(shape, tile.k, units + count, static_cast<int>(next)));
  }
  for (int i = 0; i < tile.rows; ++i) {
    write_row(tile, i, states[i], o + i * dim);
  }
}

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
