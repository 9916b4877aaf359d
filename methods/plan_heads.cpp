// SPDX-License-Identifier: Apache-2.0
#include "methods/plan_heads.h"

#include <algorithm>

#include "data/error.h"

namespace raingauge {
namespace {

Orders orders_of(const Orders& orders, const std::vector<std::int64_t>& heads) {
  if (orders.rows == 1 || orders.identity) return orders;
  Orders picked = orders;
  picked.rows = static_cast<int>(heads.size());
  picked.index.clear();
  for (const auto head : heads) {
    picked.index.insert(picked.index.end(), orders.row(head), orders.row(head) + orders.tokens);
  }
  return picked;
}

Layout layout_of(const Layout& layout, const std::vector<std::int64_t>& heads) {
  if (layout.rows == 1) return layout;
  Layout picked = layout;
  picked.rows = static_cast<int>(heads.size());
  picked.offsets.clear();
  for (const auto head : heads) {
    picked.offsets.insert(picked.offsets.end(), layout.row(head),
                          layout.row(head) + layout.blocks + 1);
  }
  return picked;
}

BlockLists lists_of(const BlockLists& lists, const std::vector<std::int64_t>& heads) {
  std::vector<KeptRows> kept;
  for (const auto head : heads) {
    KeptRows rows;
    for (std::int64_t i = 0; i < lists.query_blocks; ++i) {
      rows.emplace_back(lists.begin(head, i), lists.begin(head, i) + lists.count(head, i));
    }
    kept.push_back(std::move(rows));
  }
  return make_lists(kept);
}

Orders joined_orders(const std::vector<Plan>& parts, Orders Plan::*member) {
  Orders joined{0, parts.front().tokens, false, {}};
  bool identity = true;
  for (const auto& part : parts) {
    const Orders& orders = part.*member;
    identity = identity && orders.identity;
    for (std::int64_t head = 0; head < part.heads; ++head, ++joined.rows) {
      for (std::int64_t i = 0; i < part.tokens; ++i) joined.index.push_back(orders.token(head, i));
    }
  }
  if (identity) return {1, parts.front().tokens, true, {}};
  return joined;
}

Layout joined_layouts(const std::vector<Plan>& parts, Layout Plan::*member) {
  Layout joined{0, 0, {}};
  for (const auto& part : parts) joined.blocks = std::max(joined.blocks, (part.*member).blocks);
  for (const auto& part : parts) {
    const Layout& layout = part.*member;
    for (std::int64_t head = 0; head < part.heads; ++head, ++joined.rows) {
      joined.offsets.insert(joined.offsets.end(), layout.row(head),
                            layout.row(head) + layout.blocks + 1);
      joined.offsets.insert(joined.offsets.end(),
                            static_cast<std::size_t>(joined.blocks - layout.blocks),
                            static_cast<std::int32_t>(part.tokens));
    }
  }
  return joined;
}

// Rows of heads with fewer query blocks are filled up with empty ones.
BlockLists joined_lists(const std::vector<Plan>& parts, std::int64_t query_blocks,
                        const BlockLists& (*lists_of_part)(const Plan&)) {
  std::vector<KeptRows> kept;
  for (const auto& part : parts) {
    const BlockLists& lists = lists_of_part(part);
    for (std::int64_t head = 0; head < part.heads; ++head) {
      KeptRows rows(static_cast<std::size_t>(query_blocks));
      for (std::int64_t i = 0; i < lists.query_blocks; ++i) {
        rows[static_cast<std::size_t>(i)].assign(lists.begin(head, i),
                                                 lists.begin(head, i) + lists.count(head, i));
      }
      kept.push_back(std::move(rows));
    }
  }
  return make_lists(kept);
}

}  // namespace

Plan join_plans(const std::vector<Plan>& parts) {
  if (parts.empty()) throw Error("join_plans: no plans");
  Plan joined;
  joined.tokens = parts.front().tokens;
  bool forced = true;
  for (const auto& part : parts) {
    if (part.tokens != joined.tokens) throw Error("join_plans: plans of different token counts");
    if (!part.terms.empty())
      throw Unsupported("join_plans: a plan that adds to its output cannot be joined by heads");
    joined.heads += part.heads;
    forced = forced && part.forced.has_value();
  }
  joined.q_order = joined_orders(parts, &Plan::q_order);
  joined.k_order = joined_orders(parts, &Plan::k_order);
  joined.q_blocks = joined_layouts(parts, &Plan::q_blocks);
  joined.k_blocks = joined_layouts(parts, &Plan::k_blocks);
  const auto blocks = joined.q_blocks.blocks;
  joined.lists = joined_lists(
      parts, blocks, +[](const Plan& part) -> const BlockLists& { return part.lists; });
  if (forced) {
    joined.forced = joined_lists(
        parts, blocks, +[](const Plan& part) -> const BlockLists& { return *part.forced; });
  }
  return joined;
}

BlockLists make_lists(const std::vector<KeptRows>& kept) {
  BlockLists lists;
  lists.heads = static_cast<std::int64_t>(kept.size());
  lists.query_blocks = kept.empty() ? 0 : static_cast<std::int64_t>(kept[0].size());
  lists.row_offsets = {0};
  for (const auto& head : kept) {
    for (const auto& row : head) {
      lists.columns.insert(lists.columns.end(), row.begin(), row.end());
      lists.row_offsets.push_back(static_cast<std::int64_t>(lists.columns.size()));
    }
  }
  return lists;
}

Plan select_heads(const Plan& plan, const std::vector<std::int64_t>& heads) {
  Plan picked;
  picked.heads = static_cast<std::int64_t>(heads.size());
  picked.tokens = plan.tokens;
  picked.q_order = orders_of(plan.q_order, heads);
  picked.k_order = orders_of(plan.k_order, heads);
  picked.q_blocks = layout_of(plan.q_blocks, heads);
  picked.k_blocks = layout_of(plan.k_blocks, heads);
  picked.lists = lists_of(plan.lists, heads);
  if (plan.forced) picked.forced = lists_of(*plan.forced, heads);
  picked.windows = plan.windows;
  picked.terms = plan.terms;
  for (const auto& note : plan.notes) {
    PlanNote some{note.name, {}, {}};
    for (const auto head : heads) {
      const auto h = static_cast<std::size_t>(head);
      if (!note.numbers.empty()) some.numbers.push_back(note.numbers.at(h));
      if (!note.words.empty()) some.words.push_back(note.words.at(h));
    }
    picked.notes.push_back(std::move(some));
  }
  picked.nominal_density = plan.nominal_density;
  return picked;
}

}  // namespace raingauge
