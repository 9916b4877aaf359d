// SPDX-License-Identifier: Apache-2.0
#include "methods/paro_axes.h"

#include <algorithm>
#include <cmath>

#include "methods/arrangement.h"
#include "methods/block_logits.h"

namespace raingauge {
namespace {

bool is_video(BlockRole role) {
  return role == BlockRole::visual || role == BlockRole::pinned_frame;
}

// Softmax rows of one query block over all keys, block by block.
class ProbeTile {
 public:
  ProbeTile(BlockLogits& logits, std::int64_t key_blocks) : logits_(logits), begin_{0} {
    for (std::int64_t j = 0; j < key_blocks; ++j) begin_.push_back(begin_.back() + logits.slots(j));
  }

  void load(std::int64_t query_block) {
    logits_.load_queries(query_block);
    values_.resize(static_cast<std::size_t>(logits_.rows() * begin_.back()));
    std::vector<double> top(static_cast<std::size_t>(logits_.rows()), -INFINITY);
    for (std::int64_t j = 0; j < blocks(); ++j) {
      logits_.scores(j, block(j));
      for_keys(j, [&](std::int64_t r, float value) {
        auto& most = top[static_cast<std::size_t>(r)];
        most = std::max(most, double{value});
      });
    }
    std::vector<double> sum(top.size(), 0.0);
    for (std::int64_t j = 0; j < blocks(); ++j) {
      for_keys(j, [&](std::int64_t r, float& value) {
        value = std::exp(value - static_cast<float>(top[static_cast<std::size_t>(r)]));
        sum[static_cast<std::size_t>(r)] += value;
      });
    }
    for (std::int64_t j = 0; j < blocks(); ++j) {
      for_keys(j, [&](std::int64_t r, float& value) {
        value = static_cast<float>(value / sum[static_cast<std::size_t>(r)]);
      });
    }
  }

  // Calls fn(row, probability) for every entry of a key block.
  template <typename Fn>
  void for_keys(std::int64_t j, Fn fn) {
    const auto slots = logits_.slots(j);
    for (std::int64_t s = 0; s < slots; ++s) {
      if (!logits_.holds_key(j, s)) continue;
      for (std::int64_t r = 0; r < logits_.rows(); ++r) fn(r, block(j)[r * slots + s]);
    }
  }

 private:
  std::int64_t blocks() const { return static_cast<std::int64_t>(begin_.size()) - 1; }
  float* block(std::int64_t j) {
    return values_.data() + logits_.rows() * begin_[static_cast<std::size_t>(j)];
  }

  BlockLogits& logits_;
  std::vector<std::int64_t> begin_;  // slots before each key block
  std::vector<float> values_;
};

void add_block(ProbeTile& tile, std::int64_t j, const AxisProbe& probe, AxisStatistics& sums) {
  double largest = 0.0, total = 0.0, small = 0.0, count = 0.0;
  tile.for_keys(j, [&](std::int64_t, float p) {
    largest = std::max(largest, double{p});
    total += p;
    small += double{p} < probe.epsilon ? 1.0 : 0.0;
    count += 1.0;
  });
  sums.near_empty += small >= probe.share * count ? 1.0 : 0.0;
  sums.peak_over_mean += total > 0.0 ? largest * count / total : 1.0;
}

AxisStatistics statistics_of(const RecordView& record, std::int64_t head, const char* order,
                             const AxisProbe& probe) {
  ArrangementSpec spec;
  spec.order = {{"name", order}, {"params", nlohmann::json::object()}};
  spec.frame0 = Frame0::in_place;
  spec.block_q = spec.block_k = probe.block;
  const Arrangement arrangement = arrange(record.info->segments, record.tokens(), spec);
  BlockLogits logits(
      record, head,
      {arrangement.order, arrangement.order, arrangement.q_blocks, arrangement.k_blocks},
      record.info->scale);
  ProbeTile tile(logits, arrangement.k_blocks.blocks);
  AxisStatistics sums;
  double blocks = 0.0;
  for (std::int64_t i = 0; i < arrangement.q_blocks.blocks; i += probe.stride) {
    if (!is_video(arrangement.q_roles[static_cast<std::size_t>(i)])) continue;
    tile.load(i);
    for (std::int64_t j = 0; j < arrangement.k_blocks.blocks; ++j) {
      if (!is_video(arrangement.k_roles[static_cast<std::size_t>(j)])) continue;
      add_block(tile, j, probe, sums);
      blocks += 1.0;
    }
  }
  if (blocks > 0.0) {
    sums.near_empty /= blocks;
    sums.peak_over_mean /= blocks;
  }
  return sums;
}

}  // namespace

AxisTable axis_statistics(const RecordView& record, std::int64_t head, const AxisProbe& probe) {
  AxisTable table;
  for (std::size_t i = 0; i < kAxisOrders; ++i) {
    table[i] = statistics_of(record, head, kAxisOrderNames[i], probe);
  }
  return table;
}

std::size_t choose_axis_order(const AxisTable& table, double alpha) {
  double full = 0.0, peak = 0.0;
  for (const auto& order : table) {
    full += 1.0 - order.near_empty;
    peak += order.peak_over_mean;
  }
  std::size_t best = 0;
  double least = INFINITY;
  for (std::size_t i = 0; i < kAxisOrders; ++i) {
    const double sparse = full > 0.0 ? (1.0 - table[i].near_empty) / full : 0.0;
    const double quant = peak > 0.0 ? table[i].peak_over_mean / peak : 0.0;
    const double score = alpha * sparse + (1.0 - alpha) * quant;
    if (score < least) {
      least = score;
      best = i;
    }
  }
  return best;
}

}  // namespace raingauge
