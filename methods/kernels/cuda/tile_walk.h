// SPDX-License-Identifier: Apache-2.0
// Which keys does step s of a work item load, and which of its columns count? The index logic of the
// sm_90a kernels, compiled for host and device alike, so that it is tested where there is no GPU.
// C++17, no project headers: nvcc reads it.
//
// Keys stand in boxes of box_keys (64 or 128) consecutive rows; a list names boxes. A step multiplies
// with kStepKeys keys: one box of 128 or two of 64. Of a box only the first `valid` rows are keys.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define RAINGAUGE_TILE_INLINE __host__ __device__ __forceinline__
#else
#define RAINGAUGE_TILE_INLINE inline
#endif

namespace raingauge::cuda_walk {

constexpr int kStepKeys = 128;
constexpr int kHalfKeys = 64;

// Query rows [q_first, q_first + q_rows) (positions in block order) of one head and their list.
struct TileItem {
  std::int64_t first;  // into the boxes of all lists
  std::int32_t head;
  std::int32_t q_first;
  std::int32_t q_rows;
  std::int32_t count;  // boxes in the list
};

struct BoxTable {
  const std::int32_t*
      valid;  // [rows, boxes] keys of each box, or null: boxes are full but the last
  std::int64_t valid_stride;  // boxes of one head; 0 when all heads share one row
  std::int32_t keys;          // of one head, when valid is null
  std::int32_t box_keys;      // 64 or 128
};

RAINGAUGE_TILE_INLINE int boxes_per_step(const BoxTable& table) {
  return kStepKeys / table.box_keys;
}

RAINGAUGE_TILE_INLINE int step_count(const BoxTable& table, int count) {
  const int per_step = boxes_per_step(table);
  return (count + per_step - 1) / per_step;
}

RAINGAUGE_TILE_INLINE int valid_keys(const BoxTable& table, int kv_head, int box) {
  if (table.valid != nullptr) return table.valid[kv_head * table.valid_stride + box];
  const std::int64_t left = std::int64_t{table.keys} - std::int64_t{box} * table.box_keys;
  if (left <= 0) return 0;
  return left < table.box_keys ? static_cast<int>(left) : table.box_keys;
}

// Valid columns of both halves of a step, packed: low 16 bits columns [0, 64), high 16 bits the rest.
RAINGAUGE_TILE_INLINE std::uint32_t pack_halves(int low, int high) {
  return static_cast<std::uint32_t>(low) | static_cast<std::uint32_t>(high) << 16;
}

constexpr std::uint32_t kAllColumns = 64U | 64U << 16;

// One box of 128, or two of 64; a second box that is missing counts 0.
RAINGAUGE_TILE_INLINE std::uint32_t step_columns(const BoxTable& table, int first_valid,
                                                 int second_valid) {
  if (table.box_keys == kHalfKeys) return pack_halves(first_valid, second_valid);
  const int low = first_valid < kHalfKeys ? first_valid : kHalfKeys;
  return pack_halves(low, first_valid - low);
}

RAINGAUGE_TILE_INLINE bool column_counts(std::uint32_t columns, int column) {
  const int limit = column < kHalfKeys ? static_cast<int>(columns & 0xffffU)
                                       : kHalfKeys + static_cast<int>(columns >> 16);
  return column < limit;
}

// Shared-memory tiles as wgmma and the tensor copies expect them: [64-column half][row][128 bytes],
// 16-byte chunks of a row exchanged by the row's last three bits (128-byte swizzle).
RAINGAUGE_TILE_INLINE int tile_byte(int row, int chunk, int rows) {
  return (chunk >> 3) * rows * 128 + row * 128 + (((chunk & 7) ^ (row & 7)) << 4);
}

}  // namespace raingauge::cuda_walk
