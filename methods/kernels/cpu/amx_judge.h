// SPDX-License-Identifier: Apache-2.0
// The judges on matrix tiles: the mass of every block, and exact rows. Part of level_amx_bf16.cpp.
#pragma once

#include "methods/kernels/cpu/amx.h"
#include "methods/kernels/cpu/level_judge.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

// Lane i: the lanes of row i put together.
template <Vec (*kTogether)(Vec, Vec)>
RAINGAUGE_INLINE Vec reduce_rows(const float (&rows)[kUnit][kUnit]) {
  alignas(64) float columns[kUnit][kUnit];
  const void* places[kUnit];
  for (int i = 0; i < kUnit; ++i) places[i] = rows[i];
  transpose16(places, reinterpret_cast<std::uint32_t*>(columns[0]));
  Vec all = load(columns[0]);
#pragma GCC unroll 16
  for (int i = 1; i < kUnit; ++i) all = kTogether(load(columns[i]), all);
  return all;
}

// ---- Block mass. ----

// Folds 16 rows of a chunk of scores into the (block, row) maxima and sums. kVectors: of a whole chunk,
// or 0 where only `left` says.
template <int kVectors>
RAINGAUGE_NOINLINE void fold_rows(const float* scores, int left, float scale, float* largest,
                                  float* sum) {
  const int vecs = kVectors > 0 ? kVectors : left;
  const Exp2Fast exp2 = exp2_fast();
  alignas(64) float rows[kUnit][kUnit], offsets[kUnit];
  for (int i = 0; i < kUnit; ++i) {
    Vec top = load(scores + i * kChunkKeys);
#pragma GCC unroll 8
    for (int n = 1; n < vecs; ++n) top = max(load(scores + i * kChunkKeys + n * kWidth), top);
    store(rows[i], top);
  }
  const Vec tops = mul(reduce_rows<max>(rows), set1(scale)), before = load(largest);
  const __mmask16 grown = _mm512_cmp_ps_mask(tops, before, _CMP_GT_OQ);
  const Vec now = _mm512_mask_mov_ps(before, grown, tops);
  Vec factor = sub(before, now);
  Exp2Fast::apply<1>(exp2, &factor);
  const Vec kept = _mm512_mask_mul_ps(load(sum), grown, load(sum), factor);
  store(largest, now);
  const __mmask16 none = _mm512_cmp_ps_mask(now, set1(kMinusInfinity), _CMP_EQ_OQ);
  store(offsets, _mm512_mask_mov_ps(sub(zero(), now), none, zero()));
  for (int i = 0; i < kUnit; ++i) {
    const Vec offset = set1(offsets[i]);
    Vec total = zero();
    for (int n = 0; n < vecs; n += 2) {
      total = add(total,
                  exponentials<2>(exp2, scores + i * kChunkKeys + n * kWidth, set1(scale), offset));
    }
    store(rows[i], total);
  }
  store(sum, add(kept, reduce_rows<add>(rows)));
}

RAINGAUGE_NOINLINE void local_sums_tiles(const MassTile& tile) {
  const TileScope scope;
  float* scores = tile.scratch;  // [32, kChunkKeys]
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
      std::int32_t units[kChunkUnits];
      for (int n = 0; n < kChunkUnits; ++n) units[n] = static_cast<std::int32_t>(u) + n;
      for (int row = 0; row < tile.rows; row += kTileRows) {
        score_tiles(tile.shape, tile.q + static_cast<std::ptrdiff_t>(row) * tile.shape.depth(),
                    tile.k, units, count, scores);
        mask_tiles(units, count, tile.full, tile.bias, scores);
        for (int i = row; i < row + kTileRows && i < tile.rows; i += kUnit) {
          const float* first = scores + (i - row) * kChunkKeys;
          if (count == kChunkUnits) {
            fold_rows<kChunkUnits>(first, 0, tile.log2_scale, largest + i, sum + i);
          } else {
            fold_rows<0>(first, count * kVecs, tile.log2_scale, largest + i, sum + i);
          }
        }
      }
    }
  }
}

// ---- Exact rows. ----

