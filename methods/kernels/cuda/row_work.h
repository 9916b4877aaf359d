// SPDX-License-Identifier: Apache-2.0
// Plans as the row evaluator wants them: sampled rows by query block, valid keys by key block, work items.
// Pure host code, in every build.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "methods/kernels/cuda/row_walk.h"
#include "methods/kernels/row_evaluator.h"

namespace raingauge {

// Orders and layouts of one head, with the rows that are judged. Dense attention is one query block
// that sees one key block.
struct RowFrame {
  std::vector<std::int32_t> key_tokens;  // valid keys in block order
  std::vector<std::int32_t> first_key;   // [key blocks + 1]
  std::vector<std::int32_t> row_slots;   // slots of the sample, by query block
  std::vector<std::int32_t> first_row;   // [query blocks + 1]
};

// `plan` null: dense. key_valid [tokens] in record order or null.
RowFrame make_row_frame(const Plan* plan, std::int64_t head, const RowSample& sample,
                        std::int64_t tokens, const std::uint8_t* key_valid);

// Work of many plans of one frame.
struct RowWork {
  std::vector<cuda_walk::KeyRun> runs;
  std::vector<cuda_walk::RowItem> items;
};

// Appends one plan: the lists of `lists_head` (null: the whole of every row's keys, for the dense frame) on
// head `head` of the tensors, results from place `out` on.
void append_row_work(const RowFrame& frame, const BlockLists* lists, std::int64_t lists_head,
                     std::int64_t head, std::int64_t out, RowWork& work);
// The run beyond the last one, which is read and never used; items with the longest streams first.
void finish_row_work(RowWork& work);

// cuda_walk::k...Key of every token: frame 0 of the first video segment; every text token.
std::vector<std::uint8_t> classify_key_tokens(const RecordInfo& info, std::int64_t tokens);

}  // namespace raingauge
