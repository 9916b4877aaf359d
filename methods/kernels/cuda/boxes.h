// SPDX-License-Identifier: Apache-2.0
// A plan as the sm_90a kernel wants it: keys in boxes of equal size, lists of boxes, work items. Pure
// host code, in every build.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"
#include "methods/kernels/cuda/tile_walk.h"

namespace raingauge {

// How a key layout lies in boxes. Every key block starts a box of its own; its valid keys come first.
struct BoxFrame {
  int box_keys = 128;               // 64 when no block has more valid keys
  bool in_place = false;            // K and V are in box order as they stand: no gather, no table
  int rows = 1;                     // of slots, valid and first_box: 1 or heads
  std::int64_t boxes = 0;           // of one head
  std::vector<std::int32_t> slots;  // [rows, boxes * box_keys] token, -1: none; empty: in place
  std::vector<std::int32_t> valid;  // [rows, boxes] keys of a box; empty: in place
  std::vector<std::int32_t> first_box;  // [rows, key blocks + 1]
  // Block b is box b, in every head: lists of blocks are lists of boxes.
  bool block_is_box = false;
};

// Orders and layouts of `plan`; its lists are not read. key_valid: [tokens] in record order or null.
BoxFrame make_box_frame(const Plan& plan, const std::uint8_t* key_valid);

struct BoxWork {
  std::vector<std::int32_t> boxes;         // of all lists, ascending; boxes without a key left out
  std::vector<cuda_walk::TileItem> items;  // by falling number of steps; ties: head, position
  double density_tiles = 0.0;              // 128 x 128 tiles executed / all
  std::int32_t every_box = 0;              // > 0: items meet all of so many boxes and have no lists
};
// For plans that keep every pair: items of `rows` query rows, no lists. The plan's own are not read. Throws
// Unsupported when a count exceeds int32.
BoxWork make_every_box_work(const Plan& plan, const BoxFrame& frame, int rows);
// dense_rows > 0: where the plan keeps every pair, items of so many query rows without lists. Throws
// Unsupported when a count exceeds int32.
BoxWork make_box_work(const Plan& plan, const BoxFrame& frame, int threads = 0, int dense_rows = 0);

}  // namespace raingauge
