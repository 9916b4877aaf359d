// SPDX-License-Identifier: Apache-2.0
// Lists that are kept on a device: the plan's own, row by row. The host's memory stands for a device's.
#include <gtest/gtest.h>

#include <random>

#include "methods/device_plan.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;

void expect_lists(const Plan& plan, const DevicePlanner& planner) {
  const DeviceLists lists = planner.lists();
  ASSERT_EQ(lists.heads, plan.heads);
  ASSERT_EQ(lists.query_blocks, plan.q_blocks.blocks);
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    for (std::int64_t block = 0; block < lists.query_blocks; ++block) {
      const std::int64_t row = head * lists.query_blocks + block;
      const std::int32_t* columns = lists.columns + row * lists.stride;
      ASSERT_EQ(lists.counts[row], plan.lists.count(head, block));
      EXPECT_TRUE(std::equal(columns, columns + lists.counts[row], plan.lists.begin(head, block)));
    }
  }
}

TEST(FixedPlanner, KeepsThePlansLists) {
  std::mt19937 engine(3);
  const Plan sparse = random_plan(3, 310, 64, {.keep = 0.4, .empty_lists = true}, engine);
  const Plan dense = dense_plan(2, 300, 128);
  for (const Plan* given : {&dense, &sparse}) {
    const Plan& plan = *given;
    const auto planner = make_fixed_planner(plan, Device{});
    EXPECT_FALSE(planner->decides());
    EXPECT_EQ(planner->lists().every_pair, given == &dense);
    planner->plan({}, {});
    expect_lists(plan, *planner);
    EXPECT_TRUE(planner->frame().lists.columns.empty());
    EXPECT_EQ(planner->frame().q_blocks.offsets, plan.q_blocks.offsets);
    EXPECT_EQ(planner->fetch().lists.columns, plan.lists.columns);
  }
  EXPECT_NE(make_fixed_planner(sparse, Device{})->lists().frame,
            make_fixed_planner(sparse, Device{})->lists().frame);
}

}  // namespace
}  // namespace raingauge
