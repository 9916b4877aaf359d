// SPDX-License-Identifier: Apache-2.0
// Is a plan well formed? Every invariant that kernels and the row evaluator rely on is checked
// here, in time linear in the plan's size, and the first breach is named by head, block, position.
#include <algorithm>
#include <limits>
#include <string>

#include "data/error.h"
#include "data/plan.h"
#include "data/plan_keys.h"

namespace raingauge {
namespace {

constexpr std::int64_t kMaxTokens = std::numeric_limits<std::int32_t>::max();

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

std::string number(std::int64_t value) { return std::to_string(value); }

// Rows that say the same for all heads are named without a head.
std::string place(const char* what, int rows, std::int64_t row) {
  return rows == 1 ? std::string(what) : std::string(what) + " of head " + number(row);
}

void check_rows(const char* what, int rows, std::int64_t heads) {
  if (rows == 1 || rows == heads) return;
  throw InvalidPlan(std::string(what) + ": " + number(rows) + " rows; allowed are 1 (shared) or " +
                    number(heads) + " (one a head)");
}

void check_orders(const Orders& orders, const Plan& plan, const char* what) {
  check_rows(what, orders.rows, plan.heads);
  if (orders.tokens != plan.tokens) {
    throw InvalidPlan(std::string(what) + ": orders " + number(orders.tokens) +
                      " tokens, the plan has " + number(plan.tokens));
  }
  if (orders.identity) {
    if (orders.index.empty()) return;
    throw InvalidPlan(std::string(what) + ": an identity order must hold no indices");
  }
  if (orders.index.size() != index_of(orders.rows * plan.tokens)) {
    throw InvalidPlan(std::string(what) + ": " + std::to_string(orders.index.size()) +
                      " indices; needed are rows x tokens = " + number(orders.rows * plan.tokens));
  }
  std::vector<std::uint8_t> seen(index_of(plan.tokens));
  for (std::int64_t row = 0; row < orders.rows; ++row) {
    std::fill(seen.begin(), seen.end(), std::uint8_t{0});
    const std::int32_t* index = orders.row(row);
    for (std::int64_t position = 0; position < plan.tokens; ++position) {
      const std::int64_t token = index[position];
      const bool in_range = token >= 0 && token < plan.tokens;
      if (!in_range || seen[index_of(token)] != 0) {
        throw InvalidPlan(place(what, orders.rows, row) + " is no permutation: position " +
                          number(position) + " holds token " + number(token) +
                          (in_range ? ", which an earlier position holds already"
                                    : ", allowed are 0 to " + number(plan.tokens - 1)));
      }
      seen[index_of(token)] = 1;
    }
  }
}

void check_layout(const Layout& layout, const Plan& plan, const char* what) {
  check_rows(what, layout.rows, plan.heads);
  if (layout.blocks < 1 || layout.blocks > kMaxTokens) {
    throw InvalidPlan(std::string(what) + ": " + number(layout.blocks) +
                      " blocks; at least one is needed");
  }
  if (layout.offsets.size() != index_of(layout.rows * (layout.blocks + 1))) {
    throw InvalidPlan(
        std::string(what) + ": " + std::to_string(layout.offsets.size()) +
        " offsets; needed are rows x (blocks + 1) = " + number(layout.rows * (layout.blocks + 1)));
  }
  for (std::int64_t row = 0; row < layout.rows; ++row) {
    const std::int32_t* offsets = layout.row(row);
    if (offsets[0] != 0 || offsets[layout.blocks] != plan.tokens) {
      throw InvalidPlan(place(what, layout.rows, row) + ": offsets run from " + number(offsets[0]) +
                        " to " + number(offsets[layout.blocks]) +
                        "; they must run from 0 to the token count " + number(plan.tokens));
    }
    for (std::int64_t block = 0; block < layout.blocks; ++block) {
      if (offsets[block + 1] >= offsets[block]) continue;
      throw InvalidPlan(place(what, layout.rows, row) + ": block " + number(block) +
                        " starts at position " + number(offsets[block]) + " and ends at " +
                        number(offsets[block + 1]) + "; offsets must never fall");
    }
  }
}

// Shape of the CSR arrays, so that every later access is inside them.
void check_list_shape(const BlockLists& lists, const Plan& plan, const char* what) {
  if (lists.heads != plan.heads || lists.query_blocks != plan.q_blocks.blocks) {
    throw InvalidPlan(std::string(what) + ": lists for " + number(lists.heads) + " heads x " +
                      number(lists.query_blocks) + " query blocks, the plan has " +
                      number(plan.heads) + " x " + number(plan.q_blocks.blocks));
  }
  const std::size_t rows = index_of(lists.heads * lists.query_blocks);
  if (lists.row_offsets.size() != rows + 1) {
    throw InvalidPlan(
        std::string(what) + ": " + std::to_string(lists.row_offsets.size()) +
        " row offsets; needed are heads x query blocks + 1 = " + std::to_string(rows + 1));
  }
  const auto columns = static_cast<std::int64_t>(lists.columns.size());
  if (lists.row_offsets.front() != 0 || lists.row_offsets.back() != columns) {
    throw InvalidPlan(std::string(what) + ": row offsets run from " +
                      number(lists.row_offsets.front()) + " to " +
                      number(lists.row_offsets.back()) +
                      "; they must run from 0 to the number of columns " + number(columns));
  }
  for (std::size_t row = 0; row < rows; ++row) {
    if (lists.row_offsets[row + 1] >= lists.row_offsets[row]) continue;
    const auto flat = static_cast<std::int64_t>(row);
    throw InvalidPlan(std::string(what) + ": head " + number(flat / lists.query_blocks) +
                      ", query block " + number(flat % lists.query_blocks) +
                      ": row offsets fall from " + number(lists.row_offsets[row]) + " to " +
                      number(lists.row_offsets[row + 1]));
  }
}

void check_list_row(const BlockLists& lists, std::int64_t key_blocks, std::int64_t head,
                    std::int64_t block, const char* what) {
  const std::int32_t* columns = lists.begin(head, block);
  const std::int64_t count = lists.count(head, block);
  std::int64_t previous = -1;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t column = columns[i];
    if (column > previous && column < key_blocks) {
      previous = column;
      continue;
    }
    const bool in_range = column >= 0 && column < key_blocks;
    throw InvalidPlan(
        std::string(what) + ": head " + number(head) + ", query block " + number(block) +
        ": key block " + number(column) + " at place " + number(i) +
        (in_range ? " follows " + number(previous) + "; key blocks must ascend without duplicates"
                  : "; allowed are 0 to " + number(key_blocks - 1)));
  }
}

void check_lists(const BlockLists& lists, const Plan& plan, const char* what) {
  check_list_shape(lists, plan, what);
  for (std::int64_t head = 0; head < lists.heads; ++head) {
    for (std::int64_t block = 0; block < lists.query_blocks; ++block) {
      check_list_row(lists, plan.k_blocks.blocks, head, block, what);
    }
  }
}

void check_rows_see_keys(const Plan& plan, const std::uint8_t* key_valid) {
  std::vector<std::int64_t> keys;
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    if (head == 0 || !keys_shared(plan, key_valid)) keys = valid_keys(plan, key_valid, head);
    for (std::int64_t block = 0; block < plan.q_blocks.blocks; ++block) {
      if (plan.q_blocks.size(head, block) == 0) continue;
      const std::int32_t* columns = plan.lists.begin(head, block);
      const std::int64_t count = plan.lists.count(head, block);
      const bool sees = std::any_of(columns, columns + count, [&](std::int32_t column) {
        return keys[static_cast<std::size_t>(column)] > 0;
      });
      if (sees) continue;
      throw InvalidPlan("head " + number(head) + ", query block " + number(block) + " (" +
                        number(plan.q_blocks.size(head, block)) + " queries) keeps " +
                        number(count) + " key blocks with no valid key in them; every query " +
                        "needs at least one valid key");
    }
  }
}

