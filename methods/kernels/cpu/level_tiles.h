// SPDX-License-Identifier: Apache-2.0
// Products of query rows with packed keys, and of probabilities with packed values: register tiles and
// the loops around them. Part of level_impl.h.
#pragma once

#include "methods/kernels/cpu/level_math.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

// ---- Where the packed words are. ----

// With one panel a register tile, a chunk's panels of equal number would all fall on the same sets of
// the first-level cache (units are 4 or 8 KB apart): unit u starts with panel -u.
RAINGAUGE_INLINE int panel_place(const PackShape& shape, std::int64_t unit, int panel) {
  if constexpr (kMaxUnits > 1) {
    return panel;
  }
  return static_cast<int>((static_cast<std::uint64_t>(unit) + static_cast<unsigned>(panel)) %
                          static_cast<unsigned>(shape.panels()));
}

// Where each unit of a chunk begins: its keys, or one panel of its values.
struct Places {
  const std::uint32_t* at[kChunkUnits] = {};
  int count = 0;
  int lines = 0;  // cache lines wanted at each, when fetched ahead
};

RAINGAUGE_INLINE Places key_places(const PackShape& shape, const std::uint32_t* k,
                                   const std::int32_t* units, int count) {
  Places places;
  places.count = count;
  places.lines = shape.depth();
  for (int u = 0; u < count; ++u) {
    places.at[u] = k + static_cast<std::size_t>(units[u]) * shape.k_unit_words();
  }
  return places;
}

// `panels` panels from `panel` on.
RAINGAUGE_INLINE Places value_places(const PackShape& shape, const std::uint32_t* v,
                                     const std::int32_t* units, int count, int panel, int panels) {
  Places places;
  places.count = count;
  places.lines = panels * shape.steps();
  for (int u = 0; u < count; ++u) {
    places.at[u] = v + static_cast<std::size_t>(units[u]) * shape.v_unit_words() +
                   panel_place(shape, units[u], panel) * (shape.steps() * kUnit);
  }
  return places;
}

// Brings part `part` of `parts` equal ones into the second-level cache while a group of query rows is
// computed: the hardware's own prefetching stops at pages and cannot follow a list of blocks.
RAINGAUGE_INLINE void fetch_part(const Places& ahead, int part, int parts) {
  const int first = ahead.lines * part / parts;
  const int last = ahead.lines * (part + 1) / parts;
  for (int u = 0; u < ahead.count; ++u) {
    for (int line = first; line < last; ++line) {
      __builtin_prefetch(ahead.at[u] + line * kUnit, 0, 2);
    }
  }
}

// ---- Register tiles. ----

constexpr int kFirstLevelWords = 8192;  // query rows beyond 32 KB come from the second-level cache

// scores[i][n * 16 ...] = dot of query row i with the keys of unit n. `fetch_next`: the rows that
// follow these are brought in meanwhile.
template <class A, int kRows, int kUnits>
RAINGAUGE_INLINE void score_tile(const std::uint32_t* q, int depth,
                                 const std::uint32_t* const* places, float* scores,
                                 bool fetch_next) {
  Vec sums[kRows][kUnits * kVecs];
  const std::uint32_t* keys[kUnits];
#pragma GCC unroll 8
  for (int n = 0; n < kUnits; ++n) {
    keys[n] = places[n];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int n = 0; n < kUnits * kVecs; ++n) {
      sums[i][n] = zero();
    }
  }
  for (std::ptrdiff_t begin = 0; begin < depth; begin += kUnit) {
    const std::ptrdiff_t end = begin + kUnit < depth ? begin + kUnit : depth;
    if (fetch_next) {
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        __builtin_prefetch(q + (kRows + i) * static_cast<std::ptrdiff_t>(depth) + begin, 0, 3);
      }
    }
