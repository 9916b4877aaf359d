// SPDX-License-Identifier: Apache-2.0
// Contract of every registered metric, and each metric against its closed form.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "data/error.h"
#include "metrics/evaluate.h"
#include "metrics/registry.h"

namespace raingauge {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
// fp64 sums of at most 1e5 terms of one sign: relative error below 1e5 * 2^-53 = 1.2e-11.
constexpr double kSumTolerance = 1.2e-11;

// Judged rows with every array present, filled from a seed.
struct Rows {
  Rows(std::int64_t rows, std::int64_t head_dim, unsigned seed) : rows_(rows), head_dim_(head_dim) {
    std::mt19937 bits(seed);
    const auto unit = [&] { return static_cast<double>(bits()) / 4294967296.0; };
    const auto elements = static_cast<std::size_t>(rows * head_dim);
    for (std::size_t i = 0; i < elements; ++i) {
      dense.push_back(static_cast<float>(2.0 * unit() - 1.0));
      sparse.push_back(dense.back() + static_cast<float>(0.2 * unit() - 0.1));
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      lse_dense.push_back(10.0 * unit());
      lse_sparse.push_back(lse_dense.back() + std::log(0.2 + 0.7 * unit()));
      lse_oracle.push_back(lse_dense.back() + std::log(0.9 + 0.1 * unit()));
      frame_dense.push_back(0.3 * unit());
      frame_sparse.push_back(0.4 * unit());
      text_dense.push_back(0.2 * unit());
      text_sparse.push_back(0.1 * unit());
    }
  }

  RowEvidence evidence(bool sampled = false) const& {
    RowEvidence e;
    e.rows = rows_;
    e.head_dim = head_dim_;
    e.sampled = sampled;
    e.o_dense = dense.data();
    e.o_sparse = sparse.data();
    e.lse_dense = lse_dense.data();
    e.lse_sparse = lse_sparse.data();
    e.lse_oracle_row = lse_oracle.data();
    e.mass_first_frame_dense = frame_dense.data();
    e.mass_first_frame_sparse = frame_sparse.data();
    e.mass_text_dense = text_dense.data();
    e.mass_text_sparse = text_sparse.data();
    e.block_similarity_q = 0.4;
    e.block_similarity_k = 0.3;
    return e;
  }

  std::vector<float> dense, sparse;
  std::vector<double> lse_dense, lse_sparse, lse_oracle;
  std::vector<double> frame_dense, frame_sparse, text_dense, text_sparse;

