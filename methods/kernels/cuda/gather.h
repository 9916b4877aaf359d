// SPDX-License-Identifier: Apache-2.0
// Moving rows on the device: K and V into box order, results into fp32, work items from a device's
// lists. C++17 without project headers beside tile_walk.h: nvcc and the host compiler read it.
#pragma once

#include <cstdint>

#include "methods/kernels/cuda/forward.h"
#include "methods/kernels/cuda/tile_walk.h"

namespace raingauge::cuda_walk {

// Rows of head_dim 2-byte elements, 16-byte aligned; strides in elements, multiples of 8.
struct GatherParams {
  const void* k;  // null: v alone
  const void* v;
  std::int64_t k_head_stride, k_token_stride;
  std::int64_t v_head_stride, v_token_stride;
  const std::int32_t* slots;  // [heads or 1, length]: token, -1: a row of zeros
  std::int64_t slots_stride;  // per head; 0 when shared
  void* k_out;                // [heads, length, head_dim]
  void* v_out;
  std::int64_t length;
  std::int32_t heads, head_dim;
};
// Every launch returns a cudaError_t (0 = success) and waits for nothing; `stream` is a cudaStream_t.
int launch_gather(const GatherParams& params, void* stream);

// out[i] = in[i] as fp32.
int launch_to_float(const void* in, Element element, std::int64_t count, float* out, void* stream);

// Lists as a device's planner leaves them: row (head, query block) holds counts[row] boxes from
// row * stride on.
struct ItemParams {
  const std::int32_t* counts;     // [heads, rows]
  const std::int32_t* q_offsets;  // [rows + 1]; blocks of at most 128 tokens
  const std::int32_t* live;       // [live_count]: query blocks with tokens
  std::int32_t heads, rows, live_count;
  std::int64_t stride;  // at most 4096
  TileItem* items;      // out [heads * live_count], by falling count
};
int launch_items(const ItemParams& params, void* stream);

}  // namespace raingauge::cuda_walk
