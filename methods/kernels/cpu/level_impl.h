// SPDX-License-Identifier: Apache-2.0
// The CPU kernels themselves, written once over the primitives of a vec_*.h and compiled once per
// instruction-set level. Everything here is static in the level's namespace and uses no library
// templates, so that no code for a wide level can be picked by the linker for a narrow machine.
//
// Order of arithmetic. A score is one chain of fused multiply-adds over head_dim ascending, whatever
// the tile it falls in; a row of a tile never mixes with its neighbours. So a row's result depends on
// its own list only, not on the other rows, the tiling or the thread.
#pragma once

#include <cmath>
#include <limits>

#include "methods/kernels/cpu/ops.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

constexpr int kVecs = kUnit / kWidth;  // vectors in a unit
static_assert(kMaxUnits == 1 || kMaxUnits == 4, "the code for left-over units covers these two");
constexpr int kRestRows = kMaxRows > 4 ? 4 : kMaxRows / 2;  // 2 * kRestRows > kMaxRows - 1
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// ---- Arithmetic: how a packed word multiplies. ----

struct Floats {
  static constexpr bool kPairs = false;
  RAINGAUGE_INLINE Vec dot(Vec sum, Vec a, Vec b) { return fma(a, b, sum); }
  // One link of a chain that stays bounded and that no compiler can shorten.
  RAINGAUGE_INLINE Vec link(Vec sum, Vec a, Vec b) { return fma(sum, a, b); }
};

#ifdef RAINGAUGE_LEVEL_PAIRS
struct Pairs {
  static constexpr bool kPairs = true;
  RAINGAUGE_INLINE Vec dot(Vec sum, Vec a, Vec b) { return dot_pairs(sum, a, b); }
  RAINGAUGE_INLINE Vec link(Vec sum, Vec a, Vec b) { return dot_pairs(sum, a, b); }
};
#endif

// ---- exp2: minimax polynomials of 2^r on [-1/2, 1/2] with p(0) = 1. ----

// Relative error 1.5e-7 + rounding.
RAINGAUGE_INLINE Vec exp2_fast(Vec x) {
  const Vec n = round_to_integer(x);
  const Vec r = sub(x, n);
  Vec p = fma(set1(1.3276472e-3F), r, set1(9.6755413e-3F));
  p = fma(p, r, set1(5.5507133e-2F));
  p = fma(p, r, set1(2.4022120e-1F));
  p = fma(p, r, set1(6.9314697e-1F));
  p = fma(p, r, set1(1.0F));
  return scale_by_power(p, n, x);
}

// Relative error 4e-9 + rounding.
RAINGAUGE_INLINE Vec exp2_fine(Vec x) {
  const Vec n = round_to_integer(x);
  const Vec r = sub(x, n);
  Vec p = fma(set1(1.5469732e-4F), r, set1(1.3410001e-3F));
  p = fma(p, r, set1(9.6180308e-3F));
  p = fma(p, r, set1(5.5502973e-2F));
  p = fma(p, r, set1(2.4022651e-1F));
  p = fma(p, r, set1(6.9314723e-1F));
  p = fma(p, r, set1(1.0F));
  return scale_by_power(p, n, x);
}

// ---- Fetching ahead. ----

// A packed region of some units that will be read next. While a group of query rows is computed, a
// part of it is brought into the second-level cache: the hardware's own prefetching stops at pages
// and cannot follow a list of blocks.
struct Ahead {
  const std::uint32_t* base = nullptr;
  const std::int32_t* units = nullptr;
  int unit_count = 0;
  std::size_t unit_words = 0;  // between units
  int lines = 0;               // cache lines wanted of each unit
};

// Part `part` of `parts` equal ones.
RAINGAUGE_INLINE void fetch_part(const Ahead& ahead, int part, int parts) {
  const int first = ahead.lines * part / parts;
  const int last = ahead.lines * (part + 1) / parts;
  for (int u = 0; u < ahead.unit_count; ++u) {
    const std::uint32_t* from =
        ahead.base + static_cast<std::size_t>(ahead.units[u]) * ahead.unit_words;
    for (int line = first; line < last; ++line) {
      __builtin_prefetch(from + line * kUnit, 0, 2);
    }
  }
}

