// SPDX-License-Identifier: Apache-2.0
// The fp32 judge at every instruction-set level of this machine against float64.
#include "methods/kernels/row_evaluator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "data/error.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/cpu/judge.h"
#include "tests/methods/kernels/cpu_test_support.h"

namespace raingauge {
namespace {

using test::Kept;
using test::Problem;
using test::Storage;

RowSample every(std::int64_t step, std::int64_t tokens, std::int64_t first = 0) {
  RowSample sample;
  for (std::int64_t i = first; i < tokens; i += step) {
    sample.tokens.push_back(static_cast<std::int32_t>(i));
  }
  return sample;
}

Segments video_and_text(std::int64_t text_before, int frames, int height, int width,
                        std::int64_t text_after) {
  Segments segments;
  std::int64_t at = 0;
  if (text_before > 0) {
    segments.push_back({Role::text, 0, text_before, 0, 0, 0});
    at = text_before;
  }
  const std::int64_t length = std::int64_t{frames} * height * width;
  segments.push_back({Role::video, at, length, frames, height, width});
  if (text_after > 0) {
    segments.push_back({Role::text, at + length, text_after, 0, 0, 0});
  }
  return segments;
}

class RowEvaluatorTest : public test::LevelTest {
 protected:
  RowResults evaluate(Problem& problem, std::int64_t head, const RowSample& sample,
                      const Plan* plan, int threads = 1) const {
    return cpu::evaluate_rows_at(cpu::level_ops(GetParam()), problem.record(), head, sample, plan,
                                 threads);
  }

  void expect_exact(Problem& problem, std::int64_t head, const RowSample& sample,
                    const Plan* plan) const {
    const RowResults results = evaluate(problem, head, sample, plan);
    const Kept kept(problem.plan);
    const test::ExactHead exact_head(problem, head);
    const std::int64_t dim = problem.q.view.head_dim;
    // Matrix tiles multiply weights in two bf16 parts, which leaves 2^-18.
    const bool tiles = cpu::level_ops(GetParam()).shape(problem.q.view.dtype, 8).tiles();
    const double split = tiles ? 0x1p-18 : 0.0;
    ASSERT_EQ(results.rows, static_cast<std::int64_t>(sample.tokens.size()));
    ASSERT_EQ(results.head_dim, dim);
    ASSERT_EQ(results.o.size(), sample.tokens.size() * static_cast<std::size_t>(dim));
    for (std::size_t r = 0; r < sample.tokens.size(); ++r) {
      const std::int64_t i = sample.tokens[r];
      const test::Exact exact =
          exact_head.row(i, [&](std::int64_t j) { return plan == nullptr || kept(head, i, j); });
      const test::Bound bound = test::error_bound(exact, dim, false);
      SCOPED_TRACE("head " + std::to_string(head) + " row " + std::to_string(i));
      if (exact.keys == 0) {
        ASSERT_EQ(results.lse[r], -test::kInfinity);
      } else {
        ASSERT_TRUE(std::abs(results.lse[r] - exact.lse) <= bound.lse)
            << results.lse[r] << " exact " << exact.lse << " allowed " << bound.lse;
      }
      for (std::int64_t c = 0; c < dim; ++c) {
        const auto at = static_cast<std::size_t>(c);
        const auto o = static_cast<double>(results.o[r * static_cast<std::size_t>(dim) + at]);
        ASSERT_TRUE(std::abs(o - exact.o[at]) <= (bound.p + split) * exact.o_abs[at] + 1e-30)
            << o << " exact " << exact.o[at];
      }
      expect_masses(problem, results, r, exact, bound);
    }
  }

  static void expect_masses(const Problem& problem, const RowResults& results, std::size_t r,
                            const test::Exact& exact, const test::Bound& bound) {
    double first = 0.0, text = 0.0;
    bool video_seen = false;
    for (const Segment& segment : problem.info.segments) {
      const bool video = segment.role == Role::video && !video_seen;
      video_seen = video_seen || segment.role == Role::video;
      for (std::int64_t j = segment.start; j < segment.end(); ++j) {
        const double p = exact.p[static_cast<std::size_t>(j)];
        first += video && j < segment.start + segment.frame_size() ? p : 0.0;
        text += segment.role == Role::text ? p : 0.0;
      }
    }
    ASSERT_TRUE(std::abs(results.mass_first_frame[r] - first) <= bound.p * first);
    ASSERT_TRUE(std::abs(results.mass_text[r] - text) <= bound.p * text);
  }
};

TEST_P(RowEvaluatorTest, DenseAllTypes) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  int trial = 0;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const int dim : {5, 16, 64, 72}) {
      Problem problem =
          test::make_problem(dtype, 2, 167, dim, 32, random, static_cast<Storage>(trial++ % 3));
      problem.info.segments = video_and_text(7, 4, 5, 8, 0);
      expect_exact(problem, 1, every(3, 167, 1), nullptr);
    }
  }
}

