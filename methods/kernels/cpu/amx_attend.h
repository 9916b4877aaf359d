// SPDX-License-Identifier: Apache-2.0
// Attention on matrix tiles. Part of level_amx_bf16.cpp.
//
// 32 query rows at a time go over a chunk of 128 keys: scores (16 KB), weights (8 KB, twice), output
// (16 KB at head_dim 128) stay in the first-level cache, keys and values stream past it. Other rows
// follow after a visit of some chunks, while those are in the second-level cache. The products leave the
// vector units idle, so the softmax of a chunk is woven into the products of the chunk before with V: a
// product takes 16 cycles and half a row of softmax about 30 (products hold one of the two vector ports).
#pragma once

#include "methods/kernels/cpu/amx.h"
#include "methods/kernels/cpu/level_attend.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

constexpr std::int64_t kVisitUnits = 64;  // K and V of 1024 keys: 512 KB at head_dim 128
constexpr int kHalf = kChunkUnits / 2;    // vectors in half a row of a chunk

// What 32 query rows carry from chunk to chunk.
struct TileRowStates {
  float* largest;  // [32], log2 units
  float* sums;     // [32][16]: of weights, by lane
};

// The softmax of one chunk: scores -> weights in bf16, row by row, in steps as small as wanted.
struct ChunkSoftmax {
  TileRowStates states;
  const float* scores;     // [32, kChunkKeys]
  std::uint32_t* weights;  // [32, kChunkKeys / 2]
  float* factors;          // [32]: what the output so far is to be multiplied by
  bool rescale;            // any factor is not 1
  float scale;
  int rows, vecs;
  int row;          // the one at work
  Vec sum, offset;  // of that row
};

RAINGAUGE_INLINE bool any_greater(Vec a, Vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}

// kVectors: of the row, or 0 where only s.vecs says.
template <int kVectors>
RAINGAUGE_INLINE void begin_row(ChunkSoftmax& s) {
  const float* scores = s.scores + s.row * kChunkKeys;
  const int vecs = kVectors > 0 ? kVectors : s.vecs;
  Vec a = load(scores), b = load(scores + kWidth);
#pragma GCC unroll 4
  for (int n = 2; n < vecs; n += 2) {
    a = max(load(scores + n * kWidth), a);
    b = max(load(scores + (n + 1) * kWidth), b);
  }
  const Vec tops = mul(max(a, b), set1(s.scale));
  float& largest = s.states.largest[s.row];
  float* sums = s.states.sums + s.row * kWidth;
  s.sum = load(sums);
  if (any_greater(tops, set1(largest + kMaxGrowth))) [[unlikely]] {
    const float top = reduce_max(tops);
    if (largest != kMinusInfinity) {
      s.factors[s.row] = exp2_scalar(largest - top);
      s.rescale = true;
      s.sum = mul(s.sum, set1(s.factors[s.row]));
    }
    largest = top > kMinusInfinity ? top : kMinusInfinity;  // NaN shows in the weights, not here
  }
  s.offset = set1(largest == kMinusInfinity ? 0.0F : -largest);
}

template <int kCount>
RAINGAUGE_INLINE void weigh(const Exp2Rough& exp2, ChunkSoftmax& s, int n) {
  const float* scores = s.scores + s.row * kChunkKeys + n * kWidth;
  std::uint32_t* weights = s.weights + (s.row * kChunkKeys + n * kWidth) / 2;
  Vec p[kCount];
#pragma GCC unroll 8
  for (int j = 0; j < kCount; ++j) {
    p[j] = fma(load(scores + j * kWidth), set1(s.scale), s.offset);
  }
  Exp2Rough::apply<kCount>(exp2, p);
#pragma GCC unroll 8
  for (int j = 0; j < kCount; j += 2) {
    store_two_as_pairs(weights + j * (kWidth / 2), p[j], p[j + 1]);
  }
  s.sum = add(s.sum, add_all<kCount>(p));
}

RAINGAUGE_INLINE void end_row(ChunkSoftmax& s) {
  store(s.states.sums + s.row * kWidth, s.sum);
  ++s.row;
}