// `forced` is the part of `lists` kept whatever the score, so it must be a subset.
void check_forced(const Plan& plan) {
  check_lists(*plan.forced, plan, "forced lists");
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    for (std::int64_t block = 0; block < plan.q_blocks.blocks; ++block) {
      const std::int32_t* kept = plan.lists.begin(head, block);
      const std::int32_t* forced = plan.forced->begin(head, block);
      if (std::includes(kept, kept + plan.lists.count(head, block), forced,
                        forced + plan.forced->count(head, block))) {
        continue;
      }
      throw InvalidPlan("head " + number(head) + ", query block " + number(block) +
                        ": a forced key block is missing from the kept ones");
    }
  }
}

}  // namespace

void check_plan(const Plan& plan, const std::uint8_t* key_valid) {
  if (plan.heads < 1 || plan.tokens < 1 || plan.tokens > kMaxTokens) {
    throw InvalidPlan("plan for " + number(plan.heads) + " heads and " + number(plan.tokens) +
                      " tokens; allowed are 1 or more heads and 1 to " + number(kMaxTokens) +
                      " tokens");
  }
  check_orders(plan.q_order, plan, "query order");
  check_orders(plan.k_order, plan, "key order");
  check_layout(plan.q_blocks, plan, "query blocks");
  check_layout(plan.k_blocks, plan, "key blocks");
  check_lists(plan.lists, plan, "kept lists");
  check_rows_see_keys(plan, key_valid);
  if (plan.forced) check_forced(plan);
}

}  // namespace raingauge