TEST_P(RowEvaluatorTest, RandomPlans) {
  const std::uint32_t seed = test::fresh_seed();
  std::mt19937 random(seed);
  for (int trial = 0; trial < 18; ++trial) {
    SCOPED_TRACE("seed " + std::to_string(seed) + " trial " + std::to_string(trial));
    const int heads = test::random_int(random, 1, 3);
    const int dim = 8 * test::random_int(random, 1, 4);
    Problem problem =
        test::make_problem(trial % 2 ? DType::bf16 : DType::f32, heads, 130, dim, 16, random);
    const bool per_head = trial % 3 == 0;
    problem.info.segments = video_and_text(0, 3, 4, 10, 10);
    problem.plan.q_order = test::random_order(heads, 130, per_head, random);
    problem.plan.k_order = test::random_order(heads, 130, !per_head, random);
    problem.plan.q_blocks = test::random_layout(heads, 130, 6, per_head, random);
    problem.plan.k_blocks = test::random_layout(heads, 130, 9, !per_head, random);
    test::randomise_lists(problem.plan, 0.4, random);
    if (trial % 4 == 1) {
      problem.valid.resize(130);
      for (auto& valid : problem.valid) {
        valid = static_cast<std::uint8_t>(test::random_int(random, 0, 2) != 0);
      }
    }
    const double scales[] = {problem.scale, -0.7, 0.0};
    problem.scale = scales[trial % 3];
    for (int head = 0; head < heads; ++head) {
      expect_exact(problem, head, every(2, 130), &problem.plan);
    }
  }
}

TEST_P(RowEvaluatorTest, ExponentialIsAccurate) {
  std::mt19937 random(1);
  Problem problem = test::make_exponentials(DType::f32, random);
  const RowResults results = evaluate(problem, 0, every(1, 129), nullptr);
  for (std::size_t i = 0; i < results.lse.size(); ++i) {
    const double e = std::exp(-static_cast<double>(i) / 64.0);
    // 6e-7 on e: the exponent of up to 2.9 is rounded twice; and the rounding of a sum.
    ASSERT_TRUE(std::abs(results.lse[i] - std::log1p(e)) <= 6e-7 * e / (1.0 + e) + 0x1p-24) << i;
  }
}

// 20,000 keys: several segments, whose states are merged.
TEST_P(RowEvaluatorTest, ManyKeys) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Problem problem = test::make_problem(DType::f32, 1, 20000, 4, 128, random);
  for (std::int64_t j = 9000; j < 9100; ++j) {
    problem.k.set(0, j, 0, 30.0F);  // the largest scores come in the middle
  }
  problem.info.segments = video_and_text(100, 199, 10, 10, 0);
  expect_exact(problem, 0, every(4001, 20000, 5), nullptr);
}

// 550 rows, more than one batch holds.
TEST_P(RowEvaluatorTest, ManyRows) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Problem problem = test::make_problem(DType::bf16, 1, 1100, 4, 100, random);
  problem.plan.q_order = test::random_order(1, 1100, false, random);
  test::randomise_lists(problem.plan, 0.3, random);
  expect_exact(problem, 0, every(2, 1100), &problem.plan);
}

TEST_P(RowEvaluatorTest, RecallOfAPlanThatKeepsEverythingIsOne) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::bf16, 1, 700, 64, 60, random);
  problem.plan.q_order = test::random_order(1, 700, false, random);
  problem.plan.k_order = test::random_order(1, 700, false, random);
  const RowSample sample = every(7, 700);
  const RowResults dense = evaluate(problem, 0, sample, nullptr);
  const RowResults kept = evaluate(problem, 0, sample, &problem.plan);
  for (std::size_t r = 0; r < sample.tokens.size(); ++r) {
    // Scores are the same bits; tiles differ, and with them the fp32 sums of 128 terms.
    EXPECT_TRUE(std::abs(std::exp(kept.lse[r] - dense.lse[r]) - 1.0) <= 1e-6)
        << kept.lse[r] - dense.lse[r];
  }
}

// With a single attended key, lse is that key's scaled score: dense and sparse must agree in every
// bit, wherever the key and the row stand.
TEST_P(RowEvaluatorTest, ScoresAreTheSameBitsInDenseAndSparse) {
  std::mt19937 random(test::fresh_seed());
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Problem problem = test::make_problem(dtype, 1, 90, 40, 90, random);
    for (const int key : {0, 17, 50, 89}) {
      problem.valid.assign(90, 0);
      problem.valid[static_cast<std::size_t>(key)] = 1;
      const RowSample all = every(1, 90);
      const RowResults dense = evaluate(problem, 0, all, nullptr);
      problem.valid.clear();
      Plan plan = problem.plan;
      plan.k_order = test::random_order(1, 90, false, random);
      const auto at = static_cast<std::int32_t>(
          std::find(plan.k_order.index.begin(), plan.k_order.index.end(), key) -
          plan.k_order.index.begin());
      plan.k_blocks.blocks = 3;
      plan.k_blocks.offsets = {0, at, at + 1, 90};
      plan.lists.row_offsets = {0, 1};
      plan.lists.columns = {1};
      for (const int step : {1, 7, 31}) {
        const RowSample some = every(step, 90);
        const RowResults sparse = evaluate(problem, 0, some, &plan);
        for (std::size_t r = 0; r < some.tokens.size(); ++r) {
          ASSERT_EQ(sparse.lse[r], dense.lse[static_cast<std::size_t>(some.tokens[r])]);
        }
      }
    }
  }
}