// A row of weights as two bf16 each, high + low, which leaves an error of 2^-18 of the weight. (The
// scores are exact products added in fp32, as everywhere; so are maxima and sums.)
RAINGAUGE_INLINE void split_row(const float* weights, int vecs, std::uint32_t* high,
                                std::uint32_t* low) {
  for (int n = 0; n < vecs; n += 2) {
    const Vec a = load(weights + n * kWidth), b = load(weights + (n + 1) * kWidth);
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a));
    _mm512_storeu_si512(high + n * (kWidth / 2), both);
    const __m512i rounded_a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
    const __m512i rounded_b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
    store_two_as_pairs(low + n * (kWidth / 2),
                       sub(a, _mm512_castsi512_ps(_mm512_slli_epi32(rounded_a, 16))),
                       sub(b, _mm512_castsi512_ps(_mm512_slli_epi32(rounded_b, 16))));
  }
}

// o[32, padded_dim] = the weights' two parts times the tile's values.
RAINGAUGE_INLINE void judged_output(const RowTile& tile, const std::uint32_t* high,
                                    const std::uint32_t* low, float* o) {
  const int dim = tile.shape.padded_dim();
  const std::size_t words = tile.shape.v_unit_words();
  for (int c = 0; c < dim; c += kTileRows) {
    sums_zero();
    for (int u = 0; u < tile.unit_count; u += kTileUnits) {
      const std::uint32_t* values = tile.v + static_cast<std::size_t>(u) * words + c * kUnit;
      for (const std::uint32_t* part : {high, low}) {
        multiply(part + u * (kUnit / 2), kChunkKeys * 2, values, values + kTileWords, Nothing{});
      }
    }
    sums_store(o + c, dim);
  }
}

// The words of up to 32 active rows from `first` on: where they stand when they are neighbours.
RAINGAUGE_INLINE const std::uint32_t* neighbours(const RowTile& tile, std::int64_t first, int rows,
                                                 std::uint32_t* gathered) {
  const std::ptrdiff_t depth = tile.shape.depth();
  const std::int32_t* active = tile.active + first;
  if (active[rows - 1] - active[0] == rows - 1) {
    return tile.q + active[0] * depth;
  }
  for (int i = 0; i < rows; ++i) {
    std::memcpy(gathered + i * depth, tile.q + active[i] * depth,
                static_cast<std::size_t>(depth) * sizeof(gathered[0]));
  }
  return gathered;
}

RAINGAUGE_NOINLINE void evaluate_tiles(const RowTile& tile) {
  const TileScope scope;
  const Exp2Fine exp2 = exp2_fine();
  const int dim = tile.shape.padded_dim();
  const int vecs = tile.unit_count * kVecs;
  constexpr int kWeightWords = kTileRows * kChunkKeys / 2;
  float* scores = tile.scratch;  // [32, kChunkKeys]
  auto* high = reinterpret_cast<std::uint32_t*>(scores + kTileRows * kChunkKeys);  // likewise, bf16
  std::uint32_t* low = high + kWeightWords;
  auto* o = reinterpret_cast<float*>(low + kWeightWords);                  // [32, dim]
  auto* gathered = reinterpret_cast<std::uint32_t*>(o + kTileRows * dim);  // [32, depth]
  constexpr std::int32_t kUnits[kChunkUnits] = {0, 1, 2, 3, 4, 5, 6, 7};
  for (std::int64_t first = 0; first < tile.active_count; first += kTileRows) {
    const std::int64_t left = tile.active_count - first;
    const int rows = left < kTileRows ? static_cast<int>(left) : kTileRows;
    score_tiles(tile.shape, neighbours(tile, first, rows, gathered), tile.k, kUnits,
                tile.unit_count, scores);
    for (int u = 0; u < tile.unit_count && !tile.full; ++u) {
      add_bias(scores + u * kUnit, kTileRows, tile.bias + u * kUnit);
    }
    for (int i = 0; i < rows; ++i) {
      judge_row(exp2, tile, vecs, scores + i * kChunkKeys, tile.active[first + i]);
      split_row(scores + i * kChunkKeys, vecs, high + i * (kChunkKeys / 2),
                low + i * (kChunkKeys / 2));
    }
    judged_output(tile, high, low, o);
    for (int i = 0; i < rows; ++i) {
      double* target = tile.o + tile.active[first + i] * static_cast<std::ptrdiff_t>(dim);
      for (int c = 0; c < dim; c += kWidth) {
        add_to_double(target + c, load(o + i * dim + c));
      }
    }
  }
}

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
