// SPDX-License-Identifier: Apache-2.0
// Which query rows does an item of the row evaluator judge, which key stands in column c of its key tile
// t, and does that key lie in frame 0 or in text? Compiled for host and device alike, so that it is tested
// where there is no GPU. C++17, no project headers beside block_walk.h: nvcc reads it.
//
// As in block_walk.h the keys of a query block form one stream, cut into tiles of kKeyTile. Items of many
// plans stand in one list: each names its own rows, keys and place of results.
#pragma once

#include <cstdint>

#include "methods/kernels/cuda/block_walk.h"

namespace raingauge::cuda_walk {

constexpr int kRowTile = 64;  // query rows of one item at most
constexpr int kMaskSlots = 4;

// Classes of keys, as key_class[token] holds them.
constexpr std::uint8_t kPlainKey = 0, kFirstFrameKey = 1, kTextKey = 2;

struct RowItem {
  std::int64_t first_run;  // into the runs; one entry beyond the last run is readable
  std::int64_t first_key;  // into key_tokens: valid key x of this item's order is first_key + x
  std::int64_t first_row;  // into row_slots
  std::int64_t out;        // place of sample slot 0 in the results
  std::int32_t head;
  std::int32_t rows;  // 1 to kRowTile
  std::int32_t keys;  // length of the stream
};

RAINGAUGE_HOST_DEVICE WorkItem stream_of(const RowItem& item) {
  return {item.first_run, item.head, 0, item.rows, item.keys};
}

// Token in a column of a key tile, or -1; one cursor a column, tiles ascending.
RAINGAUGE_HOST_DEVICE std::int32_t token_at(KeyCursor& cursor, const RowItem& item,
                                            const std::int32_t* key_tokens, int tile, int column) {
  const std::int32_t key = cursor.valid_key(tile * kKeyTile + column);
  return key < 0 ? -1 : key_tokens[item.first_key + key];
}

// Bit b of word w: column 32 w + b of a tile is of the class.
struct TileMasks {
  std::uint32_t first_frame[kKeyTile / 32];
  std::uint32_t text[kKeyTile / 32];
};

RAINGAUGE_HOST_DEVICE bool in_mask(const std::uint32_t (&mask)[kKeyTile / 32], int column) {
  return (mask[column >> 5] >> (column & 31) & 1U) != 0;
}

// Masks are named two tiles ahead of their use, while other threads may still be one tile behind.
RAINGAUGE_HOST_DEVICE int mask_slot(int tile) { return tile & (kMaskSlots - 1); }

}  // namespace raingauge::cuda_walk