// 284 rows: with several threads the last segments are cut into parts of 128.
TEST_P(RowEvaluatorTest, SameBitsForAnyThreadCount) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::f32, 1, 17000, 4, 100, random);
  problem.info.segments = video_and_text(100, 169, 10, 10, 0);
  test::randomise_lists(problem.plan, 0.3, random);
  const RowSample sample = every(60, 17000);
  for (const Plan* plan :
       {static_cast<const Plan*>(nullptr), static_cast<const Plan*>(&problem.plan)}) {
    const RowResults once = evaluate(problem, 0, sample, plan, 1);
    for (const int threads : {2, 3, 16}) {
      const RowResults again = evaluate(problem, 0, sample, plan, threads);
      EXPECT_EQ(once.o, again.o) << threads;
      EXPECT_EQ(once.lse, again.lse) << threads;
      EXPECT_EQ(once.mass_text, again.mass_text) << threads;
      EXPECT_EQ(once.mass_first_frame, again.mass_first_frame) << threads;
    }
  }
}

TEST_P(RowEvaluatorTest, NotFiniteNamesHeadAndToken) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::f32, 2, 60, 8, 20, random);
  problem.q.set(1, 40, 2, std::nanf(""));
  EXPECT_NO_THROW(evaluate(problem, 1, every(1, 40), nullptr));
  EXPECT_NO_THROW(evaluate(problem, 0, every(1, 60), nullptr));
  try {
    evaluate(problem, 1, every(10, 60), nullptr);
    FAIL() << "NaN in Q was not seen";
  } catch (const NotFinite& error) {
    EXPECT_NE(std::string(error.what()).find("head 1, query token 40"), std::string::npos)
        << error.what();
  }
  problem.q.set(1, 40, 2, 0.0F);
  problem.v.set(1, 3, 0, std::numeric_limits<float>::infinity());
  EXPECT_THROW(evaluate(problem, 1, every(10, 60), nullptr), NotFinite);
  problem.plan.lists.row_offsets = {0, 1, 2, 3, 4, 5, 6};
  problem.plan.lists.columns = {1, 1, 2, 1, 1, 2};  // block 0 is not attended
  EXPECT_NO_THROW(evaluate(problem, 1, every(10, 60), &problem.plan));
}

RAINGAUGE_EVERY_LEVEL(RowEvaluatorTest);

TEST(RowEvaluator, RefusesWrongArguments) {
  std::mt19937 random(1);
  Problem problem = test::make_problem(DType::f32, 1, 20, 8, 20, random);
  const RecordView record = problem.record();
  EXPECT_THROW(evaluate_rows(record, 1, every(1, 20), nullptr), Error);
  EXPECT_THROW(evaluate_rows(record, 0, RowSample{{20}}, nullptr), Error);
  EXPECT_THROW(evaluate_rows(record, 0, RowSample{{-1}}, nullptr), Error);
  const Plan other = dense_plan(1, 21, 7);
  EXPECT_THROW(evaluate_rows(record, 0, every(1, 20), &other), Error);
  EXPECT_EQ(evaluate_rows(record, 0, RowSample{}, nullptr).rows, 0);
}

TEST(RowEvaluator, FirstVideoSegmentOnly) {
  std::mt19937 random(1);
  Problem problem = test::make_problem(DType::f32, 1, 24, 8, 24, random);
  for (std::int64_t j = 0; j < 24; ++j) {
    for (std::int64_t c = 0; c < 8; ++c) {
      problem.k.set(0, j, c, 0.0F);  // every key has the same share, 1/24
    }
  }
  problem.info.segments = {{Role::image, 0, 4, 1, 2, 2},
                           {Role::video, 4, 8, 2, 2, 2},
                           {Role::text, 12, 3, 0, 0, 0},
                           {Role::video, 15, 8, 2, 2, 2},
                           {Role::text, 23, 1, 0, 0, 0}};
  RowResults results = evaluate_rows(problem.record(), 0, every(5, 24), nullptr);
  for (std::size_t r = 0; r < results.lse.size(); ++r) {
    EXPECT_NEAR(results.mass_first_frame[r], 4.0 / 24.0, 1e-6);
    EXPECT_NEAR(results.mass_text[r], 4.0 / 24.0, 1e-6);
  }
  problem.info.segments = {{Role::image, 0, 24, 1, 4, 6}};
  results = evaluate_rows(problem.record(), 0, every(5, 24), nullptr);
  EXPECT_EQ(results.mass_first_frame[0], 0.0);
  EXPECT_EQ(results.mass_text[0], 0.0);
}

}  // namespace
}  // namespace raingauge
