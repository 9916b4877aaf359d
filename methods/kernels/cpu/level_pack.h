// SPDX-License-Identifier: Apache-2.0
// From rows of any element type to packed words, sums of rows, and products of block means. Part of
// level_impl.h.
#pragma once

#include "methods/kernels/cpu/level_tiles.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

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
  const int row_words = shape.words();
  const bool in_place = shape.pairs() || shape.dtype == DType::f32;  // words as they stand
  for (int t = 0; t < depth; t += kUnit) {
    const void* source[kUnit];
    const int left = row_words - t;
    const int count = left < 0 ? 0 : (left < kUnit ? left : kUnit);
    for (int i = 0; i < kUnit; ++i) {
      source[i] = words[i];
      if (rows[i] == nullptr) {
        std::memset(words[i], 0, sizeof(words[i]));
        continue;
      }
      const char* row = static_cast<const char*>(rows[i]) + (in_place ? t * 4 : 0);
      if (in_place && count == kUnit) {
        source[i] = row;
      } else if (!in_place) {
        load_floats(shape, rows[i], t, reinterpret_cast<float*>(words[i]));
      } else {
        std::memset(words[i] + count, 0, static_cast<std::size_t>(kUnit - count) * 4);
        std::memcpy(words[i], row, static_cast<std::size_t>(count) * 4);
      }
    }
    if (depth - t >= kUnit) {
      transpose16(source, unit + t * kUnit);
      continue;
    }
    transpose16(source, columns);
    std::memcpy(unit + t * kUnit, columns, static_cast<std::size_t>((depth - t) * kUnit) * 4);
  }
}

// 16 elements of two bytes from `offset` of a row: where they stand if all exist, else filled up with
// zeros in `copy`.
RAINGAUGE_INLINE const std::uint16_t* bits_at(const PackShape& shape, const void* row, int offset,
                                              std::uint16_t* copy) {
  const int left = shape.head_dim - offset;  // below 0 in a panel of padding alone
  if (row != nullptr && left >= kUnit) return static_cast<const std::uint16_t*>(row) + offset;
  const int count = row == nullptr || left < 0 ? 0 : left;
  std::memset(copy + count, 0, static_cast<std::size_t>(kUnit - count) * 2);
  if (count > 0) {
    std::memcpy(copy, static_cast<const std::uint16_t*>(row) + offset,
                static_cast<std::size_t>(count) * 2);
  }
  return copy;
}

// Where line t of panel c of unit `number` stands, pairs of keys packed.
RAINGAUGE_INLINE std::uint32_t* pair_line(const PackShape& shape, std::uint32_t* unit,
                                          std::int64_t number, int c, int t) {
  constexpr int kPairSteps = kUnit / 2;
  if (!shape.tiles()) {
    return unit + (panel_place(shape, number, c) * kPairSteps + t) * kUnit;
  }
  const auto odd = static_cast<int>(number & 1);
  return unit - odd * static_cast<std::ptrdiff_t>(shape.v_unit_words()) +
         ((2 * c + odd) * kPairSteps + t) * kUnit;
}

