// SPDX-License-Identifier: Apache-2.0
// How many valid keys lie in each key block of a plan: what checks and densities both count.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"

namespace raingauge {

// Valid keys of every key block of one head: [k_blocks.blocks].
inline std::vector<std::int64_t> valid_keys(const Plan& plan, const std::uint8_t* key_valid,
                                            std::int64_t head) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(plan.k_blocks.blocks));
  for (std::int64_t block = 0; block < plan.k_blocks.blocks; ++block) {
    const std::int32_t begin = plan.k_blocks.begin(head, block);
    const std::int32_t end = plan.k_blocks.end(head, block);
    if (key_valid == nullptr) {
      counts[static_cast<std::size_t>(block)] = end - begin;
      continue;
    }
    std::int64_t valid = 0;
    for (std::int32_t position = begin; position < end; ++position) {
      valid += key_valid[plan.k_order.token(head, position)] != 0 ? 1 : 0;
    }
    counts[static_cast<std::size_t>(block)] = valid;
  }
  return counts;
}

// Whether every head has the same valid keys per block, so that they are counted once.
inline bool keys_shared(const Plan& plan, const std::uint8_t* key_valid) {
  const bool order_shared = key_valid == nullptr || plan.k_order.identity || plan.k_order.rows == 1;
  return plan.k_blocks.rows == 1 && order_shared;
}

}  // namespace raingauge
