// SPDX-License-Identifier: Apache-2.0
#include "data/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "data/error.h"
#include "data/random.h"

namespace raingauge {
namespace {

// 2 heads, 10 tokens in blocks of 4 (4, 4, 2), different orders a head, head 0 keeps the diagonal,
// head 1 everything.
Plan small_plan() {
  Plan plan;
  plan.heads = 2;
  plan.tokens = 10;
  plan.q_order.rows = 2;
  plan.q_order.tokens = plan.k_order.tokens = 10;
  plan.q_order.identity = false;
  plan.q_order.index = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
  plan.k_order.identity = false;
  plan.k_order.index = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8};
  plan.q_blocks = plan.k_blocks = uniform_layout(10, 4);
  plan.lists.heads = 2;
  plan.lists.query_blocks = 3;
  plan.lists.row_offsets = {0, 1, 2, 3, 6, 9, 12};
  plan.lists.columns = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
  return plan;
}

std::string breach(const Plan& plan, const std::uint8_t* key_valid = nullptr) {
  try {
    check_plan(plan, key_valid);
  } catch (const InvalidPlan& error) {
    return error.what();
  }
  return "";
}

void expect_breach(const Plan& plan, const std::string& part,
                   const std::uint8_t* key_valid = nullptr) {
  const std::string text = breach(plan, key_valid);
  EXPECT_NE(text.find(part), std::string::npos) << "got: `" << text << "`";
}

TEST(PlanTest, GoodPlansPass) {
  EXPECT_EQ(breach(small_plan()), "");
  EXPECT_EQ(breach(dense_plan(3, 1000, 128)), "");
}

TEST(PlanTest, OrderBreaches) {
  Plan plan = small_plan();
  plan.q_order.index[13] = 9;
  expect_breach(plan, "query order of head 1 is no permutation: position 3 holds token 9");
  plan = small_plan();
  plan.k_order.index[2] = 10;
  expect_breach(plan, "position 2 holds token 10, allowed are 0 to 9");
  plan.k_order.index[2] = -1;
  expect_breach(plan, "position 2 holds token -1");
  plan = small_plan();
  plan.k_order.index.pop_back();
  expect_breach(plan, "9 indices; needed are rows x tokens = 10");
  plan = small_plan();
  plan.q_order.rows = 3;
  expect_breach(plan, "allowed are 1 (shared) or 2");
  plan = small_plan();
  plan.k_order.tokens = 9;
  expect_breach(plan, "orders 9 tokens, the plan has 10");
  plan = small_plan();
  plan.k_order.identity = true;
  expect_breach(plan, "identity order must hold no indices");
}

TEST(PlanTest, LayoutBreaches) {
  Plan plan = small_plan();
  plan.k_blocks.offsets[0] = 1;
  expect_breach(plan, "run from 1 to 10");
  plan = small_plan();
  plan.k_blocks.offsets[3] = 9;
  expect_breach(plan, "run from 0 to 9");
  plan = small_plan();
  plan.q_blocks.offsets[2] = 3;
  expect_breach(plan, "query blocks: block 1 starts at position 4 and ends at 3");
  plan = small_plan();
  plan.q_blocks.offsets.pop_back();
  expect_breach(plan, "3 offsets");
  plan = small_plan();
  plan.q_blocks.blocks = 0;
  expect_breach(plan, "0 blocks");
}

TEST(PlanTest, ListBreaches) {
  Plan plan = small_plan();
  plan.lists.columns[4] = 0;
  expect_breach(plan, "head 1, query block 0: key block 0 at place 1 follows 0");
  plan = small_plan();
  plan.lists.columns[2] = 3;
  expect_breach(plan, "head 0, query block 2: key block 3 at place 0; allowed are 0 to 2");
  plan.lists.columns[2] = -1;
  expect_breach(plan, "key block -1");
  plan = small_plan();
  plan.lists.row_offsets[2] = 0;
  expect_breach(plan, "head 0, query block 1: row offsets fall from 1 to 0");
  plan = small_plan();
  plan.lists.row_offsets.back() = 11;
  expect_breach(plan, "run from 0 to 11");
  plan = small_plan();
  plan.lists.query_blocks = 2;
  expect_breach(plan, "lists for 2 heads x 2 query blocks");
  plan = small_plan();  // an empty row
  plan.lists.row_offsets = {0, 1, 1, 2, 5, 8, 11};
  plan.lists.columns = {0, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
  expect_breach(plan, "head 0, query block 1 (4 queries) keeps 0 key blocks");
}

TEST(PlanTest, EmptyQueryBlocksMayKeepNothing) {
  Plan plan = small_plan();
  plan.q_blocks.offsets = {0, 4, 4, 10};
  plan.lists.row_offsets = {0, 1, 1, 2, 5, 8, 11};
  plan.lists.columns = {0, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
  EXPECT_EQ(breach(plan), "");
  // … but a non-empty one that keeps an empty key block alone sees no key.
  plan.k_blocks.offsets = {0, 0, 8, 10};
  expect_breach(plan, "head 0, query block 0");
}

TEST(PlanTest, InvalidKeysCount) {
  const Plan plan = small_plan();
  // The key order swaps neighbours, so tokens 4 … 7 are key block 1: query block 1 sees nothing.
  const std::vector<std::uint8_t> valid{1, 1, 1, 1, 0, 0, 0, 0, 1, 1};
  expect_breach(plan, "head 0, query block 1", valid.data());
  const std::vector<std::uint8_t> one_left{1, 1, 1, 1, 0, 0, 0, 1, 1, 1};
  EXPECT_EQ(breach(plan, one_left.data()), "");
  const Density density = measure_density(plan, one_left.data());
  // Head 0: 4 x 4 + 4 x 1 + 2 x 2 pairs of 10 x 7.
  EXPECT_DOUBLE_EQ(density.pairs[0], 24.0 / 70.0);
  EXPECT_DOUBLE_EQ(density.pairs[1], 1.0);
  EXPECT_DOUBLE_EQ(density.blocks[0], 3.0 / 9.0);
  const std::vector<std::uint8_t> none(10, 0);
  EXPECT_THROW(measure_density(plan, none.data()), InvalidPlan);
}

TEST(PlanTest, ForcedMustBeKept) {
  Plan plan = small_plan();
  plan.forced = plan.lists;
  EXPECT_EQ(breach(plan), "");
  plan.lists.columns[1] = 0;
  expect_breach(plan, "head 0, query block 1: a forced key block is missing");
}

// Counted over tokens, pair by pair, for random plans with ragged and empty blocks.
TEST(PlanTest, DensityEqualsCountingEveryPair) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Plan plan;
    plan.heads = 2;
    plan.tokens = 23;
    for (Orders* orders : {&plan.q_order, &plan.k_order}) {
      orders->tokens = 23;
      orders->identity = false;
      std::vector<std::int32_t> index(23);
      std::iota(index.begin(), index.end(), 0);
      seeded_shuffle(index, seed);
      orders->index = index;
    }
    plan.q_blocks = uniform_layout(23, 5);
    plan.k_blocks.rows = 2;
    plan.k_blocks.blocks = 4;
    plan.k_blocks.offsets = {0, 7, 7, 12, 23, 0, 1, 15, 22, 23};
    plan.lists.heads = 2;
    plan.lists.query_blocks = 5;
    plan.lists.row_offsets = {0};
    for (std::uint64_t row = 0; row < 10; ++row) {
      for (std::int32_t column = 0; column < 4; ++column) {
        const bool keep =
            mix64(seed * 1000 + row * 4 + static_cast<std::uint64_t>(column)) % 2 == 0;
        if (keep || column == 3) plan.lists.columns.push_back(column);
      }
      plan.lists.row_offsets.push_back(static_cast<std::int64_t>(plan.lists.columns.size()));
    }
    std::vector<std::uint8_t> valid(23, 1);
    for (std::size_t i = 0; i < 23; i += 4) valid[i] = 0;
    const Density density = measure_density(plan, valid.data());
    for (std::int64_t h = 0; h < 2; ++h) {
      std::int64_t kept = 0;
      std::int64_t kept_blocks = 0;
      for (std::int64_t i = 0; i < 5; ++i) {
        for (std::int64_t n = 0; n < plan.lists.count(h, i); ++n) {
          const std::int32_t j = plan.lists.begin(h, i)[n];
          kept_blocks += plan.k_blocks.size(h, j) > 0 ? 1 : 0;
          for (auto q = plan.q_blocks.begin(h, i); q < plan.q_blocks.end(h, i); ++q) {
            for (auto k = plan.k_blocks.begin(h, j); k < plan.k_blocks.end(h, j); ++k) {
              kept += valid[static_cast<std::size_t>(plan.k_order.token(h, k))];
            }
          }
        }
      }
      const std::int64_t key_blocks = h == 0 ? 3 : 4;
      EXPECT_DOUBLE_EQ(density.pairs[static_cast<std::size_t>(h)],
                       static_cast<double>(kept) / (23.0 * 17.0));
      EXPECT_DOUBLE_EQ(density.blocks[static_cast<std::size_t>(h)],
                       static_cast<double>(kept_blocks) / (5.0 * static_cast<double>(key_blocks)));
    }
    EXPECT_DOUBLE_EQ(density.mean_pairs, (density.pairs[0] + density.pairs[1]) / 2.0);
  }
}

TEST(PlanTest, DensePlanKeepsAll) {
  const Plan plan = dense_plan(2, 300, 128);
  EXPECT_EQ(plan.k_blocks.blocks, 3);
  EXPECT_EQ(plan.k_blocks.size(0, 2), 44);
  const Density density = measure_density(plan);
  EXPECT_EQ(density.mean_pairs, 1.0);
  EXPECT_EQ(density.mean_blocks, 1.0);
  EXPECT_THROW(dense_plan(0, 300, 128), InvalidPlan);
  EXPECT_THROW(uniform_layout(300, 0), InvalidPlan);
  EXPECT_THROW(uniform_layout(0, 128), InvalidPlan);
}

TEST(PlanTest, InverseOrder) {
  const Plan plan = small_plan();
  const auto inverse = inverse_order(plan.q_order, 1);
  for (std::int32_t p = 0; p < 10; ++p) {
    EXPECT_EQ(inverse[static_cast<std::size_t>(plan.q_order.token(1, p))], p);
  }
  EXPECT_TRUE(inverse_order(dense_plan(1, 5, 2).q_order, 0).empty());
}

TEST(PlanTest, FingerprintFollowsDecisionsOnly) {
  const Plan plan = small_plan();
  const std::uint64_t value = plan_fingerprint(plan);
  Plan same = plan;  // the shared key order and layout spelled out for each head
  same.k_order.rows = 2;
  same.k_order.index.insert(same.k_order.index.end(), plan.k_order.index.begin(),
                            plan.k_order.index.end());
  same.k_blocks.rows = 2;
  same.k_blocks.offsets.insert(same.k_blocks.offsets.end(), plan.k_blocks.offsets.begin(),
                               plan.k_blocks.offsets.end());
  same.nominal_density = 0.25;
  same.forced = plan.lists;
  EXPECT_EQ(plan_fingerprint(same), value);

  Plan identity = dense_plan(2, 10, 4);
  Plan spelled = identity;
  spelled.q_order.identity = false;
  spelled.q_order.index.resize(10);
  std::iota(spelled.q_order.index.begin(), spelled.q_order.index.end(), 0);
  EXPECT_EQ(plan_fingerprint(spelled), plan_fingerprint(identity));

  std::vector<Plan> others(5, plan);
  std::swap(others[0].q_order.index[0], others[0].q_order.index[1]);
  std::swap(others[1].k_order.index[0], others[1].k_order.index[1]);
  others[2].k_blocks.offsets[1] = 5;
  others[3].lists.columns[1] = 0;
  others[4].terms.push_back({"coarse"});
  for (const Plan& other : others) EXPECT_NE(plan_fingerprint(other), value);
}

TEST(PlanTest, EveryPairIsToldFromAlmostEvery) {
  EXPECT_TRUE(keeps_every_pair(dense_plan(2, 130, 32)));
  Plan plan = dense_plan(2, 130, 32);
  plan.lists.columns.pop_back();  // the last query block of the last head loses a 2-token key block
  plan.lists.row_offsets.back() -= 1;
  EXPECT_FALSE(keeps_every_pair(plan));
}

}  // namespace
}  // namespace raingauge