RAINGAUGE_NOINLINE void pack_v(const PackShape& shape, const void* const* rows, std::int64_t number,
                               std::uint32_t* unit) {
  const int panels = shape.panels();
  if (!shape.pairs()) {
    for (int c = 0; c < panels; ++c) {
      std::uint32_t* panel = unit + panel_place(shape, number, c) * (kUnit * kUnit);
      for (int i = 0; i < kUnit; ++i) {
        auto* target = reinterpret_cast<float*>(panel + i * kUnit);
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
      interleave16(bits_at(shape, rows[2 * t], c * kUnit, low),
                   bits_at(shape, rows[2 * t + 1], c * kUnit, high),
                   pair_line(shape, unit, number, c, t));
    }
  }
}

RAINGAUGE_NOINLINE void pack_q(const PackShape& shape, const void* row, float factor,
                               std::uint32_t* words) {
  std::memset(words + shape.words(), 0,
              static_cast<std::size_t>(shape.depth() - shape.words()) * sizeof(words[0]));
  if (shape.pairs() && factor == 1.0F) {
    std::memcpy(words, row, static_cast<std::size_t>(shape.head_dim) * 2);
    return;
  }
  for (int t = 0; t < shape.head_dim; t += kUnit) {
    alignas(64) float values[kUnit];
    load_floats(shape, row, t, values);
    for (int i = 0; i < kUnit; ++i) {
      values[i] *= factor;
    }
    const int count = shape.head_dim - t < kUnit ? shape.head_dim - t : kUnit;
    if (!shape.pairs()) {
      if (count == kUnit) {
        std::memcpy(words + t, values, sizeof(values));  // a known size: no call
      } else {
        std::memcpy(words + t, values, static_cast<std::size_t>(count) * 4);
      }
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

// Columns [first, first + 16 * kPanels) of `count` rows, each column in ascending order of rows. kWhole: no
// panel reaches beyond head_dim.
template <DType kType, int kPanels, bool kWhole>
RAINGAUGE_INLINE void add_columns(int head_dim, int first, const void* const* rows,
                                  std::int64_t count, float* totals) {
  Vec sum[kPanels * kVecs];
#pragma GCC unroll 32
  for (int n = 0; n < kPanels * kVecs; ++n) {
    sum[n] = zero();
  }
  constexpr std::int64_t kRowsAhead = 16;  // rows of a permuted block have no order to prefetch by
  constexpr std::size_t kSize = kType == DType::f32 ? 4 : 2;
  const PackShape shape{kType, head_dim, Products::floats};
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t later = r + kRowsAhead < count ? r + kRowsAhead : r;
    const std::size_t start = static_cast<std::size_t>(first) * kSize;
#pragma GCC unroll 8
    for (std::size_t byte = 0; byte < kPanels * kUnit * kSize; byte += 64) {
      __builtin_prefetch(static_cast<const char*>(rows[later]) + start + byte);
    }
#pragma GCC unroll 8
    for (int c = 0; c < kPanels; ++c) {
      alignas(64) float values[kUnit];
      if constexpr (kWhole) {
        convert16(static_cast<const char*>(rows[r]) + start + std::size_t{kUnit} * kSize * c, kType,
                  values);
      } else {
        load_floats(shape, rows[r], first + c * kUnit, values);
      }
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

template <DType kType>
RAINGAUGE_NOINLINE void add_rows_of(int head_dim, const void* const* rows, std::int64_t count,
                                    float* sums) {
  for (int c = 0, columns = 0; c < head_dim; c += columns) {
    alignas(64) float totals[kPoolPanels * kUnit];
    const int left = head_dim - c;
    columns = kUnit;
    if (left >= kPoolPanels * kUnit) {
      columns = kPoolPanels * kUnit;
      add_columns<kType, kPoolPanels, true>(head_dim, c, rows, count, totals);
    } else if (left >= kPoolPanels / 2 * kUnit) {
      columns = kPoolPanels / 2 * kUnit;
      add_columns<kType, kPoolPanels / 2, true>(head_dim, c, rows, count, totals);
    } else {
      add_columns<kType, 1, false>(head_dim, c, rows, count, totals);
    }
    for (int i = 0; i < columns && c + i < head_dim; ++i) {
      sums[c + i] += totals[i];
    }
  }
}

void add_rows(DType dtype, int head_dim, const void* const* rows, std::int64_t count, float* sums) {
  const auto add = dtype == DType::f32   ? add_rows_of<DType::f32>
                   : dtype == DType::f16 ? add_rows_of<DType::f16>
                                         : add_rows_of<DType::bf16>;
  add(head_dim, rows, count, sums);
}

RAINGAUGE_NOINLINE void score_matrix(const float* q, std::int64_t rows, int head_dim,
                                     const std::uint32_t* k, std::int64_t keys, float scale,
                                     float* scratch, float* scores, std::int64_t stride) {
  const PackShape shape{DType::f32, head_dim, Products::floats};
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
      score_rows<Floats>(reinterpret_cast<const std::uint32_t*>(q + i * head_dim), group, shape,
                         key_places(shape, k, units, count), scratch, Places{});
      for (int r = 0; r < group; ++r) {
        float* target = scores + (i + r) * stride + u * kUnit;
        for (std::int64_t j = 0; j < valid; ++j) {
          target[j] = scratch[r * kChunkKeys + j] * scale;
        }
      }
    }
  }
}

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