// ---- Register tiles. ----

// scores[i][n * 16 ...] = dot of query row i with the keys of unit n.
template <class A, int kRows, int kUnits>
RAINGAUGE_INLINE void score_tile(const std::uint32_t* q, int depth, const std::uint32_t* k,
                                 const std::int32_t* units, std::size_t unit_words, float* scores) {
  Vec sums[kRows][kUnits * kVecs];
  const std::uint32_t* keys[kUnits];
#pragma GCC unroll 8
  for (int n = 0; n < kUnits; ++n) {
    keys[n] = k + static_cast<std::size_t>(units[n]) * unit_words;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int n = 0; n < kUnits * kVecs; ++n) {
      sums[i][n] = zero();
    }
  }
  for (std::ptrdiff_t t = 0; t < depth; ++t) {
    Vec b[kUnits * kVecs];
#pragma GCC unroll 8
    for (int n = 0; n < kUnits * kVecs; ++n) {
      b[n] = load_words(keys[n / kVecs] + t * kUnit + (n % kVecs) * kWidth);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vec a = broadcast_word(q + i * static_cast<std::ptrdiff_t>(depth) + t);
#pragma GCC unroll 8
      for (int n = 0; n < kUnits * kVecs; ++n) {
        sums[i][n] = A::dot(sums[i][n], a, b[n]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int n = 0; n < kUnits * kVecs; ++n) {
      store(scores + i * kChunkKeys + n * kWidth, sums[i][n]);
    }
  }
}

// o[i][panel * 16 ...] += probabilities of the chunk's units times their V rows.
template <class A, int kRows, int kPanels>
RAINGAUGE_INLINE void output_tile(const std::uint32_t* p, const std::uint32_t* v,
                                  const std::int32_t* units, int unit_count, std::size_t unit_words,
                                  float* o, int padded_dim) {
  constexpr int kSteps = A::kPairs ? kUnit / 2 : kUnit;
  constexpr int kRowWords = kChunkUnits * kSteps;
  Vec sums[kRows][kPanels * kVecs];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int n = 0; n < kPanels * kVecs; ++n) {
      sums[i][n] = load(o + i * static_cast<std::ptrdiff_t>(padded_dim) + n * kWidth);
    }
  }
  for (int u = 0; u < unit_count; ++u) {
    const std::uint32_t* values = v + static_cast<std::size_t>(units[u]) * unit_words;
    const std::uint32_t* weights = p + u * kSteps;
#pragma GCC unroll 2
    for (int t = 0; t < kSteps; ++t) {
      Vec b[kPanels * kVecs];
#pragma GCC unroll 8
      for (int n = 0; n < kPanels * kVecs; ++n) {
        b[n] = load_words(values + (n / kVecs) * kSteps * kUnit + t * kUnit + (n % kVecs) * kWidth);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const Vec a = broadcast_word(weights + i * kRowWords + t);
#pragma GCC unroll 8
        for (int n = 0; n < kPanels * kVecs; ++n) {
          sums[i][n] = A::dot(sums[i][n], a, b[n]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int n = 0; n < kPanels * kVecs; ++n) {
      store(o + i * static_cast<std::ptrdiff_t>(padded_dim) + n * kWidth, sums[i][n]);
    }
  }
}

// The last rows, fewer than 2 * kRows: in groups of kRows, kRows / 2, ... 1.
template <class A, int kRows, int kUnits>
RAINGAUGE_INLINE void score_rest(const std::uint32_t* q, int rows, int depth,
                                 const std::uint32_t* k, const std::int32_t* units,
                                 std::size_t unit_words, float* scores) {
  if (rows >= kRows) {
    score_tile<A, kRows, kUnits>(q, depth, k, units, unit_words, scores);
    q += kRows * static_cast<std::ptrdiff_t>(depth);
    scores += kRows * kChunkKeys;
    rows -= kRows;
  }
  if constexpr (kRows > 1) {
    score_rest<A, kRows / 2, kUnits>(q, rows, depth, k, units, unit_words, scores);
  }
}

template <class A, int kRows, int kPanels>
RAINGAUGE_INLINE void output_rest(const std::uint32_t* p, int rows, const std::uint32_t* v,
                                  const std::int32_t* units, int unit_count, std::size_t unit_words,
                                  float* o, int padded_dim) {
  if (rows >= kRows) {
    output_tile<A, kRows, kPanels>(p, v, units, unit_count, unit_words, o, padded_dim);
    p += kRows * kChunkUnits * (A::kPairs ? kUnit / 2 : kUnit);
    o += kRows * static_cast<std::ptrdiff_t>(padded_dim);
    rows -= kRows;
  }
  if constexpr (kRows > 1) {
    output_rest<A, kRows / 2, kPanels>(p, rows, v, units, unit_count, unit_words, o, padded_dim);
  }
}

// One group of units against all rows: the group's packed keys stay in the first-level cache.
template <class A, int kUnits>
RAINGAUGE_NOINLINE void score_units(const std::uint32_t* q, int rows, int depth,
                                    const std::uint32_t* k, const std::int32_t* units,
                                    std::size_t unit_words, float* scores, const Ahead& ahead) {
  const int parts = (rows + kMaxRows - 1) / kMaxRows;
  int i = 0;
  for (; i + kMaxRows <= rows; i += kMaxRows) {
    fetch_part(ahead, i / kMaxRows, parts);
    score_tile<A, kMaxRows, kUnits>(q + i * static_cast<std::ptrdiff_t>(depth), depth, k, units,
                                    unit_words, scores + i * kChunkKeys);
  }
  if (i < rows) {
    fetch_part(ahead, parts - 1, parts);
  }
  score_rest<A, kRestRows, kUnits>(q + i * static_cast<std::ptrdiff_t>(depth), rows - i, depth, k,
                                   units, unit_words, scores + i * kChunkKeys);
}

// scores[i][n * 16 ...], rows kChunkKeys apart: `rows` query rows with up to kChunkUnits units.
// `after` is what will be read next.
template <class A>
RAINGAUGE_NOINLINE void score_rows(const std::uint32_t* q, int rows, const PackShape& shape,
                                   const std::uint32_t* k, const std::int32_t* units,
                                   int unit_count, float* scores, const Ahead& after) {
  const int depth = shape.depth();
  const std::size_t words = shape.k_unit_words();
  int u = 0;
  for (; u + kMaxUnits <= unit_count; u += kMaxUnits) {
    const int left = unit_count - u - kMaxUnits;
    const Ahead ahead = left > 0 ? Ahead{k, units + u + kMaxUnits,
                                         left < kMaxUnits ? left : kMaxUnits, words, depth}
                                 : after;
    score_units<A, kMaxUnits>(q, rows, depth, k, units + u, words, scores + u * kUnit, ahead);
  }
  if constexpr (kMaxUnits == 4) {
    if (unit_count - u >= 2) {
      score_units<A, 2>(q, rows, depth, k, units + u, words, scores + u * kUnit, after);
      u += 2;
    }
    if (unit_count - u == 1) {
      score_units<A, 1>(q, rows, depth, k, units + u, words, scores + u * kUnit, after);
    }
  }
}

// One group of 16-column panels of V against all rows.
template <class A, int kPanels>
RAINGAUGE_NOINLINE void output_panels(const std::uint32_t* p, int rows, const std::uint32_t* v,
                                      const std::int32_t* units, int unit_count,
                                      std::size_t unit_words, float* o, int padded_dim,
                                      const Ahead& ahead) {
  constexpr int kRowWords = kChunkUnits * (A::kPairs ? kUnit / 2 : kUnit);
  const int parts = (rows + kMaxRows - 1) / kMaxRows;
  int i = 0;
  for (; i + kMaxRows <= rows; i += kMaxRows) {
    fetch_part(ahead, i / kMaxRows, parts);
    output_tile<A, kMaxRows, kPanels>(p + i * kRowWords, v, units, unit_count, unit_words,
                                      o + i * static_cast<std::ptrdiff_t>(padded_dim), padded_dim);
  }
  if (i < rows) {
    fetch_part(ahead, parts - 1, parts);
  }
  output_rest<A, kRestRows, kPanels>(p + i * kRowWords, rows - i, v, units, unit_count, unit_words,
                                     o + i * static_cast<std::ptrdiff_t>(padded_dim), padded_dim);
}

// o[i] += probabilities (rows of the chunk's words) times V. `after` is what will be read next.
template <class A>
RAINGAUGE_NOINLINE void output_rows(const std::uint32_t* p, int rows, const PackShape& shape,
                                    const std::uint32_t* v, const std::int32_t* units,
                                    int unit_count, float* o, const Ahead& after) {
  const int panels = shape.panels();
  const int dim = shape.padded_dim();
  const std::size_t words = shape.v_unit_words();
  const int panel_words = shape.steps() * kUnit;
  int c = 0;
  for (; c + kMaxUnits <= panels; c += kMaxUnits) {
    const int left = panels - c - kMaxUnits;
    const Ahead ahead = left > 0
                            ? Ahead{v + (c + kMaxUnits) * panel_words, units, unit_count, words,
                                    (left < kMaxUnits ? left : kMaxUnits) * shape.steps()}
                            : after;
    output_panels<A, kMaxUnits>(p, rows, v + c * panel_words, units, unit_count, words,
                                o + c * kUnit, dim, ahead);
  }
  if constexpr (kMaxUnits == 4) {
    if (panels - c >= 2) {
      output_panels<A, 2>(p, rows, v + c * panel_words, units, unit_count, words, o + c * kUnit,
                          dim, after);
      c += 2;
    }
    if (panels - c == 1) {
      output_panels<A, 1>(p, rows, v + c * panel_words, units, unit_count, words, o + c * kUnit,
                          dim, after);
    }
  }
}

// ---- Small helpers over one row of scores. ----

RAINGAUGE_INLINE float row_max(const float* scores, int vecs) {
  Vec a = load(scores), b = a;
  int n = 1;
  for (; n + 2 <= vecs; n += 2) {
    a = max(load(scores + n * kWidth), a);
    b = max(load(scores + (n + 1) * kWidth), b);
  }
  if (n < vecs) {
    a = max(load(scores + n * kWidth), a);
  }
  return reduce_max(max(a, b));
}

RAINGAUGE_INLINE float exp2_scalar(float x) { return std::exp2(x); }

// Padding keys get -inf.
RAINGAUGE_INLINE void add_bias(float* scores, int rows, const float* bias) {
  for (int i = 0; i < rows; ++i) {
    for (int n = 0; n < kVecs; ++n) {
      float* s = scores + i * kChunkKeys + n * kWidth;
      store(s, add(load(s), load(bias + n * kWidth)));
    }
  }
}

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

// Online softmax of one row of a chunk: scores -> probabilities, state and output row rescaled.
template <class A>
RAINGAUGE_INLINE void softmax_row(const float* scores, int vecs, float scale, RowState& state,
                                  float* o, int padded_dim, std::uint32_t* probabilities) {
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
  constexpr int kBlock = 2;
  Vec p[kBlock];
  int n = 0;
  for (; n + kBlock <= vecs; n += kBlock) {
#pragma GCC unroll 2
    for (int j = 0; j < kBlock; ++j) {
      p[j] = exp2_fast(fma(load(scores + (n + j) * kWidth), factor, offset));
      sum = add(sum, p[j]);
    }
    store_probabilities<A>(probabilities + n * (A::kPairs ? kWidth / 2 : kWidth), p, kBlock);
  }
  if (n < vecs) {
    p[0] = exp2_fast(fma(load(scores + n * kWidth), factor, offset));
    sum = add(sum, p[0]);
    store_probabilities<A>(probabilities + n * (A::kPairs ? kWidth / 2 : kWidth), p, 1);
  }
  state.sum += reduce_add(sum);
}

template <class A>
RAINGAUGE_NOINLINE void softmax_rows(const float* scores, int rows, int vecs, float scale,
                                     RowState* states, float* o, int padded_dim,
                                     std::uint32_t* probabilities) {
  constexpr int kRowWords = kChunkUnits * (A::kPairs ? kUnit / 2 : kUnit);
  for (int i = 0; i < rows; ++i) {
    softmax_row<A>(scores + i * kChunkKeys, vecs, scale, states[i],
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
  auto* p = reinterpret_cast<std::uint32_t*>(scores + kMaxTileRows * kChunkKeys);  // [rows, words]
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
    score_rows<A>(tile.q, tile.rows, shape, tile.k, units, count, scores,
                  {tile.v, units, count, shape.v_unit_words(), panels * shape.steps()});
    for (int u = 0; u < count && !full; ++u) {
      if (tile.full[units[u]] == 0) {
        add_bias(scores + u * kUnit, tile.rows, tile.bias + std::ptrdiff_t{units[u]} * kUnit);
      }
    }
    softmax_rows<A>(scores, tile.rows, count * kVecs, tile.log2_scale, states, o, dim, p);
    const std::int64_t next = left - count < kMaxUnits ? left - count : kMaxUnits;
    output_rows<A>(
        p, tile.rows, shape, tile.v, units, count, o,
        {tile.k, units + count, static_cast<int>(next), shape.k_unit_words(), shape.depth()});
  }
  for (int i = 0; i < tile.rows; ++i) {
    write_row(tile, i, states[i], o + i * dim);
  }
}

// ---- The fp32 judge. ----

// Probabilities of one row of scores; per-vector partial sums of all keys and of two classes.
RAINGAUGE_INLINE void judge_row(const RowTile& tile, int vecs, float* scores, std::int32_t row) {
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
  for (int n = 0; n < vecs; ++n) {
    const Vec p = exp2_fine(mul(sub(load(scores + n * kWidth), offset), factor));
    store(scores + n * kWidth, p);
    sum = add(sum, p);
  }
  tile.sum[row] += static_cast<double>(reduce_add(sum));
  for (int which = 0; which < 2; ++which) {
    if (tile.class_weight[which] == nullptr) {
      continue;
    }
    Vec part = zero();
    for (int n = 0; n < vecs; ++n) {
      part = fma(load(scores + n * kWidth), load(tile.class_weight[which] + n * kWidth), part);
    }
    tile.class_sum[which][row] += static_cast<double>(reduce_add(part));
  }
}

RAINGAUGE_NOINLINE void evaluate_tile(const RowTile& tile) {
  const PackShape& shape = tile.shape;
  const int dim = shape.padded_dim();
  const std::ptrdiff_t depth = shape.depth();
  const int vecs = tile.unit_count * kVecs;
  float* o = tile.scratch;                        // [rows, dim]
  float* scores = o + kMaxTileRows * dim;         // [rows, kChunkKeys]
  float* q = scores + kMaxTileRows * kChunkKeys;  // [rows, depth]
  std::int32_t units[kChunkUnits];
  for (int u = 0; u < kChunkUnits; ++u) {
    units[u] = u;
  }
  for (std::int64_t first = 0; first < tile.active_count; first += kMaxTileRows) {
    const std::int64_t left = tile.active_count - first;
    const int rows = left < kMaxTileRows ? static_cast<int>(left) : kMaxTileRows;
    for (int i = 0; i < rows; ++i) {
      std::memcpy(q + i * depth, tile.q + tile.active[first + i] * depth,
                  static_cast<std::size_t>(depth) * sizeof(float));
    }
    score_rows<Floats>(reinterpret_cast<const std::uint32_t*>(q), rows, shape, tile.k, units,
                       tile.unit_count, scores, Ahead{});
    for (int u = 0; u < tile.unit_count && !tile.full; ++u) {
      add_bias(scores + u * kUnit, rows, tile.bias + u * kUnit);
    }
    for (int i = 0; i < rows; ++i) {
      judge_row(tile, vecs, scores + i * kChunkKeys, tile.active[first + i]);
    }
    std::memset(o, 0, static_cast<std::size_t>(rows * dim) * sizeof(float));
    output_rows<Floats>(reinterpret_cast<const std::uint32_t*>(scores), rows, shape, tile.v, units,
                        tile.unit_count, o, Ahead{});
    for (int i = 0; i < rows; ++i) {
      double* target = tile.o + tile.active[first + i] * static_cast<std::ptrdiff_t>(dim);
      for (int c = 0; c < dim; c += kWidth) {
        add_to_double(target + c, load(o + i * dim + c));
      }
    }
  }
}

// ---- Block mass. ----

// Folds one chunk of scores into the (block, row) maximum and sum.
RAINGAUGE_INLINE void fold_scores(const float* scores, int vecs, float scale, float& largest,
                                  float& sum) {
  const float top = row_max(scores, vecs) * scale;
  if (top > largest) {
    sum = largest == kMinusInfinity ? 0.0F : sum * exp2_scalar(largest - top);
    largest = top;
  }
  const Vec offset = set1(largest == kMinusInfinity ? 0.0F : -largest);
  Vec total = zero();
  for (int n = 0; n < vecs; ++n) {
    total = add(total, exp2_fast(fma(load(scores + n * kWidth), set1(scale), offset)));
  }
  sum += reduce_add(total);
}

template <class A>
RAINGAUGE_NOINLINE void local_sums(const MassTile& tile) {
  float* scores = tile.scratch;  // [rows, kChunkKeys]
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
      score_rows<A>(tile.q, tile.rows, tile.shape, tile.k, units, count, scores,
                    {tile.k, units + count, static_cast<int>(next), tile.shape.k_unit_words(),
                     tile.shape.depth()});
      for (int n = 0; n < count; ++n) {
        if (tile.full[units[n]] == 0) {
          add_bias(scores + n * kUnit, tile.rows, tile.bias + std::ptrdiff_t{units[n]} * kUnit);
        }
      }
      for (int i = 0; i < tile.rows; ++i) {
        fold_scores(scores + i * kChunkKeys, count * kVecs, tile.log2_scale, largest[i], sum[i]);
      }
    }
  }
}

// Sums of blocks -> shares of the row's softmax, added up over rows. NaN scores give NaN.
RAINGAUGE_NOINLINE void add_shares(const MassTile& tile) {
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
      const Vec part =
          mul(load(sum), exp2_fast(sub(load(tile.largest + b * kMaxTileRows + i), load(top + i))));
      store(sum, part);
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

// ---- Packing. ----

// 16 elements from `offset` of a row, zero beyond its end, as floats.
RAINGAUGE_INLINE void load_floats(const PackShape& shape, const void* row, int offset,
                                  float* target) {
  const auto size = static_cast<std::size_t>(shape.dtype == DType::f32 ? 4 : 2);
  const char* source = static_cast<const char*>(row) + static_cast<std::size_t>(offset) * size;
  if (offset + kUnit <= shape.head_dim) {
    convert16(source, shape.dtype, target);
    return;
  }
  alignas(64) unsigned char rest[64] = {};
  std::memcpy(rest, source, static_cast<std::size_t>(shape.head_dim - offset) * size);
  convert16(rest, shape.dtype, target);
}

RAINGAUGE_NOINLINE void pack_k(const PackShape& shape, const void* const* rows,
                               std::uint32_t* unit) {
  alignas(64) std::uint32_t words[kUnit][kUnit];
  alignas(64) std::uint32_t columns[kUnit * kUnit];
  const int depth = shape.depth();
  const bool in_place = shape.pairs || shape.dtype == DType::f32;  // words as they stand
  for (int t = 0; t < depth; t += kUnit) {
    const std::uint32_t* source[kUnit];
    const int count = depth - t < kUnit ? depth - t : kUnit;
    for (int i = 0; i < kUnit; ++i) {
      source[i] = words[i];
      if (rows[i] == nullptr) {
        std::memset(words[i], 0, sizeof(words[i]));
      } else if (!in_place) {
        load_floats(shape, rows[i], t, reinterpret_cast<float*>(words[i]));
      } else {
        std::memset(words[i] + count, 0, static_cast<std::size_t>(kUnit - count) * 4);
        std::memcpy(words[i], static_cast<const char*>(rows[i]) + t * 4,
                    static_cast<std::size_t>(count) * 4);
      }
    }
    transpose16(source, columns);
    std::memcpy(unit + t * kUnit, columns, static_cast<std::size_t>(count * kUnit) * 4);
  }
}

RAINGAUGE_INLINE void load_bits(const PackShape& shape, const void* row, int offset,
                                std::uint16_t* target) {
  const int left = shape.head_dim - offset;
  const int count = row == nullptr ? 0 : (left < kUnit ? left : kUnit);
  std::memset(target + count, 0, static_cast<std::size_t>(kUnit - count) * 2);
  if (count > 0) {
    std::memcpy(target, static_cast<const std::uint16_t*>(row) + offset,
                static_cast<std::size_t>(count) * 2);
  }
}

RAINGAUGE_NOINLINE void pack_v(const PackShape& shape, const void* const* rows,
                               std::uint32_t* unit) {
  const int panels = shape.panels();
  if (!shape.pairs) {
    for (int c = 0; c < panels; ++c) {
      for (int i = 0; i < kUnit; ++i) {
        auto* target = reinterpret_cast<float*>(unit + (c * kUnit + i) * kUnit);
        if (rows[i] == nullptr) {
          std::memset(target, 0, kUnit * sizeof(float));
        } else {
          load_floats(shape, rows[i], c * kUnit, target);
        }
      }
    }
    return;
  }
  constexpr int kPairSteps = kUnit / 2;
  for (int c = 0; c < panels; ++c) {
    for (int t = 0; t < kPairSteps; ++t) {
      std::uint16_t low[kUnit], high[kUnit];
      load_bits(shape, rows[2 * t], c * kUnit, low);
      load_bits(shape, rows[2 * t + 1], c * kUnit, high);
      interleave16(low, high, unit + (c * kPairSteps + t) * kUnit);
    }
  }
}

RAINGAUGE_NOINLINE void pack_q(const PackShape& shape, const void* row, float factor,
                               std::uint32_t* words) {
  if (shape.pairs && factor == 1.0F) {
    std::memcpy(words, row, static_cast<std::size_t>(shape.head_dim) * 2);
    return;
  }
  for (int t = 0; t < shape.head_dim; t += kUnit) {
    alignas(64) float values[kUnit];
    load_floats(shape, row, t, values);
    const int count = shape.head_dim - t < kUnit ? shape.head_dim - t : kUnit;
    for (int i = 0; i < count; ++i) {
      values[i] *= factor;
    }
    if (!shape.pairs) {
      std::memcpy(words + t, values, static_cast<std::size_t>(count) * 4);
      continue;
    }
    for (int i = 0; i < count; i += 2) {  // exact: the factor is 1, -1 or 0
      std::uint32_t low, high;
      std::memcpy(&low, &values[i], 4);
      std::memcpy(&high, &values[i + 1], 4);
      words[(t + i) / 2] = (low >> 16) | (high & 0xffff0000U);
    }
  }
}

// ---- Pooling. ----

constexpr int kPoolPanels = 8;  // 16-column panels of a row read together

// Columns [first, first + 16 * kPanels) of `count` rows, each column in ascending order of rows.
template <int kPanels>
RAINGAUGE_INLINE void add_columns(const PackShape& shape, int first, const void* const* rows,
                                  std::int64_t count, float* totals) {
  Vec sum[kPanels * kVecs];
#pragma GCC unroll 32
  for (int n = 0; n < kPanels * kVecs; ++n) {
    sum[n] = zero();
  }
  constexpr std::int64_t kRowsAhead = 16;  // rows of a permuted block have no order to prefetch by
  const auto size = static_cast<std::size_t>(shape.dtype == DType::f32 ? 4 : 2);
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t later = r + kRowsAhead < count ? r + kRowsAhead : r;
    for (std::size_t byte = 0; byte < kPanels * kUnit * size; byte += 64) {
      __builtin_prefetch(static_cast<const char*>(rows[later]) +
                         static_cast<std::size_t>(first) * size + byte);
    }
#pragma GCC unroll 8
    for (int c = 0; c < kPanels; ++c) {
      alignas(64) float values[kUnit];
      load_floats(shape, rows[r], first + c * kUnit, values);
#pragma GCC unroll 4
      for (int n = 0; n < kVecs; ++n) {
        sum[c * kVecs + n] = add(sum[c * kVecs + n], load(values + n * kWidth));
      }
    }
  }
#pragma GCC unroll 32
  for (int n = 0; n < kPanels * kVecs; ++n) {
    store(totals + n * kWidth, sum[n]);
  }
}

RAINGAUGE_NOINLINE void add_rows(DType dtype, int head_dim, const void* const* rows,
                                 std::int64_t count, float* sums) {
  const PackShape shape{dtype, head_dim, false};
  int c = 0;
  while (c < head_dim) {
    alignas(64) float totals[kPoolPanels * kUnit];
    const bool many = c + kPoolPanels * kUnit <= head_dim;
    if (many) {
      add_columns<kPoolPanels>(shape, c, rows, count, totals);
    } else {
      add_columns<1>(shape, c, rows, count, totals);
    }
    const int columns = many ? kPoolPanels * kUnit : kUnit;
    for (int i = 0; i < columns && c + i < head_dim; ++i) {
      sums[c + i] += totals[i];
    }
    c += columns;
  }
}

RAINGAUGE_NOINLINE void score_matrix(const float* q, std::int64_t rows, int head_dim,
                                     const std::uint32_t* k, std::int64_t keys, float scale,
                                     float* scratch, float* scores, std::int64_t stride) {
  const PackShape shape{DType::f32, head_dim, false};
  const std::int64_t unit_count = (keys + kUnit - 1) / kUnit;
  for (std::int64_t u = 0; u < unit_count; u += kChunkUnits) {
    const std::int64_t left = unit_count - u;
    const int count = left < kChunkUnits ? static_cast<int>(left) : kChunkUnits;
    std::int32_t units[kChunkUnits];
    for (int n = 0; n < count; ++n) {
      units[n] = static_cast<std::int32_t>(u) + n;
    }
    const std::int64_t valid = keys - u * kUnit < kChunkKeys ? keys - u * kUnit : kChunkKeys;
    for (std::int64_t i = 0; i < rows; i += kMaxTileRows) {
      const int group = rows - i < kMaxTileRows ? static_cast<int>(rows - i) : kMaxTileRows;
      score_rows<Floats>(reinterpret_cast<const std::uint32_t*>(q + i * head_dim), group, shape, k,
                         units, count, scratch, Ahead{});
      for (int r = 0; r < group; ++r) {
        float* target = scores + (i + r) * stride + u * kUnit;
        for (std::int64_t j = 0; j < valid; ++j) {
          target[j] = scratch[r * kChunkKeys + j] * scale;
        }
      }
    }
  }
}

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

double spin_any([[maybe_unused]] bool pairs, std::int64_t rounds) {
#ifdef RAINGAUGE_LEVEL_PAIRS
  if (pairs) {
    return spin_chains<Pairs>(rounds);
  }
#endif
  return spin_chains<Floats>(rounds);
}

// ---- The table. ----

void attend_any(const AttendTile& tile) {
#ifdef RAINGAUGE_LEVEL_PAIRS
  if (tile.shape.pairs) {
    attend_tile<Pairs>(tile);
    return;
  }
#endif
  attend_tile<Floats>(tile);
}

void mass_any(const MassTile& tile) {
#ifdef RAINGAUGE_LEVEL_PAIRS
  if (tile.shape.pairs) {
    local_sums<Pairs>(tile);
    add_shares(tile);
    return;
  }
#endif
  local_sums<Floats>(tile);
  add_shares(tile);
}

LevelOps make_ops(std::string_view name, bool has_pairs) {
  LevelOps ops;
  ops.name = name;
  ops.has_pairs = has_pairs;
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