 private:
  std::int64_t rows_, head_dim_;
};

MetricValue value_of(const std::string& name, const RowEvidence& evidence,
                     const Bootstrap& bootstrap = {}) {
  return evaluate_metric(find_metric(name), evidence, bootstrap);
}

std::vector<std::string> metric_names() {
  std::vector<std::string> names;
  for (const MetricEntry& entry : metric_registry()) names.emplace_back(entry.spec.name);
  return names;
}

class EveryMetric : public testing::TestWithParam<std::string> {
 protected:
  const MetricEntry& entry() const { return find_metric(GetParam()); }
};

TEST_P(EveryMetric, DeclaresItselfInFull) {
  const MetricEntry& metric = entry();
  EXPECT_FALSE(metric.spec.unit.empty());
  EXPECT_FALSE(metric.spec.help.empty());
  EXPECT_FALSE(metric.spec.formula.empty());
  EXPECT_NE(metric.missing, nullptr);
  EXPECT_NE(metric.contribute, nullptr);
  EXPECT_NE(metric.of_sums == nullptr, std::isnan(metric.quantile)) << "exactly one reduction";
  EXPECT_GE(metric.terms, 1U);
  EXPECT_TRUE(metric.of_sums != nullptr || metric.terms == 1U);
  EXPECT_FALSE(metric.spec.bootstrap && metric.spec.needs_all_rows)
      << "an interval on a sample of something a sample cannot show";
}

TEST_P(EveryMetric, GivesAFiniteValueAndNoIntervalOnAllRows) {
  const MetricValue result = evaluate_metric(entry(), Rows(37, 16, 1).evidence());
  EXPECT_TRUE(std::isfinite(result.value));
  EXPECT_TRUE(result.reason.empty());
  EXPECT_TRUE(std::isnan(result.lo) && std::isnan(result.hi));
}

TEST_P(EveryMetric, GivesAnIntervalAroundTheValueOnASampleOrSaysWhyNot) {
  const MetricValue result = evaluate_metric(entry(), Rows(200, 16, 2).evidence(true));
  if (entry().spec.needs_all_rows) {
    EXPECT_TRUE(std::isnan(result.value));
    EXPECT_FALSE(result.reason.empty());
    return;
  }
  if (!entry().spec.bootstrap) {  // of the whole record, not of the judged rows
    EXPECT_TRUE(std::isfinite(result.value));
    EXPECT_TRUE(std::isnan(result.lo) && std::isnan(result.hi));
    return;
  }
  EXPECT_LE(result.lo, result.value);
  EXPECT_GE(result.hi, result.value);
  EXPECT_LT(result.lo, result.hi);
}

TEST_P(EveryMetric, DoesNotDependOnTheOrderOfRows) {
  Rows rows(50, 8, 3);
  const double value = evaluate_metric(entry(), rows.evidence()).value;
  std::reverse(rows.dense.begin(), rows.dense.end());  // rows and dimensions: no metric tells them
  std::reverse(rows.sparse.begin(), rows.sparse.end());
  for (auto* column : {&rows.lse_dense, &rows.lse_sparse, &rows.lse_oracle, &rows.frame_dense,
                       &rows.frame_sparse, &rows.text_dense, &rows.text_sparse}) {
    std::reverse(column->begin(), column->end());
  }
  EXPECT_NEAR(evaluate_metric(entry(), rows.evidence()).value, value,
              kSumTolerance * std::max(1.0, std::abs(value)));
}

TEST_P(EveryMetric, RefusesNotFiniteEvidence) {
  for (const double bad : {kNaN, kInf, -kInf}) {
    Rows rows(9, 4, 4);
    rows.sparse[13] = static_cast<float>(bad);
    EXPECT_THROW(evaluate_metric(entry(), rows.evidence()), NotFinite);
    rows = Rows(9, 4, 4);
    rows.dense[0] = static_cast<float>(bad);
    EXPECT_THROW(evaluate_metric(entry(), rows.evidence()), NotFinite);
    rows = Rows(9, 4, 4);
    rows.lse_dense[8] = bad;
    EXPECT_THROW(evaluate_metric(entry(), rows.evidence()), NotFinite);
    rows = Rows(9, 4, 4);
    rows.text_sparse[8] = bad;
    EXPECT_THROW(evaluate_metric(entry(), rows.evidence()), NotFinite);
  }
  Rows rows(9, 4, 4);
  rows.lse_sparse[2] = kNaN;
  EXPECT_THROW(evaluate_metric(entry(), rows.evidence()), NotFinite);
}

TEST_P(EveryMetric, NoRowsIsNoValue) {
  const Rows rows(9, 4, 5);
  RowEvidence evidence = rows.evidence();
  evidence.rows = 0;
  const MetricValue result = evaluate_metric(entry(), evidence);
  EXPECT_TRUE(std::isnan(result.value));
  EXPECT_FALSE(result.reason.empty());
}

TEST_P(EveryMetric, MissingEvidenceIsNoValueOrIrrelevant) {
  const Rows rows(9, 4, 6);
  RowEvidence evidence = rows.evidence();
  evidence.lse_sparse = evidence.lse_oracle_row = nullptr;
  evidence.mass_first_frame_dense = evidence.mass_first_frame_sparse = nullptr;
  evidence.mass_text_dense = evidence.mass_text_sparse = nullptr;
  const MetricValue result = evaluate_metric(entry(), evidence);
  EXPECT_NE(std::isnan(result.value), result.reason.empty());
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryMetric, testing::ValuesIn(metric_names()),
                         [](const auto& test) { return test.param; });

TEST(MetricRegistry, NamesAreUniqueAndUnknownOnesAreListed) {
  std::vector<std::string> names = metric_names();
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
  try {
    find_metric("recal");
    FAIL() << "an unknown metric was found";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("recall"), std::string::npos);
  }
}

TEST(Metrics, IdenticalOutputsAreWithoutError) {
  Rows rows(64, 32, 7);
  rows.sparse = rows.dense;
  rows.lse_sparse = rows.lse_dense;
  const RowEvidence evidence = rows.evidence();
  for (const char* name :
       {"rel_l1", "rel_l2", "rmse", "max_abs", "p99_row_error", "worst_row", "lost_mass"}) {
    EXPECT_EQ(value_of(name, evidence).value, 0.0) << name;
  }
  EXPECT_EQ(value_of("recall", evidence).value, 1.0);
  EXPECT_NEAR(value_of("cosine", evidence).value, 1.0, kSumTolerance);
}

