// SPDX-License-Identifier: Apache-2.0
// The fp32 judge: exact attention of chosen query rows under a plan, or over all keys. Dense and
// sparse results come from the same arithmetic, so recall = exp(lse_sparse - lse_dense) is exact to
// rounding, and no N x N tensor ever exists.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"
#include "data/record.h"

namespace raingauge {

// Query tokens judged in one head: the same tokens for every arm of a record.
struct RowSample {
  std::vector<std::int32_t> tokens;  // record token indices, ascending
};

// Results for the rows of one head, in the sample's order.
struct RowResults {
  std::int64_t rows = 0;
  std::int64_t head_dim = 0;
  std::vector<float> o;                  // [rows, head_dim]
  std::vector<double> lse;               // [rows], natural log
  std::vector<double> mass_first_frame;  // [rows]: share of this row's softmax on frame 0 of video
  std::vector<double> mass_text;         // [rows]: … on text tokens
};

// Scores are fp32 dot products of the stored values times `scale`; sums over keys are accumulated in
// blocks with fp64 carries. On matrix tiles (AMX, bf16 records) a weight meets V as two bf16 parts, off by
// at most 2^-18 of itself; lse and masses do not depend on that. `plan` null: every valid key. Throws NotFinite when a row's result is
// not finite (naming head and token). `threads` 0 = all.
RowResults evaluate_rows(const RecordView& record, std::int64_t head, const RowSample& sample,
                         const Plan* plan, int threads = 0);

// The exact mass of every block pair of one head: mass[i * key_blocks + j] = mean over the valid
// rows of query block i of the dense softmax mass inside key block j (rows sum to 1; empty query
// blocks are 0). One streaming pass over QK^T, fp32. Orders and layout come from `plan`; its lists
// are not read.
std::vector<float> block_mass(const RecordView& record, std::int64_t head, const Plan& plan,
                              int threads = 0);

}  // namespace raingauge
