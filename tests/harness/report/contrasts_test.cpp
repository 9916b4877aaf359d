// SPDX-License-Identifier: Apache-2.0
#include "harness/report/contrasts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/report/run_data.h"
#include "tests/harness/report/run_fixture.h"

namespace raingauge {
namespace {

using testing_support::PlantedRun;
using testing_support::write_planted;

class Contrasts : public ::testing::Test {
 protected:
  RunData run(const PlantedRun& planted) {
    write_planted(folder_.path(), planted);
    return load_run(folder_.path());
  }
  static Estimate estimate(const RunData& data, std::size_t declared, const Scope& scope = {}) {
    return estimate_mean(differences(data.fidelity, data.declared.at(declared),
                                     data.fidelity.metric("recall"), scope));
  }
  testing_support::TemporaryFolder folder_;
};

// Main effects are over both levels of the other factor: half of the interaction counts.
TEST_F(Contrasts, FindPlantedEffects) {
  const auto data = run({});
  ASSERT_EQ(data.declared.size(), 3U);
  const double planted[] = {0.03 + 0.01 / 2, -0.02 + 0.01 / 2, 0.01};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto e = estimate(data, i);
    EXPECT_EQ(e.n, 16);
    EXPECT_NEAR(e.value, planted[i], 0.003) << data.declared[i].name;
    EXPECT_LE(e.lo, planted[i]);
    EXPECT_GE(e.hi, planted[i]);
    EXPECT_LT(e.p, 0.01);
    EXPECT_TRUE(e.exact);
  }
  EXPECT_EQ(data.declared[0].over, "mean over density 0.2, 0.35; sink none, both");
}

TEST_F(Contrasts, NoNoiseIsExact) {
  PlantedRun planted;
  planted.noise = 0.0;
  const auto data = run(planted);
  EXPECT_NEAR(estimate(data, 0).value, 0.035, 1e-12);
  EXPECT_NEAR(estimate(data, 1).value, -0.015, 1e-12);
  EXPECT_NEAR(estimate(data, 2).value, 0.010, 1e-12);
  const auto part = restricted(data.fidelity, data.declared[0], "density", "0.35");
  EXPECT_NEAR(differences(data.fidelity, part, data.fidelity.metric("recall")).at(0), 0.035, 1e-12);
}

TEST_F(Contrasts, ScopesKeepTheirGenerations) {
  const auto data = run({});
  EXPECT_EQ(data.fidelity.modes(), (std::vector<std::string>{"image_to_video", "text_to_video"}));
  EXPECT_EQ(estimate(data, 0, {.mode = "image_to_video"}).n, 8);
  EXPECT_EQ(estimate(data, 0, {.mode = "", .layer = 4}).n, 16);
  EXPECT_EQ(estimate(data, 0, {.mode = "", .layer = 3}).n, 0);
}

TEST_F(Contrasts, InfeasibleStrataAreDroppedAndListed) {
  PlantedRun planted;
  planted.infeasible_low = true;
  planted.noise = 0.0;
  const auto data = run(planted);
  const auto& sink = data.declared.at(1);
  EXPECT_EQ(sink.strata, 2);  // density 0.35 alone, both orders
  ASSERT_EQ(sink.dropped.size(), 2U);
  EXPECT_THAT(sink.dropped[0], ::testing::HasSubstr("infeasible"));
  EXPECT_NEAR(estimate(data, 1).value, -0.015, 1e-12);
  EXPECT_EQ(data.declared.at(2).strata, 1);
}

TEST_F(Contrasts, AMissingGenerationLeavesTheContrast) {
  PlantedRun planted;
  int seen = 0;
  planted.change = [&](nlohmann::json& row) {  // one arm of one clip has a metric without value
    if (row["generation"] == "clip3" && row["arm"] == "rf2.window3d.none.0.2" && seen++ == 0)
      row["metrics"]["recall"] = {{"value", nullptr}, {"reason", "none"}};
  };
  const auto data = run(planted);
  EXPECT_EQ(estimate(data, 0).n, 15);
}

TEST_F(Contrasts, PrimaryMeansAllLevelsAndProducts) {
  PlantedRun planted;
  planted.contrasts = "primary";
  EXPECT_EQ(run(planted).declared.size(), 3U);
}

// A declared level that only another family has must not empty this one's strata; a family without
// any declared level has no declared contrast.
TEST_F(Contrasts, LevelsOfOtherFamiliesDoNotCount) {
  PlantedRun planted;
  planted.noise = 0.0;
  planted.contrasts = {"order=window3d", "order=gilbert", "sink=both"};
  testing_support::write_planted(folder_.path(), planted);
  auto manifest = testing_support::planted_manifest(planted);
  manifest["experiment"]["arms"].push_back({{"name", "other.gilbert"},
                                            {"base", "other"},
                                            {"stem", "other.gilbert"},
                                            {"match", "nominal"},
                                            {"factors", {{"order", "gilbert"}}},
                                            {"density", 0.2},
                                            {"params", {{"method", "rainfusion2"}}}});
  std::ofstream(folder_.path() / "manifest.json") << manifest.dump();
  const auto data = load_run(folder_.path());
  ASSERT_EQ(data.declared.size(), 2U);
  EXPECT_EQ(data.declared[0].strata, 4);
  EXPECT_NEAR(estimate(data, 0).value, 0.035, 1e-12);
  EXPECT_EQ(data.declared[1].strata, 4);
}

TEST_F(Contrasts, NamedPairs) {
  PlantedRun planted;
  planted.noise = 0.0;
  planted.contrasts = nlohmann::json::array(
      {nlohmann::json::array({"rf2.window3d.both.0.35", "rf2.raster.none.0.35"})});
  const auto data = run(planted);
  ASSERT_EQ(data.declared.size(), 1U);
  EXPECT_NEAR(estimate(data, 0).value, 0.02, 1e-12);
}

// A run over nothing but noise raises about as many alarms as 5 % says, through the whole chain from
// rows to p. 60 studies x 3 contrasts; more than 17 of 180 has probability 1 %.
TEST_F(Contrasts, NullRunsRaiseFewAlarms) {
  int alarms = 0;
  for (std::uint64_t study = 0; study < 60; ++study) {
    PlantedRun planted;
    planted.window = planted.sink = planted.both = 0.0;
    planted.generations = 10;
    planted.seed = 100 + study;
    const auto data = run(planted);
    for (std::size_t i = 0; i < 3; ++i) alarms += estimate(data, i).p <= 0.05 ? 1 : 0;
  }
  EXPECT_LE(alarms, 17);
}

}  // namespace
}  // namespace raingauge
