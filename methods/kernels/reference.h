// SPDX-License-Identifier: Apache-2.0
// What should a kernel have returned? The fp32 reference: exact attention of chosen query rows under
// a plan, on the host, streamed by key tile. The kernel `reference` and the conformance gate share it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "methods/kernels/kernel.h"

namespace raingauge {

// Throws Error unless q, k, v agree with each other and with the plan in shape, dtype and device.
void check_attend_inputs(const Plan& plan, const AttendInputs& inputs);

// Magnitudes behind one output row o = sum_j p_j v_j, from which conformance derives tolerances.
struct RowScale {
  // The largest of sqrt(sum_j p_j^2 |v_j|^2), the same over the sums of key tiles
  // sqrt(sum_t |sum_{j in t} p_j v_j|^2), and |o|: how far rounding errors that are independent by
  // token, shared within a tile, or shared by the whole row can move o, per unit of error.
  double error_scale = 0.0;
  double score_bound = 0.0;  // |scale| * |q| * max_j |k_j|, no less than any |score|
  double row_max = 0.0;      // largest score; -inf without keys
  std::int64_t keys = 0;     // kept valid keys
};

// One head, ready to compute any of its rows: K and V in fp32, in block order, without the keys
// that key_valid rules out. 8 * tokens * head_dim bytes. Immutable; rows() may run in many threads.
class ReferenceHead {
 public:
  // The tensors must be in host memory and outlive this object, and so must the plan.
  ReferenceHead(const AttendInputs& inputs, const Plan& plan, std::int64_t head, int threads = 0);

  // The rows at `positions` (block order, all inside query block `block`).
  // o [rows, D], lse [rows], scales [rows] or null. Rows without keys: o = 0, lse = -inf.
  void rows(std::int64_t block, std::span<const std::int32_t> positions, float* o, float* lse,
            RowScale* scales = nullptr) const;

  // Valid keys that query block `block` keeps.
  std::int64_t keys_of(std::int64_t block) const;

 private:
  struct Tile;  // scratch of one thread
  void load_keys(std::int64_t first, std::int64_t last);
  void attend_chunk(std::int64_t block, std::span<const std::int32_t> positions, Tile& tile,
                    float* o, float* lse, RowScale* scales) const;

  AttendInputs inputs_;
  const Plan& plan_;
  std::int64_t head_;
  std::int64_t stride_;                  // head_dim padded to whole vectors; the padding is zero
  std::vector<std::int64_t> source_;     // valid keys in block order: record token
  std::vector<std::int64_t> offsets_;    // [key blocks + 1] into source_
  std::vector<float> k_, v_;             // [valid keys, stride_]
  std::vector<float> k_norm_, v_norm2_;  // |k|, |v|^2 of the valid keys
};

// Chosen whole query blocks of one head. The rows of the blocks follow one another, each block's in
// block order: o_rows [sum of sizes, D], lse_rows and scales (or null) [sum of sizes].
void reference_query_blocks(const AttendInputs& inputs, const Plan& plan, std::int64_t head,
                            const std::vector<std::int64_t>& blocks, float* o_rows, float* lse_rows,
                            RowScale* scales = nullptr, int threads = 0);

}  // namespace raingauge
