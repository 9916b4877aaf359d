// SPDX-License-Identifier: Apache-2.0
#include "harness/report/schedule.h"

#include <gtest/gtest.h>

#include "data/error.h"
#include "tests/harness/report/run_fixture.h"

namespace raingauge {
namespace {

using testing_support::PlantedRun;
using testing_support::write_planted;

class Schedule : public ::testing::Test {
 protected:
  RunData run(double noise) {
    PlantedRun planted;
    planted.noise = noise;
    write_planted(folder_.path(), planted);
    return load_run(folder_.path());
  }
  testing_support::TemporaryFolder folder_;
};

// At density 0.2 the best arm is window3d without sink: 0.73 + 0.01 layer + 0.002 step + 0.005 head.
// Within 1 - recall <= 0.2399 are then layer 4 (0.772 and more) and of layer 2 (0.752, 0.757, 0.760,
// 0.765) head 1 of step 5 alone; the rest costs 0.35.
TEST_F(Schedule, TakesTheCheapestWithinTheBound) {
  const auto schedule = make_schedule(run(0.0), {"recall", 0.2399});
  ASSERT_EQ(schedule["sites"].size(), 8U);  // 2 layers x 2 steps x 2 heads
  for (const auto& site : schedule["sites"]) {
    const bool cheap = site["layer"] == 4 || (site["step"] == 5 && site["head"] == 1);
    EXPECT_NEAR(site["density"].get<double>(), cheap ? 0.2 : 0.35, 1e-12) << site;
    const auto& setting = schedule["settings"][site["setting"].get<std::size_t>()];
    EXPECT_EQ(setting["arm"], cheap ? "rf2.window3d.none.0.2" : "rf2.window3d.none.0.35") << site;
    EXPECT_LE(site["error"].get<double>(), 0.24);
  }
  EXPECT_EQ(schedule["predicted"]["heads_beyond_bound"], 0);
  EXPECT_NEAR(schedule["predicted"]["error_mean"].get<double>(),
              schedule["achieved"]["error_mean"].get<double>(),
              1e-12);  // without noise no surprise
}

TEST_F(Schedule, NothingWithinTheBoundIsDense) {
  const auto schedule = make_schedule(run(0.0), {"recall", 0.01});
  for (const auto& site : schedule["sites"]) EXPECT_EQ(site["setting"], -1);
  EXPECT_EQ(schedule["predicted"]["density_pairs"], 1.0);
}

// Choosing on noise is optimistic: what is left out shows it.
TEST_F(Schedule, AchievedIsMeasuredOnGenerationsLeftOut) {
  const auto schedule = make_schedule(run(0.01), {"recall", 0.24});
  EXPECT_EQ(schedule["achieved"]["heads"], 8 * 16);
  EXPECT_GT(schedule["achieved"]["heads_beyond_bound"].get<int>(), 0);
}

TEST_F(Schedule, UnknownMetricsAreRefused) {
  EXPECT_THROW(make_schedule(run(0.0), {"recal", 0.1}), Error);
}

}  // namespace
}  // namespace raingauge
