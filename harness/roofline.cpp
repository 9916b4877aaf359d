// SPDX-License-Identifier: Apache-2.0
#include "harness/roofline.h"

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <vector>

namespace raingauge {
namespace {

// Valid keys of every key block of one head.
std::vector<std::int64_t> keys_of_blocks(const Plan& plan, const RecordView& record,
                                         std::int64_t head) {
  std::vector<std::int64_t> keys(static_cast<std::size_t>(plan.k_blocks.blocks), 0);
  for (std::int64_t b = 0; b < plan.k_blocks.blocks; ++b) {
    auto& count = keys[static_cast<std::size_t>(b)];
    if (record.key_valid == nullptr) {
      count = plan.k_blocks.size(head, b);
      continue;
    }
    for (auto p = plan.k_blocks.begin(head, b); p < plan.k_blocks.end(head, b); ++p) {
      count += record.key_valid[plan.k_order.token(head, p)] != 0 ? 1 : 0;
    }
  }
  return keys;
}

}  // namespace

AttentionWork count_work(const Plan& plan, const RecordView& record) {
  double pairs = 0.0;
  double streamed_keys = 0.0;
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    const auto keys = keys_of_blocks(plan, record, head);
    for (std::int64_t b = 0; b < plan.q_blocks.blocks; ++b) {
      std::int64_t kept = 0;
      const std::int32_t* columns = plan.lists.begin(head, b);
      for (std::int64_t c = 0; c < plan.lists.count(head, b); ++c) {
        kept += keys[static_cast<std::size_t>(columns[c])];
      }
      pairs += static_cast<double>(kept) * static_cast<double>(plan.q_blocks.size(head, b));
      streamed_keys += static_cast<double>(kept);
    }
  }
  const auto dim = static_cast<double>(record.head_dim());
  const auto rows = static_cast<double>(record.heads() * record.tokens());
  const auto element = static_cast<double>(size_of(record.q.dtype));
  AttentionWork work;
  work.flops = 4.0 * dim * pairs;
  work.bytes = element * dim * (rows + 2.0 * streamed_keys) + 4.0 * rows * (dim + 1.0);
  return work;
}

double load_average_1() {
  double load = 0.0;
  return getloadavg(&load, 1) == 1 ? load : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace raingauge
