// SPDX-License-Identifier: Apache-2.0
// Launches the block-sparse forward kernel of sm_90a. C++17 without project headers: nvcc and the
// host compiler read it.
#pragma once

#include <cstdint>

#include "methods/kernels/cuda/forward.h"
#include "methods/kernels/cuda/tile_walk.h"

namespace raingauge::cuda_walk {

// Where K or V stands: rows of head_dim contiguous elements in box order, 16-byte aligned, strides in
// elements and multiples of 8. Rows of no key must be finite; rows beyond `rows` are never read.
struct KeyTensor {
  const void* data;
  std::int64_t head_stride, token_stride;
  std::int64_t rows;
};

// Device pointers. q and o stand in the record's token order and are reached through q_tokens.
struct SparseParams {
  const void* q;
  std::int64_t q_head_stride, q_token_stride;
  const std::int32_t* q_tokens;  // [heads or 1, tokens] position -> token; null: identity
  std::int64_t q_tokens_stride;  // per head; 0 when all heads share one order
  void* o;                       // float32 or the inputs' type
  bool o_is_float;
  std::int64_t o_head_stride, o_token_stride;
  float* lse;  // [heads, lse_head_stride], natural log, or null
  std::int64_t lse_head_stride;
  const TileItem* items;  // longest first; at most 128 query rows each
  std::int32_t item_count;
  const std::int32_t* boxes;  // of all lists
  BoxTable table;
  std::int32_t heads;
  std::int32_t group;     // query heads of one key head
  float scale_log2;       // softmax scale * log2(e), > 0
  std::int32_t* counter;  // [2], zero before the first launch and after every launch
  // > 0: every item meets boxes 0 ... every_box - 1. Their lists are not read, and items may have up to
  // dense_rows(head_dim) query rows.
  std::int32_t every_box;
  std::int32_t head_dim;  // set by the launch
};

constexpr int kTileRows = 128;
// Query rows of an item that meets all boxes; 0: such items are not covered at this head_dim.
constexpr int dense_rows(int head_dim) { return head_dim == 64 ? 192 : 0; }

// head_dim a multiple of 8 up to 128: 64 and 128 have kernels of their own, all others take the next
// larger one, whose missing channels are zeros and are not written. On `stream` (a cudaStream_t) of the
// current device, which must have compute capability 9.0. Returns a cudaError_t (0 = success). Nothing
// waits on the host.
int launch_sparse_sm90(const SparseParams& params, const KeyTensor& k, const KeyTensor& v,
                       Element element, int head_dim, void* stream);

}  // namespace raingauge::cuda_walk