TEST(Metrics, ScaledOutputsHaveClosedForms) {
  // Powers of two: every float below is exact.
  Rows rows(64, 32, 8);
  for (std::size_t i = 0; i < rows.sparse.size(); ++i) rows.sparse[i] = -0.5F * rows.dense[i];
  const RowEvidence evidence = rows.evidence();
  for (const char* name : {"rel_l1", "rel_l2", "p99_row_error", "worst_row"}) {
    EXPECT_NEAR(value_of(name, evidence).value, 1.5, kSumTolerance) << name;
  }
  EXPECT_NEAR(value_of("cosine", evidence).value, -1.0, kSumTolerance);
}

TEST(Metrics, HandComputedExample) {
  const float dense[] = {3, 4, 0, 1};
  const float sparse[] = {3, 2, 1, 1};
  const double lse_dense[] = {0.0, 1.0};
  const double lse_sparse[] = {std::log(0.5), 1.0 + std::log(0.25)};
  const double lse_oracle[] = {std::log(0.75), 1.0 + std::log(0.5)};
  const double dense_mass[] = {0.1, 0.2};
  const double sparse_mass[] = {0.4, 0.4};
  RowEvidence e;
  e.rows = 2;
  e.head_dim = 2;
  e.o_dense = dense;
  e.o_sparse = sparse;
  e.lse_dense = lse_dense;
  e.lse_sparse = lse_sparse;
  e.lse_oracle_row = lse_oracle;
  e.mass_first_frame_dense = e.mass_text_dense = dense_mass;
  e.mass_first_frame_sparse = e.mass_text_sparse = sparse_mass;
  const auto expect = [&](const char* name, double value) {
    EXPECT_NEAR(value_of(name, e).value, value, 1e-15 + kSumTolerance * std::abs(value)) << name;
  };
  expect("recall", 0.375);
  expect("lost_mass", 0.625);
  expect("oracle_gap", 0.25);
  expect("rel_l1", 3.0 / 8.0);
  expect("rel_l2", std::sqrt(5.0 / 26.0));
  expect("cosine", (9.0 + 8.0 + 0.0 + 1.0) / std::sqrt(26.0 * 15.0));
  expect("rmse", std::sqrt(5.0 / 4.0));
  expect("max_abs", 2.0);
  expect("worst_row", 1.0);  // row errors 2/5 and 1/1
  expect("p99_row_error", 0.4 + 0.99 * 0.6);
  expect("mass_first_frame", 0.15);
  expect("mass_text", 0.15);
  expect("mass_first_frame_shift", 0.25);
  expect("mass_text_shift", 0.25);
}

TEST(Metrics, LostMassStaysExactNextToZero) {
  Rows rows(1, 4, 9);
  rows.lse_dense = {3.0};
  rows.lse_sparse = {3.0 - 0x1p-40};
  // 1 - exp(-x) = x - x^2/2 …: relative error x/2 = 2^-41.
  EXPECT_NEAR(value_of("lost_mass", rows.evidence()).value / 0x1p-40, 1.0, 0x1p-40);
}

TEST(Metrics, RowsThatKeptNothingHaveNoRecall) {
  Rows rows(2, 4, 10);
  rows.lse_sparse = {-kInf, rows.lse_dense[1]};
  EXPECT_EQ(value_of("recall", rows.evidence()).value, 0.5);
  EXPECT_EQ(value_of("lost_mass", rows.evidence()).value, 0.5);
}

TEST(Metrics, OneRuinedRowShowsInTheWorstRowOnly) {
  Rows rows(1000, 16, 11);
  rows.sparse = rows.dense;
  for (std::size_t d = 0; d < 16; ++d) rows.sparse[16 * 500 + d] = 0.0F;
  const RowEvidence evidence = rows.evidence();
  EXPECT_EQ(value_of("worst_row", evidence).value, 1.0);
  EXPECT_LT(value_of("rel_l2", evidence).value, 0.1);
  EXPECT_EQ(value_of("p99_row_error", evidence).value, 0.0);
}

TEST(Metrics, ZeroReferenceIsUndefinedNotZero) {
  Rows rows(5, 4, 12);
  std::fill(rows.dense.begin(), rows.dense.end(), 0.0F);
  for (const char* name : {"rel_l1", "rel_l2", "cosine", "worst_row", "p99_row_error"}) {
    const MetricValue result = value_of(name, rows.evidence());
    EXPECT_TRUE(std::isnan(result.value)) << name;
    EXPECT_NE(result.reason.find("zero"), std::string::npos) << name << ": " << result.reason;
  }
  EXPECT_TRUE(std::isfinite(value_of("rmse", rows.evidence()).value));
}