#pragma GCC unroll 1
    for (std::ptrdiff_t t = begin; t < end; ++t) {
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
RAINGAUGE_INLINE void output_tile(const std::uint32_t* p, const Places& places, float* o,
                                  int padded_dim) {
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
  for (int u = 0; u < places.count; ++u) {
    const std::uint32_t* values = places.at[u];
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

// How many rows go in groups of kMaxRows. Two rows alone would keep too few chains in flight: they
// make two groups of four together with the last six.
RAINGAUGE_INLINE int grouped_rows(int rows) {
  const int rest = rows % kMaxRows;
  const bool pair = rest == 2 && kMaxRows == 6 && rows > kMaxRows;
  return rows - rest - (pair ? kMaxRows : 0);
}

// The last rows: in groups of kRows, kRows / 2, ... 1.
template <class A, int kRows, int kUnits>
RAINGAUGE_INLINE void score_rest(const std::uint32_t* q, int rows, int depth,
                                 const std::uint32_t* const* places, float* scores) {
  while (rows >= kRows) {
    score_tile<A, kRows, kUnits>(q, depth, places, scores, false);
    q += kRows * static_cast<std::ptrdiff_t>(depth);
    scores += kRows * kChunkKeys;
    rows -= kRows;
  }
  if constexpr (kRows > 1) {
    score_rest<A, kRows / 2, kUnits>(q, rows, depth, places, scores);
  }
}

template <class A, int kRows, int kPanels>
RAINGAUGE_INLINE void output_rest(const std::uint32_t* p, int rows, const Places& places, float* o,
                                  int padded_dim) {
  while (rows >= kRows) {
    output_tile<A, kRows, kPanels>(p, places, o, padded_dim);
    p += kRows * kChunkUnits * (A::kPairs ? kUnit / 2 : kUnit);
    o += kRows * static_cast<std::ptrdiff_t>(padded_dim);
    rows -= kRows;
  }
  if constexpr (kRows > 1) {
    output_rest<A, kRows / 2, kPanels>(p, rows, places, o, padded_dim);
  }
}

// One group of units against all rows: the group's packed keys stay in the first-level cache.
template <class A, int kUnits>
RAINGAUGE_NOINLINE void score_units(const std::uint32_t* q, int rows, int depth,
                                    const std::uint32_t* const* places, float* scores,
                                    const Places& ahead) {
  const int grouped = grouped_rows(rows);
  const int parts = (grouped + kMaxRows - 1) / kMaxRows + (grouped < rows ? 1 : 0);
  const bool fetch_rows = rows * depth > kFirstLevelWords;
  int i = 0;
  for (; i < grouped; i += kMaxRows) {
    fetch_part(ahead, i / kMaxRows, parts);
    score_tile<A, kMaxRows, kUnits>(q + i * static_cast<std::ptrdiff_t>(depth), depth, places,
                                    scores + i * kChunkKeys, fetch_rows);
  }
  if (i < rows) {
    fetch_part(ahead, parts - 1, parts);
  }
  score_rest<A, kRestRows, kUnits>(q + i * static_cast<std::ptrdiff_t>(depth), rows - i, depth,
                                   places, scores + i * kChunkKeys);
}

// scores[i][n * 16 ...], rows kChunkKeys apart: `rows` query rows with up to kChunkUnits units.
// `after` is what will be read next.
template <class A>
RAINGAUGE_NOINLINE void score_rows(const std::uint32_t* q, int rows, const PackShape& shape,
                                   const Places& keys, float* scores, const Places& after) {
  const int depth = shape.depth();
  int u = 0;
  for (; u + kMaxUnits <= keys.count; u += kMaxUnits) {
    const int left = keys.count - u - kMaxUnits;
    Places next;
    next.count = left < kMaxUnits ? left : kMaxUnits;
    next.lines = keys.lines;
    for (int n = 0; n < next.count; ++n) {
      next.at[n] = keys.at[u + kMaxUnits + n];
    }
    score_units<A, kMaxUnits>(q, rows, depth, keys.at + u, scores + u * kUnit,
                              left > 0 ? next : after);
  }
  if constexpr (kMaxUnits == 4) {
    if (keys.count - u >= 2) {
      score_units<A, 2>(q, rows, depth, keys.at + u, scores + u * kUnit, after);
      u += 2;
    }
    if (keys.count - u == 1) {
      score_units<A, 1>(q, rows, depth, keys.at + u, scores + u * kUnit, after);
    }
  }
}

// One group of 16-column panels of V against all rows.
template <class A, int kPanels>
RAINGAUGE_NOINLINE void output_panels(const std::uint32_t* p, int rows, const Places& places,
                                      float* o, int padded_dim, const Places& ahead) {
  constexpr int kRowWords = kChunkUnits * (A::kPairs ? kUnit / 2 : kUnit);
  const int grouped = grouped_rows(rows);
  const int parts = (grouped + kMaxRows - 1) / kMaxRows + (grouped < rows ? 1 : 0);
  int i = 0;
  for (; i < grouped; i += kMaxRows) {
    fetch_part(ahead, i / kMaxRows, parts);
    output_tile<A, kMaxRows, kPanels>(p + i * kRowWords, places,
                                      o + i * static_cast<std::ptrdiff_t>(padded_dim), padded_dim);
  }
  if (i < rows) {
    fetch_part(ahead, parts - 1, parts);
  }
  output_rest<A, kRestRows, kPanels>(p + i * kRowWords, rows - i, places,
                                     o + i * static_cast<std::ptrdiff_t>(padded_dim), padded_dim);
}

// o[i] += probabilities (rows of the chunk's words) times V. `after` is what will be read next.
template <class A>
RAINGAUGE_NOINLINE void output_rows(const std::uint32_t* p, int rows, const PackShape& shape,
                                    const std::uint32_t* v, const std::int32_t* units,
                                    int unit_count, float* o, const Places& after) {
  const int panels = shape.panels();
  const int dim = shape.padded_dim();
  int c = 0;
  for (; c + kMaxUnits <= panels; c += kMaxUnits) {
    const int left = panels - c - kMaxUnits;
    const Places ahead = left > 0 ? value_places(shape, v, units, unit_count, c + kMaxUnits,
                                                 left < kMaxUnits ? left : kMaxUnits)
                                  : after;
    output_panels<A, kMaxUnits>(p, rows, value_places(shape, v, units, unit_count, c, kMaxUnits),
                                o + c * kUnit, dim, ahead);
  }
  if constexpr (kMaxUnits == 4) {
    if (panels - c >= 2) {
      output_panels<A, 2>(p, rows, value_places(shape, v, units, unit_count, c, 2), o + c * kUnit,
                          dim, after);
      c += 2;
    }
    if (panels - c == 1) {
      output_panels<A, 1>(p, rows, value_places(shape, v, units, unit_count, c, 1), o + c * kUnit,
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

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
