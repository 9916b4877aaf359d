// SPDX-License-Identifier: Apache-2.0
// The sm_90a kernel's view of a plan (boxes, lists, work items) against the plan itself: every kept
// pair once, no other pair.
#include "methods/kernels/cuda/boxes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;

// Token in slot `s` of box `box`, as a kernel reaches it; -1: none.
std::int32_t token_in(const Plan& plan, const BoxFrame& frame, std::int64_t head, std::int32_t box,
                      int s) {
  const std::int64_t row = frame.rows == 1 ? 0 : head;
  if (frame.in_place) {
    const std::int64_t token = std::int64_t{box} * frame.box_keys + s;
    return token < plan.tokens ? static_cast<std::int32_t>(token) : -1;
  }
  const bool counts = s < frame.valid[at(row * frame.boxes + box)];
  const std::int32_t token = frame.slots[at((row * frame.boxes + box) * frame.box_keys + s)];
  EXPECT_EQ(counts, token >= 0) << "valid keys come first, and nothing else";
  return counts ? token : -1;
}

void expect_covers(const Plan& plan, const std::uint8_t* key_valid, const std::string& what) {
  const BoxFrame frame = make_box_frame(plan, key_valid);
  const BoxWork work = make_box_work(plan, frame, 2);
  const std::vector<char> expected = visibility(plan, key_valid);
  std::vector<char> sees(expected.size(), 0);
  std::vector<char> answered(at(plan.heads * plan.tokens), 0);
  std::int32_t last = std::numeric_limits<std::int32_t>::max();
  for (const auto& item : work.items) {
    ASSERT_LE(item.count, last) << what << ": longest first";
    last = item.count;
    ASSERT_GT(item.q_rows, 0);
    ASSERT_LE(item.q_rows, 128);
    for (std::int32_t r = 0; r < item.q_rows; ++r) {
      const std::int64_t q = plan.q_order.token(item.head, item.q_first + r);
      char& once = answered[at(item.head * plan.tokens + q)];
      ASSERT_EQ(once, 0) << what << ": a query row twice";
      once = 1;
      for (std::int32_t c = 0; c < item.count; ++c) {
        const std::int32_t box = work.boxes[at(item.first + c)];
        bool any = false;
        for (int s = 0; s < frame.box_keys; ++s) {
          const std::int32_t k = token_in(plan, frame, item.head, box, s);
          if (k < 0) continue;
          any = true;
          char& pair = sees[at((item.head * plan.tokens + q) * plan.tokens + k)];
          ASSERT_EQ(pair, 0) << what << ": a pair twice";
          pair = 1;
        }
        ASSERT_TRUE(any) << what << ": a box without a key in a list";
      }
    }
  }
  EXPECT_EQ(sees, expected) << what;
  EXPECT_EQ(std::count(answered.begin(), answered.end(), 0), 0) << what << ": rows left out";
}

TEST(Boxes, CoverEveryPlanExactly) {
  std::mt19937 engine(4);
  for (int round = 0; round < 60; ++round) {
    const PlanForm form{.orders = round % 2 == 0,
                        .per_head = round % 3 == 0,
                        .ragged = round % 5 < 3,
                        .empty_blocks = round % 4 == 1,
                        .keep = 0.4,
                        .empty_lists = round % 7 == 0};
    const int block = round % 3 == 0 ? 32 : round % 3 == 1 ? 64 : 128;
    const std::int64_t tokens = 100 + static_cast<std::int64_t>(engine() % 300);
    const Plan plan = random_plan(2, tokens, block, form, engine);
    std::vector<std::uint8_t> valid(at(tokens), 1);
    for (auto& x : valid) x = engine() % 4 != 0;
    expect_covers(plan, nullptr, "round " + std::to_string(round));
    expect_covers(plan, valid.data(), "masked round " + std::to_string(round));
  }
}

TEST(Boxes, UniformBlocksInTokenOrderStandInPlace) {
  std::mt19937 engine(5);
  for (const int block : {64, 128}) {
    const BoxFrame frame = make_box_frame(random_plan(2, 300, block, {}, engine), nullptr);
    EXPECT_TRUE(frame.in_place);
    EXPECT_TRUE(frame.block_is_box);
    EXPECT_EQ(frame.box_keys, block);
    EXPECT_TRUE(frame.slots.empty());
  }
  EXPECT_FALSE(make_box_frame(random_plan(2, 300, 32, {}, engine), nullptr).in_place);
  EXPECT_FALSE(
      make_box_frame(random_plan(2, 300, 128, {.orders = true}, engine), nullptr).in_place);
  std::vector<std::uint8_t> valid(300, 1);
  valid[7] = 0;
  EXPECT_FALSE(make_box_frame(random_plan(2, 300, 128, {}, engine), valid.data()).in_place);
}

TEST(Boxes, LargeBlocksTakeSeveralBoxes) {
  std::mt19937 engine(6);
  const BoxFrame frame = make_box_frame(random_plan(1, 1000, 300, {}, engine), nullptr);
  EXPECT_FALSE(frame.block_is_box);
  EXPECT_EQ(frame.boxes, 3 + 3 + 3 + 1);
}

TEST(Boxes, DensePlansNeedNoLists) {
  std::mt19937 engine(7);
  for (const std::int64_t tokens : {1, 191, 192, 193, 500}) {
    const Plan plan = dense_plan(3, tokens, 128);
    const BoxFrame frame = make_box_frame(plan, nullptr);
    const BoxWork work = make_box_work(plan, frame, 1, 192);
    EXPECT_EQ(work.every_box, frame.boxes);
    EXPECT_TRUE(work.boxes.empty());
    std::vector<int> answered(at(3 * tokens), 0);
    for (const auto& item : work.items) {
      EXPECT_LE(item.q_rows, 192);
      EXPECT_EQ(item.count, work.every_box);
      for (std::int32_t r = 0; r < item.q_rows; ++r) {
        ++answered[at(item.head * tokens + item.q_first + r)];
      }
    }
    EXPECT_EQ(std::count(answered.begin(), answered.end(), 1), 3 * tokens);
    const double blocks = std::ceil(static_cast<double>(tokens) / 128.0);
    EXPECT_GE(work.density_tiles, std::pow(static_cast<double>(tokens) / 128.0 / blocks, 2));
    EXPECT_EQ(make_box_work(plan, frame, 1).every_box, 0);
  }
  const Plan sparse = random_plan(2, 500, 128, {.keep = 0.5}, engine);
  EXPECT_EQ(make_box_work(sparse, make_box_frame(sparse, nullptr), 1, 192).every_box, 0);
}

TEST(Boxes, DensityCountsExecutedTiles) {
  const Plan dense = dense_plan(3, 1024, 128);
  EXPECT_DOUBLE_EQ(make_box_work(dense, make_box_frame(dense, nullptr)).density_tiles, 1.0);
}

}  // namespace
}  // namespace raingauge