TEST(Metrics, LargeOffsetsDoNotCancel) {
  // A running fp32 sum of 1e5 squares near 1 would be off by 1e-3 and more.
  Rows rows(12500, 8, 13);
  std::fill(rows.dense.begin(), rows.dense.end(), 1.0F);
  std::fill(rows.sparse.begin(), rows.sparse.end(), 1.0F + 0x1p-20F);
  EXPECT_NEAR(value_of("rel_l2", rows.evidence()).value / 0x1p-20, 1.0, kSumTolerance);
}

TEST(Metrics, LackingRequiredArraysIsAnError) {
  const Rows rows(5, 4, 14);
  RowEvidence evidence = rows.evidence();
  evidence.lse_dense = nullptr;
  EXPECT_THROW(value_of("recall", evidence), Error);
}

// Evidence may bring the moments of its rows instead of the outputs: the same values in every bit.
TEST(Metrics, MomentsStandForTheOutputs) {
  const Rows rows(300, 24, 21);
  for (const bool sampled : {false, true}) {
    const RowEvidence outputs = rows.evidence(sampled);
    RowEvidence compared = outputs;
    std::vector<RowMoments> moments;
    for (std::int64_t row = 0; row < 300; ++row) {
      moments.push_back(row_moments(&rows.dense[static_cast<std::size_t>(row) * 24],
                                    &rows.sparse[static_cast<std::size_t>(row) * 24], 24));
    }
    compared.o_dense = compared.o_sparse = nullptr;
    compared.moments = moments.data();
    for (const auto& name : metric_names()) {
      const MetricValue a = value_of(name, outputs);
      const MetricValue b = value_of(name, compared);
      EXPECT_EQ(a.reason, b.reason) << name;
      if (!a.reason.empty()) continue;
      EXPECT_EQ(a.value, b.value) << name;
      EXPECT_EQ(std::isnan(a.lo), std::isnan(b.lo)) << name;
      if (!std::isnan(a.lo)) {
        EXPECT_EQ(a.lo, b.lo) << name;
      }
    }
    moments[7].sparse_l2 = kNaN;
    EXPECT_THROW(value_of("recall", compared), NotFinite);
  }
}

TEST(Metrics, LackingOutputsAndMomentsIsAnError) {
  const Rows rows(5, 4, 22);
  RowEvidence evidence = rows.evidence();
  evidence.o_sparse = nullptr;
  EXPECT_THROW(value_of("rel_l2", evidence), Error);
}

TEST(Bootstrap, IsReproducibleAndFollowsTheSeed) {
  const Rows rows(100, 8, 15);
  const RowEvidence evidence = rows.evidence(true);
  Bootstrap other;
  other.seed = 1;
  EXPECT_EQ(value_of("rel_l2", evidence).lo, value_of("rel_l2", evidence).lo);
  EXPECT_NE(value_of("rel_l2", evidence).lo, value_of("rel_l2", evidence, other).lo);
}

TEST(Bootstrap, ManyMetricsEqualOneByOne) {
  const Rows rows(60, 8, 16);
  const RowEvidence evidence = rows.evidence(true);
  std::vector<const MetricEntry*> metrics;
  for (const MetricEntry& entry : metric_registry()) metrics.push_back(&entry);
  const std::vector<MetricValue> together = evaluate_metrics(metrics, evidence);
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const MetricValue alone = evaluate_metric(*metrics[i], evidence);
    EXPECT_EQ(together[i].reason, alone.reason);
    if (!alone.reason.empty()) continue;
    EXPECT_EQ(together[i].value, alone.value) << metrics[i]->spec.name;
    if (!metrics[i]->spec.bootstrap) continue;  // no interval either way
    EXPECT_EQ(together[i].lo, alone.lo) << metrics[i]->spec.name;
    EXPECT_EQ(together[i].hi, alone.hi) << metrics[i]->spec.name;
  }
}