// Woven in: half a row of a whole chunk after each product, or a row. The constants are held in
// registers: loads have no slots left beside those of tiles.
struct HalfRows {
  Exp2Rough exp2;
  ChunkSoftmax& softmax;

  template <int kProduct>
  RAINGAUGE_INLINE void after(const HalfRows& work) {
    ChunkSoftmax& s = work.softmax;
    if (s.row == s.rows) {
      return;
    }
    if constexpr (kProduct % 2 == 0) {
      begin_row<kChunkUnits>(s);
      weigh<kHalf>(work.exp2, s, 0);
    } else {
      weigh<kHalf>(work.exp2, s, kHalf);
      end_row(s);
    }
  }
};
struct WholeRows {
  Exp2Rough exp2;
  ChunkSoftmax& softmax;

  template <int kProduct>
  RAINGAUGE_INLINE void after(const WholeRows& work) {
    HalfRows::after<0>({work.exp2, work.softmax});
    HalfRows::after<1>({work.exp2, work.softmax});
  }
};

RAINGAUGE_INLINE void finish(const Exp2Rough& exp2, ChunkSoftmax& s) {
  while (s.row < s.rows) {
    begin_row<0>(s);
    for (int n = 0; n < s.vecs; n += 2) {
      weigh<2>(exp2, s, n);
    }
    end_row(s);
  }
}

// ---- Attention. ----

// What 32 query rows work on.
struct TileRows {
  const AttendTile& tile;
  const std::uint32_t* q;  // [32, depth] words
  float* o;                // [32, padded_dim]
  ChunkSoftmax softmax;
  float* factors[2];          // [32] for the chunk at work and the one before
  std::uint32_t* weights[2];  // [32, kChunkKeys / 2] words, likewise
  float* scores;              // [32, kChunkKeys]
};

RAINGAUGE_INLINE int chunk_units(const AttendTile& tile, std::int64_t first) {
  const std::int64_t left = tile.unit_count - first;
  return left < kChunkUnits ? static_cast<int>(left) : kChunkUnits;
}

RAINGAUGE_INLINE void rescale_rows(float* o, int dim, float* factors) {
  for (int i = 0; i < kTileRows; ++i) {
    for (int c = 0; factors[i] != 1.0F && c < dim; c += kWidth) {
      store(o + i * dim + c, mul(load(o + i * dim + c), set1(factors[i])));
    }
    factors[i] = 1.0F;
  }
}

// o += weights of the chunk from `first` on times its values.
template <class Meanwhile>
RAINGAUGE_INLINE void output_tiles(const TileRows& rows, std::int64_t first,
                                   const Meanwhile& meanwhile) {
  const AttendTile& tile = rows.tile;
  const int dim = tile.shape.padded_dim();
  const std::size_t words = tile.shape.v_unit_words();
  const int count = chunk_units(tile, first);
  const std::int32_t* units = tile.units + first;
  const std::uint32_t* weights = rows.weights[(first / kChunkUnits) % 2];
  for (int c = 0; c < dim; c += kTileRows) {
    sums_load(rows.o + c, dim);
    for (int u = 0; u < count; u += kTileUnits) {
      const std::uint32_t* values = tile.v + static_cast<std::size_t>(units[u]) * words + c * kUnit;
      multiply(weights + u * (kUnit / 2), kChunkKeys * 2, values, values + kTileWords, meanwhile);
    }
    sums_store(rows.o + c, dim);
  }
}

// Scores of the chunk from `first` on, and its softmax begun.
RAINGAUGE_INLINE void begin_chunk(TileRows& rows, std::int64_t first) {
  const AttendTile& tile = rows.tile;
  const std::int32_t* units = tile.units + first;
  const int count = chunk_units(tile, first);
  score_tiles(tile.shape, rows.q, tile.k, units, count, rows.scores);
  mask_tiles(units, count, tile.full, tile.bias, rows.scores);
  const std::int64_t place = (first / kChunkUnits) % 2;
  rows.softmax.weights = rows.weights[place];
  rows.softmax.factors = rows.factors[place];
  rows.softmax.rescale = false;
  rows.softmax.vecs = count * kVecs;
  rows.softmax.row = 0;
}

