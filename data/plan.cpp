// SPDX-License-Identifier: Apache-2.0
// How many (q, k) pairs does a plan keep, and are two plans the same? Both answers are counted from
// the explicit orders, offsets and lists, in time linear in their size.
#include "data/plan.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "data/error.h"
#include "data/plan_keys.h"

namespace raingauge {
namespace {

constexpr std::int64_t kMaxTokens = std::numeric_limits<std::int32_t>::max();

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

// (q, k) pairs with a valid key, and pairs of non-empty blocks.
struct Counts {
  std::int64_t pairs = 0;
  std::int64_t blocks = 0;
};

Counts count_kept(const Plan& plan, std::int64_t head, const std::vector<std::int64_t>& keys) {
  Counts kept;
  for (std::int64_t block = 0; block < plan.q_blocks.blocks; ++block) {
    const std::int64_t queries = plan.q_blocks.size(head, block);
    if (queries == 0) continue;
    const std::int32_t* columns = plan.lists.begin(head, block);
    const std::int64_t count = plan.lists.count(head, block);
    for (std::int64_t i = 0; i < count; ++i) {
      kept.pairs += queries * keys[static_cast<std::size_t>(columns[i])];
      kept.blocks += plan.k_blocks.size(head, columns[i]) > 0 ? 1 : 0;
    }
  }
  return kept;
}

std::int64_t count_filled(const Layout& layout, std::int64_t head) {
  std::int64_t filled = 0;
  for (std::int64_t block = 0; block < layout.blocks; ++block) {
    filled += layout.size(head, block) > 0 ? 1 : 0;
  }
  return filled;
}

Counts count_all(const Plan& plan, std::int64_t head, const std::vector<std::int64_t>& keys) {
  const std::int64_t valid = std::accumulate(keys.begin(), keys.end(), std::int64_t{0});
  return {plan.tokens * valid,
          count_filled(plan.q_blocks, head) * count_filled(plan.k_blocks, head)};
}

class Fnv1a {
 public:
  void add(std::uint64_t value, int bytes = 8) {
    for (int i = 0; i < bytes; ++i) {
      hash_ = (hash_ ^ (value & 0xffU)) * 0x100000001b3ULL;
      value >>= 8;
    }
  }
  void add(std::int64_t value) { add(static_cast<std::uint64_t>(value)); }
  void add(std::int32_t value) { add(std::uint64_t{static_cast<std::uint32_t>(value)}, 4); }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

std::uint64_t hash_order(const Orders& orders, std::int64_t head) {
  Fnv1a hash;
  for (std::int64_t i = 0; i < orders.tokens; ++i) hash.add(orders.token(head, i));
  return hash.value();
}

std::uint64_t hash_layout(const Layout& layout, std::int64_t head) {
  Fnv1a hash;
  const std::int32_t* offsets = layout.row(head);
  for (std::int64_t i = 0; i <= layout.blocks; ++i) hash.add(offsets[i]);
  return hash.value();
}

// A row shared by all heads hashes as if every head had its own copy: what counts is the decision,
// not how it is stored.
template <typename Rows, typename HashRow>
void add_rows(Fnv1a& hash, const Rows& rows, bool shared, std::int64_t heads, HashRow hash_row) {
  std::uint64_t row_hash = 0;
  for (std::int64_t head = 0; head < heads; ++head) {
    if (head == 0 || !shared) row_hash = hash_row(rows, head);
    hash.add(row_hash);
  }
}

}  // namespace

Layout uniform_layout(std::int64_t tokens, int block) {
  if (tokens < 1 || tokens > kMaxTokens || block < 1) {
    throw InvalidPlan("a layout of blocks of " + std::to_string(block) + " over " +
                      std::to_string(tokens) +
                      " tokens; allowed are blocks of 1 or more over 1 to " +
                      std::to_string(kMaxTokens) + " tokens");
  }
  Layout layout;
  layout.blocks = (tokens + block - 1) / block;
  layout.offsets.resize(index_of(layout.blocks + 1));
  for (std::int64_t i = 0; i <= layout.blocks; ++i) {
    layout.offsets[index_of(i)] = static_cast<std::int32_t>(std::min(i * block, tokens));
  }
  return layout;
}

Plan dense_plan(std::int64_t heads, std::int64_t tokens, int block) {
  if (heads < 1)
    throw InvalidPlan("a plan for " + std::to_string(heads) + " heads; at least 1 is needed");
  Plan plan;
  plan.heads = heads;
  plan.tokens = tokens;
  plan.q_order.tokens = plan.k_order.tokens = tokens;
  plan.q_blocks = plan.k_blocks = uniform_layout(tokens, block);
  const std::int64_t blocks = plan.k_blocks.blocks;
  plan.lists.heads = heads;
  plan.lists.query_blocks = blocks;
  plan.lists.row_offsets.resize(index_of(heads * blocks + 1));
  plan.lists.columns.resize(index_of(heads * blocks * blocks));
  for (std::int64_t row = 0; row < heads * blocks; ++row) {
    plan.lists.row_offsets[index_of(row + 1)] = (row + 1) * blocks;
    std::iota(plan.lists.columns.data() + row * blocks,
              plan.lists.columns.data() + (row + 1) * blocks, 0);
  }
  return plan;
}

bool keeps_every_pair(const Plan& plan) {
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    for (std::int64_t block = 0; block < plan.q_blocks.blocks; ++block) {
      if (plan.q_blocks.size(head, block) == 0) continue;
      const std::int32_t* columns = plan.lists.begin(head, block);
      std::int64_t keys = 0;
      for (std::int64_t c = 0; c < plan.lists.count(head, block); ++c)
        keys += plan.k_blocks.size(head, columns[c]);
      if (keys != plan.tokens) return false;
    }
  }
  return true;
}

Density measure_density(const Plan& plan, const std::uint8_t* key_valid) {
  Density density;
  std::vector<std::int64_t> keys;
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    if (head == 0 || !keys_shared(plan, key_valid)) keys = valid_keys(plan, key_valid, head);
    const Counts kept = count_kept(plan, head, keys);
    const Counts all = count_all(plan, head, keys);
    if (all.pairs == 0) {
      throw InvalidPlan("head " + std::to_string(head) +
                        ": no valid key or no query, so there is no density to measure");
    }
    density.pairs.push_back(static_cast<double>(kept.pairs) / static_cast<double>(all.pairs));
    density.blocks.push_back(static_cast<double>(kept.blocks) / static_cast<double>(all.blocks));
  }
  const auto heads = static_cast<double>(plan.heads);
  density.mean_pairs = std::accumulate(density.pairs.begin(), density.pairs.end(), 0.0) / heads;
  density.mean_blocks = std::accumulate(density.blocks.begin(), density.blocks.end(), 0.0) / heads;
  return density;
}