TEST(Bootstrap, WidthMatchesTheNormalIntervalOfAMean) {
  // recall is a mean: half width = 1.96 sd / sqrt(n). A 2.5 % quantile of 1000 resamples has a
  // standard error of about 0.08 sd / sqrt(n), so half widths agree within 5 * 0.08 / sqrt(2) /
  // 1.96.
  const Rows rows(400, 4, 17);
  const MetricValue result = value_of("recall", rows.evidence(true));
  double sum = 0.0;
  double squares = 0.0;
  for (std::size_t i = 0; i < 400; ++i) {
    const double recall = std::exp(rows.lse_sparse[i] - rows.lse_dense[i]);
    sum += recall;
    squares += recall * recall;
  }
  const double deviation = std::sqrt(squares / 400.0 - sum * sum / 160000.0);
  const double half = 1.96 * deviation / 20.0;
  EXPECT_NEAR((result.hi - result.lo) / 2.0 / half, 1.0, 0.15);
}

TEST(Bootstrap, CoversTheTruth) {
  // 100 samples of 200 rows; a 95 % interval misses 5 on average, standard deviation 2.2
  // (percentile intervals of 200 rows a little more): at most 18, almost six deviations above.
  const Rows population(20000, 2, 18);
  const double truth = value_of("rel_l2", population.evidence()).value;
  Bootstrap cheap;
  cheap.resamples = 300;
  int missed = 0;
  for (std::int64_t trial = 0; trial < 100; ++trial) {
    RowEvidence sample = population.evidence(true);
    sample.rows = 200;
    sample.o_dense += trial * 200 * 2;
    sample.o_sparse += trial * 200 * 2;
    sample.lse_dense += trial * 200;
    const MetricValue result = value_of("rel_l2", sample, cheap);
    missed += !(result.lo <= truth && truth <= result.hi);
  }
  EXPECT_LE(missed, 18);
  EXPECT_GE(missed, 1) << "intervals that never miss are too wide";
}

TEST(Bootstrap, OneRowHasAnIntervalOfNoWidth) {
  const MetricValue result = value_of("rel_l2", Rows(1, 4, 19).evidence(true));
  EXPECT_EQ(result.lo, result.value);
  EXPECT_EQ(result.hi, result.value);
}

TEST(Bootstrap, RefusesNonsense) {
  const Rows rows(5, 4, 20);
  EXPECT_THROW(value_of("recall", rows.evidence(true), {-1, 0.95, 0}), Error);
  EXPECT_TRUE(
      std::isnan(value_of("recall", rows.evidence(true), {0, 0.95, 0}).lo));  // 0: none asked
  EXPECT_THROW(value_of("recall", rows.evidence(true), {10, kNaN, 0}), Error);
}

TEST(Quantile, LiesBetweenOrderStatistics) {
  // Row errors 1 … 5 in mixed order; quantiles as numpy.quantile gives them.
  const std::vector<float> dense(5, 1.0F);
  const std::vector<float> sparse = {5.0F, 2.0F, 6.0F, 3.0F, 4.0F};
  const std::vector<double> lse(5, 0.0);
  RowEvidence evidence;
  evidence.rows = 5;
  evidence.head_dim = 1;
  evidence.o_dense = dense.data();
  evidence.o_sparse = sparse.data();
  evidence.lse_dense = lse.data();
  MetricEntry metric = find_metric("p99_row_error");
  for (const auto& [q, value] : std::vector<std::pair<double, double>>{
           {0.0, 1.0}, {0.25, 2.0}, {0.3, 2.2}, {0.5, 3.0}, {0.99, 4.96}, {1.0, 5.0}}) {
    metric.quantile = q;
    EXPECT_NEAR(evaluate_metric(metric, evidence).value, value, 1e-14) << q;
  }
}

TEST(Bootstrap, IntervalOfAQuantileHoldsItsOrderStatistics) {
  // A median of 101 rows with errors 1 … 101: the exact 95 % interval of order statistics is rows
  // 41 to 61 (binomial); the percentile bootstrap stays within a few places of it.
  std::vector<float> dense(101, 1.0F);
  std::vector<float> sparse;
  for (int i = 1; i <= 101; ++i) sparse.push_back(1.0F + static_cast<float>(i * 37 % 101 + 1));
  const std::vector<double> lse(101, 0.0);
  RowEvidence evidence;
  evidence.rows = 101;
  evidence.head_dim = 1;
  evidence.sampled = true;
  evidence.o_dense = dense.data();
  evidence.o_sparse = sparse.data();
  evidence.lse_dense = lse.data();
  MetricEntry metric = find_metric("p99_row_error");
  metric.quantile = 0.5;
  const MetricValue result = evaluate_metric(metric, evidence);
  EXPECT_EQ(result.value, 51.0);
  EXPECT_NEAR(result.lo, 41.0, 4.0);
  EXPECT_NEAR(result.hi, 61.0, 4.0);
}

}  // namespace
}  // namespace raingauge