// The chunks of units [first, last) for 32 rows. Steps: how the softmax is woven in.
template <class Steps>
RAINGAUGE_NOINLINE void visit_rows(TileRows& rows, std::int64_t first, std::int64_t last) {
  const Exp2Rough exp2 = exp2_rough();
  bool rescale = false;  // for the chunk before
  for (std::int64_t u = first; u < last; u += kChunkUnits) {
    begin_chunk(rows, u);
    if (u > first) {
      const std::int64_t before = u - kChunkUnits;
      if (rescale) {
        rescale_rows(rows.o, rows.tile.shape.padded_dim(),
                     rows.factors[(before / kChunkUnits) % 2]);
      }
      if (chunk_units(rows.tile, u) == kChunkUnits) {
        output_tiles(rows, before, Steps{exp2, rows.softmax});
      } else {
        output_tiles(rows, before, Nothing{});
      }
    }
    finish(exp2, rows.softmax);
    rescale = rows.softmax.rescale;
  }
  const std::int64_t before = (last - 1) / kChunkUnits * kChunkUnits;
  if (rescale) {
    rescale_rows(rows.o, rows.tile.shape.padded_dim(), rows.factors[(before / kChunkUnits) % 2]);
  }
  output_tiles(rows, before, Nothing{});
}

template <class Steps>
RAINGAUGE_NOINLINE void attend_rows(const AttendTile& tile, int padded_rows) {
  const int dim = tile.shape.padded_dim();
  float* scores = tile.scratch;                                      // [32, kChunkKeys]
  float* weights = scores + kTileRows * kChunkKeys;                  // 2 x [32, kChunkKeys / 2]
  float* o = weights + kTileRows * kChunkKeys;                       // [padded_rows, dim]
  float* sums = o + static_cast<std::ptrdiff_t>(padded_rows) * dim;  // [padded_rows, 16]
  float largest[kMaxTileRows];
  float factors[2][kTileRows];
  std::memset(o, 0, static_cast<std::size_t>(padded_rows * (dim + kWidth)) * sizeof(float));
  for (float& x : largest) x = kMinusInfinity;
  for (int i = 0; i < kTileRows; ++i) factors[0][i] = factors[1][i] = 1.0F;
  auto* words = reinterpret_cast<std::uint32_t*>(weights);
  for (std::int64_t first = 0; first < tile.unit_count; first += kVisitUnits) {
    const std::int64_t end = first + kVisitUnits;
    for (int row = 0; row < tile.rows; row += kTileRows) {
      TileRows rows{tile,
                    tile.q + static_cast<std::ptrdiff_t>(row) * tile.shape.depth(),
                    o + static_cast<std::ptrdiff_t>(row) * dim,
                    {},
                    {factors[0], factors[1]},
                    {words, words + kTileRows * kChunkKeys / 2},
                    scores};
      rows.softmax.states = {largest + row, sums + row * kWidth};
      rows.softmax.scores = scores;
      rows.softmax.scale = tile.log2_scale;
      rows.softmax.rows = tile.rows - row < kTileRows ? tile.rows - row : kTileRows;
      visit_rows<Steps>(rows, first, end < tile.unit_count ? end : tile.unit_count);
    }
  }
  for (int i = 0; i < tile.rows; ++i) {
    write_row(tile, i, {largest[i], reduce_add(load(sums + i * kWidth))}, o + i * dim);
  }
}

RAINGAUGE_NOINLINE void attend_tiles(const AttendTile& tile) {
  const TileScope scope;
  const int padded_rows = (tile.rows + kTileRows - 1) / kTileRows * kTileRows;
  // 32 rows of softmax go between head_dim / 2 products with V.
  if (tile.shape.padded_dim() <= 64) {
    attend_rows<WholeRows>(tile, padded_rows);
  } else {
    attend_rows<HalfRows>(tile, padded_rows);
  }
}

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
