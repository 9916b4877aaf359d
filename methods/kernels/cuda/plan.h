// SPDX-License-Identifier: Apache-2.0
// Deciding on the device: block means, scores of block pairs, top-k at a density counted in token
// pairs, lists. The same decisions as methods/selection.h makes for the selector top_k with the budget
// inside, in the same order of operations, so that a device's plan is the host's. C++17 without project
// headers: nvcc and the host compiler read it.
//
// All pointers are device memory. Every launch goes to `stream` (a cudaStream_t) of the current
// device and returns a cudaError_t (0 = success); nothing waits on the host.
#pragma once

#include <cstdint>

#include "methods/kernels/cuda/forward.h"

namespace raingauge::cuda_plan {

using cuda_walk::Element;

constexpr int kMostRagged = 32;     // key blocks with fewer tokens than the largest has
constexpr int kMostColumns = 4096;  // key blocks of a head

// Means of blocks: fp32 sums, tokens in block order.
struct PoolParams {
  const void* x;  // [heads, tokens, head_dim], 16-byte aligned rows, strides in elements
  std::int64_t head_stride, token_stride;
  const std::int32_t* tokens;            // position -> token; null: identity
  const std::int32_t* offsets;           // [blocks + 1]
  const std::uint8_t* key_valid;         // [tokens] or null
  std::int32_t heads, blocks, head_dim;  // head_dim a multiple of 8, at most 256
  float* means;                          // [heads, blocks, head_dim]; 0 for a block without a token
  // Or null. Without key_valid: a copy of x in block order, [heads, blocks, box_rows, head_dim], zeros
  // after a block's last token.
  void* boxes;
  std::int32_t box_rows;
};
int launch_pool(const PoolParams& params, Element element, void* stream);

// What of a selection does not depend on the scores: made once, shared by all heads.
struct SelectFrame {
  std::int32_t heads, rows, columns, head_dim;
  const std::uint8_t* kind;         // [rows, columns]: 0 no block, 1 candidate, 2 forced
  const std::int32_t* candidates;   // [rows]: how many of kind 1
  const std::int32_t* already;      // [rows]: how many of kind 2
  const std::int32_t* must;         // [rows]: 1 when the row has to take its best candidate
  const std::int32_t* row_tokens;   // [rows]
  const std::int32_t* row_of_rank;  // [rows]: the seeded order in which rows get one more
  const std::int32_t* ragged;       // [ragged_count]: columns with fewer than full_tokens tokens
  const std::int32_t* ragged_tokens;
  std::int32_t ragged_count, full_tokens;
  std::int64_t forced_pairs;  // token pairs of all forced blocks of a head
  std::int32_t most_price;    // largest already + candidates
  double target;              // token pairs of a head to be kept
};

struct SelectParams {
  SelectFrame frame;
  const float* q_means;  // [heads, rows, head_dim]
  const float* k_means;  // [heads, columns, head_dim]
  float scale;
  float* scores;              // scratch [heads, rows, columns]
  std::int32_t* ragged_rank;  // scratch [heads, rows, ragged_count]
  std::int32_t* taken;        // scratch [heads, rows]
  std::int32_t* counts;       // out [heads, rows]
  std::int32_t* lists;  // out [heads, rows, columns]: ascending, the first counts[…] of each
};
int launch_select(const SelectParams& params, void* stream);

}  // namespace raingauge::cuda_plan
