// SPDX-License-Identifier: Apache-2.0
#include "data/demo/training_plan.h"

#include <gtest/gtest.h>

#include "data/error.h"

namespace raingauge::demo {
namespace {

TEST(TrainingPlan, ReadsPhases) {
  const Phase phase = parse_phase("0.66:21x16x24x12,8x18x22x40");
  EXPECT_EQ(phase.from, 0.66);
  ASSERT_EQ(phase.shapes.size(), 2u);
  EXPECT_EQ(phase.shapes[0].describe(), "21x16x24x12");
  EXPECT_EQ(phase.shapes[1].clips, 40);
}

TEST(TrainingPlan, RefusesOtherText) {
  for (const char* text :
       {"", "0.5", "0.5:", ":8x16x24x1", "x:8x16x24x1", "2:8x16x24x1", "-0.1:8x16x24x1",
        "nan:8x16x24x1", "0:8x16x24", "0:8x16x24x1x1", "0:8x16x24x0", "0:1x16x24x1", "0:22x16x24x1",
        "0:8x16x24x1,,8x16x24x1", "0:8x16x24x99999999999"}) {
    EXPECT_THROW(parse_phase(text), Error) << text;
  }
}

TEST(TrainingPlan, ShapesTakeTurnsWithinTheirPhase) {
  const TrainingPlan plan({parse_phase("0.5:21x4x4x1"), parse_phase("0:8x4x4x1,8x5x5x1")}, 0.5);
  EXPECT_EQ(plan.shape(0.0, 0).grid_h, 4);
  EXPECT_EQ(plan.shape(0.49, 1).grid_h, 5);
  EXPECT_EQ(plan.shape(0.5, 1).frames, 21);
  EXPECT_EQ(plan.shape(1.0, 2).frames, 21);
  EXPECT_THROW(TrainingPlan({parse_phase("0.5:21x4x4x1")}, 0.5), Error);
  EXPECT_THROW(TrainingPlan({}, 0.5), Error);
}

TEST(TrainingPlan, RateFallsByACosine) {
  const TrainingPlan plan({parse_phase("0:8x4x4x1")}, 0.5);
  EXPECT_EQ(plan.rate(0.0), 1.0);
  EXPECT_EQ(plan.rate(0.5), 1.0);
  EXPECT_NEAR(plan.rate(0.75), (1.0 + TrainingPlan::kLastRate) / 2, 1e-15);
  EXPECT_NEAR(plan.rate(1.0), TrainingPlan::kLastRate, 1e-15);
  EXPECT_NEAR(plan.rate(1.3), TrainingPlan::kLastRate, 1e-15);
}

}  // namespace
}  // namespace raingauge::demo
