// SPDX-License-Identifier: Apache-2.0
// Launches the row evaluator and the comparison of its outputs with dense ones. C++17 without project
// headers beside row_walk.h: nvcc and the host compiler read it.
#pragma once

#include <cstdint>

#include "methods/kernels/cuda/forward.h"
#include "methods/kernels/cuda/row_walk.h"

namespace raingauge::cuda_walk {

// Device pointers; strides in elements, rows of head_dim contiguous elements, 16-byte aligned.
struct RowParams {
  const void* q;
  const void* k;
  const void* v;
  std::int64_t q_head_stride, q_token_stride;
  std::int64_t k_head_stride, k_token_stride;
  std::int64_t v_head_stride, v_token_stride;
  const std::int32_t* sample;      // slot -> token
  const std::int32_t* row_slots;   // of all items: slots of the sample
  const std::int32_t* key_tokens;  // of all items: valid keys in block order
  const std::uint8_t* key_class;   // [tokens]
  const KeyRun* runs;
  const RowItem* items;
  std::int32_t item_count;
  float sign;        // of the softmax scale: 1, -1, or 0 when it is 0
  float scale_log2;  // its size * log2(e); > 0 also where sign is 0
  // Results at place item.out + slot.
  float* o;  // [places, head_dim]
  double* lse;
  double* mass_first_frame;
  double* mass_text;
};

// head_dim 64 or 128. Returns a cudaError_t (0 = success); `stream` is a cudaStream_t.
int launch_rows(const RowParams& params, Element element, int head_dim, void* stream);

// moments[i] of output row o[i] against dense[i % rows], i < places; moments as data/row_moments.h has
// them, in the same bits.
struct MomentParams {
  const float* o;      // [places, head_dim]
  const float* dense;  // [rows, head_dim]
  std::int64_t places, rows;
  std::int32_t head_dim;
  double* moments;  // [places, 7]
};
int launch_moments(const MomentParams& params, void* stream);

}  // namespace raingauge::cuda_walk
