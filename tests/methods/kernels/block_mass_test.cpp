// SPDX-License-Identifier: Apache-2.0
// The mass oracle at every instruction-set level of this machine against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "data/error.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/cpu/judge.h"
#include "methods/kernels/row_evaluator.h"
#include "tests/methods/kernels/cpu_test_support.h"

namespace raingauge {
namespace {

using test::Kept;
using test::Problem;

class BlockMassTest : public test::LevelTest {
 protected:
  std::vector<float> mass(Problem& problem, std::int64_t head, int threads = 1) const {
    return cpu::block_mass_at(cpu::level_ops(GetParam()), problem.record(), head, problem.plan,
                              threads);
  }

  void expect_exact(Problem& problem, std::int64_t head) const {
    const Plan& plan = problem.plan;
    const Kept where(plan);
    const test::ExactHead exact_head(problem, head);
    const auto columns = static_cast<std::size_t>(plan.k_blocks.blocks);
    std::vector<double> expected(static_cast<std::size_t>(plan.q_blocks.blocks) * columns, 0.0);
    std::vector<int> rows(static_cast<std::size_t>(plan.q_blocks.blocks), 0);
    double relative = 0.0;
    for (std::int64_t i = 0; i < plan.tokens; ++i) {
      if (!problem.is_valid(i)) {
        continue;
      }
      const test::Exact exact = exact_head.row(i, [](std::int64_t) { return true; });
      relative = std::max(relative, test::error_bound(exact, problem.q.view.head_dim, false).p);
      const auto block = static_cast<std::size_t>(where.query_block(head, i));
      ++rows[block];
      for (std::int64_t j = 0; j < plan.tokens; ++j) {
        expected[block * columns + static_cast<std::size_t>(where.key_block(head, j))] +=
            exact.p[static_cast<std::size_t>(j)];
      }
    }
    const std::vector<float> found = mass(problem, head);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t b = 0; b < rows.size(); ++b) {
      double sum = 0.0;
      for (std::size_t j = 0; j < columns; ++j) {
        const double value = rows[b] == 0 ? 0.0 : expected[b * columns + j] / rows[b];
        const auto got = static_cast<double>(found[b * columns + j]);
        // Shares of rows are relative to p's error; two more exponentials and roundings a block.
        ASSERT_TRUE(std::abs(got - value) <= (relative + 1e-6) * value + 1e-30)
            << "block " << b << ", " << j << ": " << got << ", exact " << value;
        sum += got;
      }
      ASSERT_TRUE(std::abs(sum - (rows[b] == 0 ? 0.0 : 1.0)) <= 1e-5) << sum;
    }
  }
};

TEST_P(BlockMassTest, UniformBlocks) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const int dim : {5, 16, 64, 72}) {
      Problem problem = test::make_problem(dtype, 1, 145, dim, 32, random);
      problem.scale = 2.0 / std::sqrt(dim);
      expect_exact(problem, 0);
    }
  }
}

TEST_P(BlockMassTest, RandomLayouts) {
  const std::uint32_t seed = test::fresh_seed();
  std::mt19937 random(seed);
  for (int trial = 0; trial < 12; ++trial) {
    SCOPED_TRACE("seed " + std::to_string(seed) + " trial " + std::to_string(trial));
    const int tokens = trial < 9 ? 140 : 420;  // blocks longer than a tile as well
    Problem problem =
        test::make_problem(trial % 2 ? DType::bf16 : DType::f32, 2, tokens, 8, 16, random);
    problem.plan.q_order = test::random_order(2, tokens, trial % 3 == 0, random);
    problem.plan.k_order = test::random_order(2, tokens, trial % 3 == 1, random);
    problem.plan.q_blocks =
        test::random_layout(2, tokens, trial < 9 ? 7 : 2, trial % 3 == 0, random);
    problem.plan.k_blocks =
        test::random_layout(2, tokens, trial < 9 ? 8 : 3, trial % 3 == 1, random);
    test::randomise_lists(problem.plan, 0.0, random);  // lists are not read
    if (trial % 4 == 1) {
      problem.valid.assign(static_cast<std::size_t>(tokens), 1);
      for (int i = 0; i < tokens; i += 3) {
        problem.valid[static_cast<std::size_t>(i)] = 0;
      }
    }
    problem.scale = trial % 5 == 0 ? -0.9 : 0.8;
    expect_exact(problem, trial % 2);
  }
}

TEST_P(BlockMassTest, SharpRows) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Problem problem = test::make_problem(DType::bf16, 1, 128, 16, 32, random);
  problem.scale = 16.0;  // nearly all of a row's mass on one key; most blocks underflow to 0
  expect_exact(problem, 0);
}

TEST_P(BlockMassTest, SameBitsForAnyThreadCount) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::bf16, 1, 500, 32, 64, random);
  EXPECT_EQ(mass(problem, 0, 1), mass(problem, 0, 3));
}

TEST_P(BlockMassTest, NotFiniteIsAnError) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::bf16, 1, 100, 16, 25, random);
  problem.q.set(0, 60, 3, std::nanf(""));
  try {
    mass(problem, 0);
    FAIL() << "NaN in Q was not seen";
  } catch (const NotFinite& error) {
    EXPECT_NE(std::string(error.what()).find("head 0, query block 2"), std::string::npos)
        << error.what();
  }
  problem.valid.assign(100, 1);
  problem.valid[60] = 0;  // an invalid token is not a judged row
  EXPECT_NO_THROW(mass(problem, 0));
}

RAINGAUGE_EVERY_LEVEL(BlockMassTest);

// The share of a block is what the row evaluator finds for a plan that keeps that block alone.
TEST(BlockMass, AgreesWithTheRowEvaluator) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::bf16, 1, 96, 32, 32, random);
  const std::vector<float> mass = block_mass(problem.record(), 0, problem.plan);
  Plan single = problem.plan;
  single.lists.row_offsets = {0, 1, 2, 3};
  RowSample sample;
  for (std::int32_t i = 32; i < 64; ++i) {
    sample.tokens.push_back(i);
  }
  const RowResults dense = evaluate_rows(problem.record(), 0, sample, nullptr);
  for (std::int32_t j = 0; j < 3; ++j) {
    single.lists.columns = {j, j, j};
    const RowResults sparse = evaluate_rows(problem.record(), 0, sample, &single);
    double mean = 0.0;
    for (std::size_t r = 0; r < 32; ++r) {
      mean += std::exp(sparse.lse[r] - dense.lse[r]) / 32.0;
    }
    EXPECT_NEAR(static_cast<double>(mass[static_cast<std::size_t>(3 + j)]), mean, 1e-5 * mean);
  }
}

}  // namespace
}  // namespace raingauge
