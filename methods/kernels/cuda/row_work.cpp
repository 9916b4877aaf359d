// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/cuda/row_work.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace raingauge {
namespace {

using cuda_walk::KeyRun;
using cuda_walk::RowItem;

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

RowFrame make_dense_frame(const RowSample& sample, std::int64_t tokens,
                          const std::uint8_t* key_valid) {
  RowFrame frame;
  for (std::int32_t token = 0; token < tokens; ++token) {
    if (key_valid == nullptr || key_valid[token] != 0) frame.key_tokens.push_back(token);
  }
  frame.first_key = {0, static_cast<std::int32_t>(frame.key_tokens.size())};
  frame.row_slots.resize(sample.tokens.size());
  std::iota(frame.row_slots.begin(), frame.row_slots.end(), 0);
  frame.first_row = {0, static_cast<std::int32_t>(frame.row_slots.size())};
  return frame;
}

std::vector<std::int32_t> slots_of_tokens(const RowSample& sample, std::int64_t tokens) {
  std::vector<std::int32_t> slots(index_of(tokens), -1);
  for (std::size_t slot = 0; slot < sample.tokens.size(); ++slot) {
    slots[index_of(sample.tokens[slot])] = static_cast<std::int32_t>(slot);
  }
  return slots;
}

// Runs of one query block; neighbouring key blocks make one. Returns the stream's length.
std::int32_t append_runs(const RowFrame& frame, const std::int32_t* columns, std::int64_t count,
                         std::vector<KeyRun>& runs) {
  const std::size_t first = runs.size();
  std::int32_t keys = 0;
  for (std::int64_t c = 0; c < count; ++c) {
    const std::int32_t begin = frame.first_key[index_of(columns[c])];
    const std::int32_t end = frame.first_key[index_of(columns[c]) + 1];
    if (begin == end) continue;
    const std::int32_t shift = begin - keys;
    keys += end - begin;
    if (runs.size() > first && runs.back().shift == shift) {
      runs.back().stream_end = keys;
    } else {
      runs.push_back({shift, keys});
    }
  }
  return keys;
}

}  // namespace

RowFrame make_row_frame(const Plan* plan, std::int64_t head, const RowSample& sample,
                        std::int64_t tokens, const std::uint8_t* key_valid) {
  if (plan == nullptr) return make_dense_frame(sample, tokens, key_valid);
  RowFrame frame;
  frame.first_key.push_back(0);
  for (std::int64_t b = 0; b < plan->k_blocks.blocks; ++b) {
    for (auto p = plan->k_blocks.begin(head, b); p < plan->k_blocks.end(head, b); ++p) {
      const std::int32_t token = plan->k_order.token(head, p);
      if (key_valid == nullptr || key_valid[token] != 0) frame.key_tokens.push_back(token);
    }
    frame.first_key.push_back(static_cast<std::int32_t>(frame.key_tokens.size()));
  }
  const std::vector<std::int32_t> slots = slots_of_tokens(sample, tokens);
  frame.first_row.push_back(0);
  for (std::int64_t b = 0; b < plan->q_blocks.blocks; ++b) {
    for (auto p = plan->q_blocks.begin(head, b); p < plan->q_blocks.end(head, b); ++p) {
      const std::int32_t slot = slots[index_of(plan->q_order.token(head, p))];
      if (slot >= 0) frame.row_slots.push_back(slot);
    }
    frame.first_row.push_back(static_cast<std::int32_t>(frame.row_slots.size()));
  }
  return frame;
}

void append_row_work(const RowFrame& frame, const BlockLists* lists, std::int64_t lists_head,
                     std::int64_t head, std::int64_t out, RowWork& work) {
  static constexpr std::int32_t kWhole = 0;
  for (std::size_t b = 0; b + 1 < frame.first_row.size(); ++b) {
    const std::int32_t end = frame.first_row[b + 1];
    if (frame.first_row[b] == end) continue;
    const auto block = static_cast<std::int64_t>(b);
    const auto first_run = static_cast<std::int64_t>(work.runs.size());
    const std::int32_t keys = lists == nullptr
                                  ? append_runs(frame, &kWhole, 1, work.runs)
                                  : append_runs(frame, lists->begin(lists_head, block),
                                                lists->count(lists_head, block), work.runs);
    for (std::int32_t row = frame.first_row[b]; row < end; row += cuda_walk::kRowTile) {
      work.items.push_back({first_run, 0, row, out, static_cast<std::int32_t>(head),
                            std::min(cuda_walk::kRowTile, end - row), keys});
    }
  }
}

void finish_row_work(RowWork& work) {
  work.runs.push_back({0, 0});
  std::stable_sort(work.items.begin(), work.items.end(),
                   [](const RowItem& a, const RowItem& b) { return a.keys > b.keys; });
}

std::vector<std::uint8_t> classify_key_tokens(const RecordInfo& info, std::int64_t tokens) {
  std::vector<std::uint8_t> classes(index_of(tokens), cuda_walk::kPlainKey);
  bool first_video = true;
  for (const Segment& segment : info.segments) {
    const auto first = classes.begin() + segment.start;
    if (segment.role == Role::text) {
      std::fill_n(first, segment.length, cuda_walk::kTextKey);
    } else if (segment.role == Role::video && first_video) {
      first_video = false;
      std::fill_n(first, std::min(segment.frame_size(), segment.length), cuda_walk::kFirstFrameKey);
    }
  }
  return classes;
}

}  // namespace raingauge
