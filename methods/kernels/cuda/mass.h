// SPDX-License-Identifier: Apache-2.0
// The exact oracle on the device: which share of every query row's dense softmax lies in each key box,
// and the rows' log-sum-exps, from one pass over Q K^T. C++17 without project headers: nvcc and the
// host compiler read it.
#pragma once

#include <cstdint>

#include "methods/kernels/cuda/forward_sm90.h"

namespace raingauge::cuda_walk {

constexpr int kMassRows =
    256;  // query rows of an item, at most; items need not follow query blocks

// Device pointers. Of `attend` everything counts but o, boxes and the items' lists: every item meets
// all boxes; lse is required and indexed by position in block order, not by token.
struct MassParams {
  SparseParams attend;
  std::int32_t boxes;      // of every head
  std::int32_t positions;  // query rows of every head
  // out [heads, boxes, positions]: base-2 logarithm of the sum of exp(scale * q.k) over the box
  float* levels;
};
// As launch_sparse_sm90().
int launch_levels_sm90(const MassParams& params, const KeyTensor& k, Element element, int head_dim,
                       void* stream);

// mass[h, i, j] = mean over the rows of query block i that count of the share that the boxes of key
// block j hold: 2^(level - lse) summed in ascending order. 0 where no row counts.
struct ShareParams {
  const float* levels;             // [heads, boxes, positions]
  const float* lse;                // [heads, positions], natural log
  const std::int32_t* q_offsets;   // [q_blocks + 1] positions
  const std::int32_t* first_box;   // [k_blocks + 1]
  const std::uint8_t* row_counts;  // [positions] or null: all count
  std::int32_t heads, boxes, positions, q_blocks, k_blocks;
  float* mass;  // [heads, q_blocks, k_blocks]
};
int launch_shares(const ShareParams& params, void* stream);

}  // namespace raingauge::cuda_walk
