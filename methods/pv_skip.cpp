// SPDX-License-Identifier: Apache-2.0
#include "methods/pv_skip.h"

#include <algorithm>
#include <cmath>

namespace raingauge {
namespace {

// Largest score of every loaded query row over the keys of one block.
std::vector<float> row_maxima(BlockLogits& logits, std::int64_t key_block,
                              std::vector<float>& scores) {
  const auto slots = logits.slots(key_block);
  scores.resize(static_cast<std::size_t>(logits.rows() * slots));
  logits.scores(key_block, scores.data());
  std::vector<float> maxima(static_cast<std::size_t>(logits.rows()), -INFINITY);
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    if (!logits.holds_key(key_block, slot)) continue;
    for (std::int64_t r = 0; r < logits.rows(); ++r) {
      auto& most = maxima[static_cast<std::size_t>(r)];
      most = std::max(most, scores[static_cast<std::size_t>(r * slots + slot)]);
    }
  }
  return maxima;
}

}  // namespace

void skip_pv(const RecordView& record, std::int64_t head, const PlanBlocks& blocks, double bits,
             KeptRows& kept) {
  constexpr double kLog2E = 1.44269504088896340736;
  BlockLogits logits(record, head, blocks, record.info->scale * kLog2E);
  std::vector<float> scores;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    auto& list = kept[i];
    if (list.size() < 3) continue;
    logits.load_queries(static_cast<std::int64_t>(i));
    std::vector<float> running = row_maxima(logits, list.front(), scores);
    std::vector<std::int32_t> left = {list.front()};
    for (std::size_t n = 1; n < list.size(); ++n) {
      const auto here = row_maxima(logits, list[n], scores);
      double gap = -INFINITY;
      for (std::size_t r = 0; r < running.size(); ++r) {
        gap = std::max(gap, double{here[r]} - double{running[r]});
        running[r] = std::max(running[r], here[r]);
      }
      const bool last = n + 1 == list.size();
      if (last || !(gap + bits <= 0.0)) left.push_back(list[n]);
    }
    list = std::move(left);
  }
}

}  // namespace raingauge
