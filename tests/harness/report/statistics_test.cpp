// SPDX-License-Identifier: Apache-2.0
#include "harness/report/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "data/error.h"

namespace raingauge {
namespace {

TEST(StudentT, AgreesWithTables) {
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.706204736, 1e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 2), 4.302652730, 1e-8);
  EXPECT_NEAR(student_t_quantile(0.975, 7), 2.364624252, 1e-8);
  EXPECT_NEAR(student_t_quantile(0.975, 15), 2.131449546, 1e-8);
  EXPECT_NEAR(student_t_quantile(0.995, 30), 2.749995654, 1e-8);
  EXPECT_NEAR(student_t_cdf(0.0, 9), 0.5, 1e-15);
  EXPECT_NEAR(student_t_cdf(-1.0, 4), 0.186950483, 1e-8);
  EXPECT_NEAR(student_t_cdf(1.0, 3), 0.804498894, 1e-8);
  EXPECT_THROW(student_t_cdf(0.0, 0), Error);
  EXPECT_THROW(student_t_quantile(1.0, 3), Error);
}

// Counted by hand over the 8 and 16 sign patterns.
TEST(SignFlip, CountsPatterns) {
  EXPECT_DOUBLE_EQ(sign_flip_p({1.0, 2.0, 3.0}), 2.0 / 8.0);
  EXPECT_DOUBLE_EQ(sign_flip_p({1.0, 1.0, 1.0, -1.0}), 10.0 / 16.0);
  EXPECT_DOUBLE_EQ(sign_flip_p({0.0, 0.0}), 1.0);
  EXPECT_DOUBLE_EQ(sign_flip_p({0.1, 0.2, 0.3}), 2.0 / 8.0);  // ties by rounding count
  EXPECT_TRUE(std::isnan(sign_flip_p({})));
  EXPECT_THROW(sign_flip_p({1.0, std::nan("")}), NotFinite);
}

TEST(SignFlip, DrawnAndExactAgree) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal(0.35, 1.0);
  std::vector<double> d(20);
  for (auto& v : d) v = normal(random);
  const double exact = sign_flip_p(d);
  d.push_back(0.0);  // 21 values: drawn; a zero changes no |sum|
  EXPECT_NEAR(sign_flip_p(d), exact, 4.0 * std::sqrt(exact * (1.0 - exact) / 1e5));
}

TEST(Holm, StepsDown) {
  const auto p = holm_adjusted({0.01, 0.04, 0.03, std::nan("")});
  EXPECT_DOUBLE_EQ(p[0], 0.03);
  EXPECT_DOUBLE_EQ(p[1], 0.06);  // max(0.04, 2 x 0.03)
  EXPECT_DOUBLE_EQ(p[2], 0.06);
  EXPECT_TRUE(std::isnan(p[3]));
  EXPECT_DOUBLE_EQ(holm_adjusted({0.9, 0.8})[0], 1.0);
}

TEST(Estimate, FewGenerationsAreDescriptive) {
  const auto few = estimate_mean({1.0, 1.1, 0.9, 1.0, 1.2, 1.0, 1.1});
  EXPECT_EQ(few.n, 7);
  EXPECT_TRUE(std::isfinite(few.value));
  EXPECT_TRUE(std::isnan(few.lo) && std::isnan(few.hi) && std::isnan(few.p));
  const auto enough = estimate_mean({1.0, 1.1, 0.9, 1.0, 1.2, 1.0, 1.1, 0.9});
  EXPECT_TRUE(std::isfinite(enough.lo) && enough.exact);
  EXPECT_DOUBLE_EQ(enough.p, 2.0 / 256.0);
  EXPECT_THROW(estimate_mean({1.0, std::nan("")}), NotFinite);
}

// A study: `generations` clips, each with an effect of its own around `effect` and records that
// share it. As in a run, records are averaged first.
std::vector<double> simulated_study(std::mt19937_64& random, int generations, double effect) {
  std::normal_distribution<double> between(effect, 0.02);
  std::normal_distribution<double> within(0.0, 0.03);
  std::vector<double> differences;
  for (int g = 0; g < generations; ++g) {
    const double own = between(random);
    double sum = 0.0;
    for (int record = 0; record < 12; ++record) sum += own + within(random);
    differences.push_back(sum / 12.0);
  }
  return differences;
}

// At 5 % a right test raises 10 alarms in 200 null studies; more than 17 has probability 1 %.
TEST(Estimate, NullStudiesRaiseFewAlarms) {
  std::mt19937_64 random(20251);
  int by_test = 0;
  int by_interval = 0;
  for (int study = 0; study < 200; ++study) {
    const auto e = estimate_mean(simulated_study(random, 12, 0.0));
    if (e.p <= 0.05) ++by_test;
    if (e.lo > 0.0 || e.hi < 0.0) ++by_interval;
  }
  EXPECT_LE(by_test, 17);
  EXPECT_LE(by_interval, 17);
  EXPECT_GE(by_test, 2);  // a test that never alarms is no test
}

// Effect 0.02 with a spread of sqrt(0.02^2 + 0.03^2/12) = 0.0218 between generations: the noncentral
// t with 12 generations has power 0.83 at 5 %. 400 studies: 3 standard errors are 0.056.
TEST(Estimate, PlantedEffectsAreFoundAtTheStatedPower) {
  std::mt19937_64 random(77);
  int found = 0;
  int covered = 0;
  for (int study = 0; study < 400; ++study) {
    const auto e = estimate_mean(simulated_study(random, 12, 0.02));
    if (e.p <= 0.05 && e.value > 0.0) ++found;
    if (e.lo <= 0.02 && 0.02 <= e.hi) ++covered;
  }
  EXPECT_NEAR(found / 400.0, 0.83, 0.06);
  EXPECT_NEAR(covered / 400.0, 0.95, 0.033);
}

}  // namespace
}  // namespace raingauge
