// SPDX-License-Identifier: Apache-2.0
// Launches the CUDA forward kernel. C++17 without project headers: nvcc and the host compiler read it.
#pragma once

#include <cstdint>

#include "methods/kernels/cuda/block_walk.h"

namespace raingauge::cuda_walk {

// Device pointers; strides in elements, rows of head_dim contiguous elements, 16-byte aligned.
struct ForwardParams {
  const void* q;
  const void* k;
  const void* v;
  std::int64_t q_head_stride, q_token_stride;
  std::int64_t k_head_stride, k_token_stride;
  std::int64_t v_head_stride, v_token_stride;
  float* o;    // [H, N, D]
  float* lse;  // [H, N] or null
  std::int64_t tokens;
  const std::int32_t* q_tokens;    // position -> token; null: identity
  std::int64_t q_tokens_stride;    // per head; 0 when all heads share one order
  const std::int32_t* key_tokens;  // valid key in block order -> token
  std::int64_t key_tokens_stride;  // per head; 0 when shared
  const KeyRun* runs;
  const WorkItem* items;
  std::int32_t item_count;
  float scale_log2;  // softmax scale * log2(e)
};

enum class Element { bf16, f16 };

// row_tile 64 or 128, head_dim 64 or 128; on the default stream of the current device. Returns a
// cudaError_t (0 = success).
int launch_forward(const ForwardParams& params, Element element, int head_dim, int row_tile);

}  // namespace raingauge::cuda_walk
