// SPDX-License-Identifier: Apache-2.0
// Decisions carried from step to step.
#include "methods/reuse.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/error.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::NoiseRecord;
using testing::video_then_text;

// One record a step, all different, and what a method decides for each as the runner calls it.
std::vector<Plan> walk(const json& params, const std::vector<int>& steps,
                       const std::string& method = "rainfusion2") {
  const auto made = make_method(method, params);
  State state;
  std::vector<Plan> plans;
  for (const int step : steps) {
    NoiseRecord record(video_then_text(3, 10, 12, 0), 2, 16, 60 + std::uint64_t(step));
    record.info().site.step = step;
    plans.push_back(made->plan(record.view(), state));
    check_plan(plans.back());
    state.last_step = step;
  }
  return plans;
}

std::string policy(const Plan& plan) {
  for (const auto& note : plan.notes) {
    if (note.name == "policy") return note.words.at(0);
  }
  return "none";
}

TEST(Reuse, DecidesAtEveryNthStepAndReusesInBetween) {
  json params = {{"density", 0.4}, {"block", 32}, {"sink", "none"}};
  const auto fresh = walk(params, {2, 3, 4, 5, 6});
  params["reuse_every"] = 2;
  const auto reused = walk(params, {2, 3, 4, 5, 6});
  const std::vector<std::size_t> decided_at = {0, 0, 2, 2, 4};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(plan_fingerprint(reused[i]), plan_fingerprint(fresh[decided_at[i]])) << i;
    EXPECT_EQ(policy(reused[i]), decided_at[i] == i ? "refresh" : "reuse");
  }
  EXPECT_EQ(policy(fresh[0]), "none");
  params["reuse_every"] = 0;
  for (const auto& plan : walk(params, {2, 3, 4, 5, 6})) {
    EXPECT_EQ(plan_fingerprint(plan), plan_fingerprint(fresh[0]));
  }
}

TEST(Reuse, ReportsTheOverlapOfSuccessiveDecisions) {
  const auto plans =
      walk({{"density", 0.4}, {"block", 32}, {"sink", "none"}, {"reuse_every", 1}}, {0, 1, 2});
  for (std::size_t i = 1; i < 3; ++i) {
    const auto& overlap = plans[i].notes.back();
    ASSERT_EQ(overlap.name, "overlap");
    for (std::int64_t head = 0; head < 2; ++head) {
      // Counted naively over token pairs.
      double common = 0.0, either = 0.0;
      for (std::int64_t r = 0; r < plans[i].q_blocks.blocks; ++r) {
        for (std::int64_t c = 0; c < plans[i].k_blocks.blocks; ++c) {
          const bool now = testing::keeps(plans[i], head, r, c);
          const bool then = testing::keeps(plans[i - 1], head, r, c);
          const double pairs =
              double(plans[i].q_blocks.size(head, r)) * plans[i].k_blocks.size(head, c);
          common += now && then ? pairs : 0.0;
          either += now || then ? pairs : 0.0;
        }
      }
      EXPECT_DOUBLE_EQ(overlap.numbers[std::size_t(head)], common / either);
      EXPECT_LT(overlap.numbers[std::size_t(head)], 1.0);
    }
  }
  EXPECT_EQ(plan_overlap(plans[0], plans[0], 0), 1.0);
  // Orders made from content differ from step to step: no common blocks to compare.
  const auto clusters = walk(
      {{"density", 0.4}, {"block", 32}, {"order", "kmeans"}, {"sink", "none"}, {"reuse_every", 1}},
      {0, 1});
  EXPECT_TRUE(std::isnan(clusters[1].notes.back().numbers.at(0)));
}

TEST(Reuse, AGapInTheStepsIsRefused) {
  EXPECT_THROW(walk({{"reuse_every", 4}, {"density", 0.5}}, {0, 1, 3}), InvalidPlan);
}

TEST(Reuse, WrapsMethodsWithAStateOfTheirOwn) {
  const auto plans = walk({{"q_clusters", 5},
                           {"k_clusters", 8},
                           {"start", "warm"},
                           {"iterations", 6},
                           {"reuse_every", 2}},
                          {0, 1, 2, 3}, "svg2");
  EXPECT_EQ(plan_fingerprint(plans[0]), plan_fingerprint(plans[1]));
  EXPECT_EQ(policy(plans[2]), "refresh");
  EXPECT_LE(plans[2].notes.at(0).numbers.at(0), 2.0);  // warm iterations
}

TEST(Reuse, EveryMethodThatDecidesHasTheKeyAndDenseHasNot) {
  EXPECT_NO_THROW(complete_method_params("sta", {{"reuse_every", 3}}));
  EXPECT_THROW(complete_method_params("dense", {{"reuse_every", 3}}), ParamError);
  EXPECT_FALSE(make_method("rainfusion2", json::object())->stateful());
  EXPECT_TRUE(make_method("rainfusion2", {{"reuse_every", 3}})->stateful());
}

}  // namespace
}  // namespace raingauge