std::vector<std::int32_t> inverse_order(const Orders& orders, std::int64_t head) {
  std::vector<std::int32_t> inverse;
  if (orders.identity) return inverse;
  inverse.resize(index_of(orders.tokens));
  const std::int32_t* index = orders.row(head);
  for (std::int64_t position = 0; position < orders.tokens; ++position) {
    inverse[static_cast<std::size_t>(index[position])] = static_cast<std::int32_t>(position);
  }
  return inverse;
}

// Orders, layouts, lists and terms. Left out because they change nothing that is computed: the
// nominal density, which of the kept blocks were forced, the notes, and the windows (a hint about the
// order).
std::uint64_t plan_fingerprint(const Plan& plan) {
  Fnv1a hash;
  hash.add(plan.heads);
  hash.add(plan.tokens);
  for (const Orders* orders : {&plan.q_order, &plan.k_order}) {
    add_rows(hash, *orders, orders->identity || orders->rows == 1, plan.heads, hash_order);
  }
  for (const Layout* layout : {&plan.q_blocks, &plan.k_blocks}) {
    hash.add(layout->blocks);
    add_rows(hash, *layout, layout->rows == 1, plan.heads, hash_layout);
  }
  for (const std::int64_t offset : plan.lists.row_offsets) hash.add(offset);
  for (const std::int32_t column : plan.lists.columns) hash.add(column);
  for (const OutputTerm& term : plan.terms) {
    hash.add(static_cast<std::int64_t>(term.name.size()));
    for (const char c : term.name) hash.add(static_cast<std::uint8_t>(c), 1);
  }
  return hash.value();
}

}  // namespace raingauge
