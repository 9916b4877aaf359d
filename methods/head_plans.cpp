// SPDX-License-Identifier: Apache-2.0
#include "methods/head_plans.h"

#include <algorithm>
#include <cstddef>

#include "data/error.h"

namespace raingauge {
namespace {

Orders join_orders(const std::vector<HeadPlan>& heads, SharedOrder HeadPlan::*order,
                   std::int64_t tokens) {
  Orders joined;
  joined.tokens = tokens;
  const SharedOrder& first = heads.front().*order;
  const bool shared = std::all_of(heads.begin(), heads.end(),
                                  [&](const HeadPlan& head) { return head.*order == first; });
  if (shared && first == nullptr) return joined;
  joined.identity = false;
  joined.rows = shared ? 1 : static_cast<int>(heads.size());
  for (const auto& head : heads) {
    if (head.*order == nullptr) {
      for (std::int64_t i = 0; i < tokens; ++i)
        joined.index.push_back(static_cast<std::int32_t>(i));
    } else {
      joined.index.insert(joined.index.end(), (head.*order)->begin(), (head.*order)->end());
    }
    if (shared) break;
  }
  return joined;
}

Layout join_layouts(const std::vector<HeadPlan>& heads,
                    std::vector<std::int32_t> HeadPlan::*offsets) {
  Layout joined;
  std::size_t longest = 0;
  for (const auto& head : heads) longest = std::max(longest, (head.*offsets).size());
  const auto& first = heads.front().*offsets;
  const bool shared = std::all_of(heads.begin(), heads.end(),
                                  [&](const HeadPlan& head) { return head.*offsets == first; });
  joined.blocks = static_cast<std::int64_t>(longest) - 1;
  joined.rows = shared ? 1 : static_cast<int>(heads.size());
  for (const auto& head : heads) {
    const auto& own = head.*offsets;
    joined.offsets.insert(joined.offsets.end(), own.begin(), own.end());
    joined.offsets.insert(joined.offsets.end(), longest - own.size(), own.back());
    if (shared) break;
  }
  return joined;
}

BlockLists join_lists(const std::vector<HeadPlan>& heads, KeptRows HeadPlan::*rows,
                      std::int64_t query_blocks) {
  std::vector<KeptRows> joined;
  for (const auto& head : heads) {
    joined.push_back(head.*rows);
    joined.back().resize(static_cast<std::size_t>(query_blocks));
  }
  return make_lists(joined);
}

}  // namespace

Plan join_heads(const std::vector<HeadPlan>& heads, std::int64_t tokens) {
  Plan plan;
  plan.heads = static_cast<std::int64_t>(heads.size());
  plan.tokens = tokens;
  plan.q_order = join_orders(heads, &HeadPlan::q_order, tokens);
  plan.k_order = join_orders(heads, &HeadPlan::k_order, tokens);
  plan.q_blocks = join_layouts(heads, &HeadPlan::q_offsets);
  plan.k_blocks = join_layouts(heads, &HeadPlan::k_offsets);
  plan.lists = join_lists(heads, &HeadPlan::kept, plan.q_blocks.blocks);
  plan.forced = join_lists(heads, &HeadPlan::forced, plan.q_blocks.blocks);
  return plan;
}

const Segment& only_video(const Segments& segments, const std::string& method) {
  const Segment* found = nullptr;
  for (const auto& segment : segments) {
    if (!segment.visual()) continue;
    if (found != nullptr || segment.frames < 2) {
      throw Unsupported(method +
                        " is defined on one video of two or more frames; this record has " +
                        describe(segments));
    }
    found = &segment;
  }
  if (found == nullptr) throw Unsupported(method + ": no visual tokens in this record");
  return *found;
}

std::vector<std::int32_t> tokens_of(const Segments& segments, Role role) {
  std::vector<std::int32_t> tokens;
  for (const auto& segment : segments) {
    if (segment.role != role) continue;
    for (auto token = segment.start; token < segment.end(); ++token) {
      tokens.push_back(static_cast<std::int32_t>(token));
    }
  }
  return tokens;
}

}  // namespace raingauge
