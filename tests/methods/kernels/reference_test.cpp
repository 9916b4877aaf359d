// SPDX-License-Identifier: Apache-2.0
// Is the reference right? Against float64: closed forms, and the N x N softmax on small plans of every
// form. The tolerance is that of fp32 scores: dot products of d terms, |score| of a few units.
#include "methods/kernels/reference.h"

#include <gtest/gtest.h>

#include "data/error.h"
#include "methods/kernels/registry.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;

constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

Outputs run(Tensors& tensors, const Plan& plan, int threads = 2) {
  Outputs outputs(tensors.h, tensors.n, tensors.d);
  const auto kernel = find_kernel("reference").make({.threads = threads, .isa = ""});
  const auto prepared = kernel->prepare(plan, tensors.inputs);
  kernel->attend(*prepared, tensors.inputs, outputs.view());
  return outputs;
}

// Scores of N(0, 1) data are at most about 25 here and carry 2^-24 sqrt(d) |q||k| scale, below 1e-5;
// that is the relative error of a weight, and o, lse inherit it.
constexpr double kFp32 = 4e-5;

void expect_exact(const Outputs& got, const Exact& exact, std::int64_t dim,
                  double tolerance = kFp32) {
  for (std::size_t row = 0; row < exact.lse.size(); ++row) {
    if (std::isinf(exact.lse[row])) {
      ASSERT_EQ(got.lse[row], kMinusInf) << "row " << row;
    } else {
      ASSERT_LE(std::abs(double{got.lse[row]} - exact.lse[row]), tolerance) << "row " << row;
    }
    double error = 0.0;
    double norm = 0.0;
    for (std::size_t x = row * at(dim); x < (row + 1) * at(dim); ++x) {
      error += std::pow(double{got.o[x]} - exact.o[x], 2);
      norm += std::pow(exact.o[x], 2);
    }
    ASSERT_LE(std::sqrt(error), tolerance * (std::sqrt(norm) + 1.0)) << "row " << row;
  }
}

TEST(Reference, ZeroQueriesAverageTheValues) {
  std::mt19937 engine(1);
  Tensors tensors(DType::f32, 2, 200, 24);
  tensors.randomise(engine);
  tensors.fill(0, 0.0F);
  const Plan plan = dense_plan(2, 200, 64);
  const Outputs got = run(tensors, plan);
  for (std::int64_t h = 0; h < 2; ++h) {
    std::vector<double> mean(24, 0.0);
    for (std::int64_t k = 0; k < 200; ++k) {
      for (std::size_t x = 0; x < 24; ++x) mean[x] += double{tensors.get(2, h, k)[x]} / 200.0;
    }
    for (std::int64_t q = 0; q < 200; ++q) {
      EXPECT_NEAR(got.lse[at(h * 200 + q)], std::log(200.0), 1e-6);
      for (std::size_t x = 0; x < 24; ++x) {
        ASSERT_NEAR(got.o[at((h * 200 + q) * 24) + x], mean[x], 1e-6);
      }
    }
  }
}

TEST(Reference, TwoKeysGiveTheLogisticFunction) {
  Tensors tensors(DType::f32, 1, 2, 16, Tensors::Form::contiguous, 0.5F);
  std::vector<float> unit(16, 0.0F);
  unit[3] = 1.0F;
  tensors.fill(0, 0.0F);
  tensors.fill(1, 0.0F);
  std::vector<float> q = unit;
  q[3] = 3.0F;
  tensors.set(0, 0, 0, q);
  tensors.set(1, 0, 0, unit);  // scores of query 0: 1.5 and 0
  tensors.set(2, 0, 0, std::vector<float>(16, 1.0F));
  tensors.set(2, 0, 1, std::vector<float>(16, -1.0F));
  const Outputs got = run(tensors, dense_plan(1, 2, 1));
  const double p = 1.0 / (1.0 + std::exp(-1.5));
  EXPECT_NEAR(got.o[0], 2.0 * p - 1.0, 1e-7);
  EXPECT_NEAR(got.lse[0], std::log(1.0 + std::exp(1.5)), 1e-6);
  EXPECT_NEAR(got.o[16], 0.0, 1e-7);  // query 1 is zero: both keys weigh the same
  EXPECT_NEAR(got.lse[1], std::log(2.0), 1e-6);
}

TEST(Reference, AnExtremeScoreSelectsOneKey) {
  std::mt19937 engine(2);
  Tensors tensors(DType::f32, 1, 300, 32, Tensors::Form::contiguous, 1.0F);
  tensors.randomise(engine);
  for (std::int64_t q = 0; q < 300; ++q) {
    std::vector<float> key(32, 0.0F);
    std::vector<float> query(32, 0.0F);
    query[0] = 100.0F;
    key[0] = q == 250 ? 100.0F : -100.0F;  // scores +-1e4; the largest comes in the last tile
    tensors.set(0, 0, q, query);
    tensors.set(1, 0, q, key);
  }
  const Outputs got = run(tensors, dense_plan(1, 300, 64));
  const std::vector<float> value = tensors.get(2, 0, 250);
  for (std::int64_t q = 0; q < 300; ++q) {
    EXPECT_EQ(got.lse[at(q)], 1e4F);
    for (std::size_t x = 0; x < 32; ++x) ASSERT_EQ(got.o[at(q * 32) + x], value[x]);
  }
}

struct Case {
  DType dtype;
  std::int64_t heads, tokens, dim;
  int block;
  Tensors::Form form;
  PlanForm plan;
  bool mask;
};

class ReferencePlans : public ::testing::TestWithParam<Case> {};

TEST_P(ReferencePlans, MatchesFloat64) {
  const Case& c = GetParam();
  std::mt19937 engine(7);
  Tensors tensors(c.dtype, c.heads, c.tokens, c.dim, c.form);
  tensors.randomise(engine);
  std::vector<std::uint8_t> valid(at(c.tokens));
  for (auto& flag : valid) flag = engine() % 5 != 0;
  if (c.mask) tensors.inputs.key_valid = valid.data();
  const Plan plan = random_plan(c.heads, c.tokens, c.block, c.plan, engine);
  if (!c.plan.empty_lists && !c.mask) check_plan(plan, tensors.inputs.key_valid);
  expect_exact(run(tensors, plan), exact_attention(tensors, plan), c.dim);
}

using Form = Tensors::Form;
INSTANTIATE_TEST_SUITE_P(
    Forms, ReferencePlans,
    ::testing::Values(
        Case{DType::f32, 2, 257, 32, 32, Form::contiguous, {}, false},
        Case{DType::bf16, 3, 200, 64, 16, Form::interleaved, {.orders = true}, false},
        Case{DType::f16, 2, 300, 40, 32, Form::padded, {.orders = true, .per_head = true}, false},
        Case{DType::f32,
             3,
             301,
             72,
             32,
             Form::contiguous,
             {.orders = true, .per_head = true, .ragged = true, .empty_blocks = true},
             false},
        Case{DType::bf16,
             2,
             190,
             128,
             48,
             Form::interleaved,
             {.orders = true, .ragged = true, .empty_blocks = true, .keep = 0.3},
             true},
        Case{DType::f32,
             2,
             150,
             16,
             8,
             Form::padded,
             {.orders = true, .per_head = true, .ragged = true, .keep = 0.1, .empty_lists = true},
             true},
        Case{DType::f32, 1, 400, 16, 300, Form::contiguous, {.ragged = true, .keep = 1.0}, false}));

TEST(Reference, RaggedTokenCounts) {
  for (const std::int64_t n : {1, 7, 63, 64, 65, 127, 128, 129, 255}) {
    std::mt19937 engine(static_cast<unsigned>(n));
    Tensors tensors(DType::f32, 1, n, 16);
    tensors.randomise(engine);
    const Plan plan = random_plan(1, n, 64, {.orders = true}, engine);
    expect_exact(run(tensors, plan), exact_attention(tensors, plan), 16);
  }
}

TEST(Reference, ThreadsDoNotChangeABit) {
  std::mt19937 engine(3);
  Tensors tensors(DType::bf16, 2, 333, 64);
  tensors.randomise(engine);
  const Plan plan = random_plan(2, 333, 32, {.orders = true, .ragged = true}, engine);
  const Outputs one = run(tensors, plan, 1);
  const Outputs four = run(tensors, plan, 4);
  EXPECT_EQ(one.o, four.o);
  EXPECT_EQ(one.lse, four.lse);
}

TEST(Reference, ChosenBlocksEqualTheWholeKernel) {
  std::mt19937 engine(4);
  Tensors tensors(DType::f32, 2, 500, 32);
  tensors.randomise(engine);
  const Plan plan =
      random_plan(2, 500, 40, {.orders = true, .per_head = true, .ragged = true}, engine);
  const Outputs whole = run(tensors, plan);
  const std::vector<std::int64_t> blocks = {0, 3, 2};
  std::int64_t rows = 0;
  for (const std::int64_t b : blocks) rows += plan.q_blocks.size(1, b);
  std::vector<float> o(at(rows * 32)), lse(at(rows));
  std::vector<RowScale> scales(at(rows));
  reference_query_blocks(tensors.inputs, plan, 1, blocks, o.data(), lse.data(), scales.data());
  std::size_t row = 0;
  for (const std::int64_t b : blocks) {
    for (auto x = plan.q_blocks.begin(1, b); x < plan.q_blocks.end(1, b); ++x, ++row) {
      const std::size_t token = at(500 + plan.q_order.token(1, x));
      EXPECT_EQ(lse[row], whole.lse[token]);
      for (std::size_t i = 0; i < 32; ++i) ASSERT_EQ(o[row * 32 + i], whole.o[token * 32 + i]);
    }
  }
  EXPECT_THROW(
      reference_query_blocks(tensors.inputs, plan, 1, {plan.q_blocks.blocks}, o.data(), lse.data()),
      Error);
}

// error_scale from its definition, with float64 weights.
TEST(Reference, RowScaleFollowsItsDefinition) {
  std::mt19937 engine(5);
  const std::int64_t n = 300;
  Tensors tensors(DType::f32, 1, n, 16);
  tensors.randomise(engine, 1.5F);
  const Plan plan = dense_plan(1, n, 300);
  std::vector<float> o(at(n * 16)), lse(at(n));
  std::vector<RowScale> scales(at(n));
  reference_query_blocks(tensors.inputs, plan, 0, {0}, o.data(), lse.data(), scales.data());
  for (const std::int64_t q : {0, 17, 299}) {
    double token_term = 0.0, tile_term = 0.0, o_norm2 = 0.0, longest = 0.0, q_norm2 = 0.0;
    double largest = -1e9;
    std::vector<double> tile(16, 0.0);
    for (std::int64_t k = 0; k < n; ++k) {
      double dot = 0.0, v2 = 0.0, k2 = 0.0;
      for (std::size_t x = 0; x < 16; ++x) {
        dot += double{tensors.get(0, 0, q)[x]} * double{tensors.get(1, 0, k)[x]};
        v2 += std::pow(double{tensors.get(2, 0, k)[x]}, 2);
        k2 += std::pow(double{tensors.get(1, 0, k)[x]}, 2);
      }
      const double score = dot * double{tensors.inputs.scale};
      const double p = std::exp(score - double{lse[at(q)]});
      largest = std::max(largest, score);
      longest = std::max(longest, std::sqrt(k2));
      token_term += p * p * v2;
      for (std::size_t x = 0; x < 16; ++x) tile[x] += p * double{tensors.get(2, 0, k)[x]};
      if (k % 128 == 127 || k == n - 1) {
        for (double& value : tile) tile_term += value * value;
        std::fill(tile.begin(), tile.end(), 0.0);
      }
    }
    for (std::size_t x = 0; x < 16; ++x) {
      o_norm2 += std::pow(double{o[at(q * 16) + x]}, 2);
      q_norm2 += std::pow(double{tensors.get(0, 0, q)[x]}, 2);
    }
    const RowScale& scale = scales[at(q)];
    EXPECT_NEAR(scale.error_scale, std::sqrt(std::max({token_term, tile_term, o_norm2})),
                1e-4 * scale.error_scale);
    EXPECT_NEAR(scale.score_bound, double{tensors.inputs.scale} * std::sqrt(q_norm2) * longest,
                1e-4);
    EXPECT_NEAR(scale.row_max, largest, 1e-4);
    EXPECT_EQ(scale.keys, n);
  }
}

TEST(Reference, RefusesInputsThatDisagree) {
  Tensors tensors(DType::f32, 2, 64, 16);
  tensors.fill(0, 0.0F);
  const Plan plan = dense_plan(2, 64, 32);
  const auto kernel = find_kernel("reference").make();
  AttendInputs wrong = tensors.inputs;
  wrong.k.tokens = 63;
  EXPECT_THROW(kernel->prepare(plan, wrong), Error);
  wrong = tensors.inputs;
  wrong.v.dtype = DType::bf16;
  EXPECT_THROW(kernel->prepare(plan, wrong), Error);
  wrong = tensors.inputs;
  wrong.scale = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(kernel->prepare(plan, wrong), NotFinite);
  EXPECT_THROW(kernel->prepare(dense_plan(2, 65, 32), tensors.inputs), Error);
  wrong = tensors.inputs;
  for (TensorView* view : {&wrong.q, &wrong.k, &wrong.v}) view->device.kind = DeviceKind::cuda;
  EXPECT_TRUE(kernel->supports(plan, wrong).has_value());
  Plan with_term = plan;
  with_term.terms.push_back({"coarse"});
  EXPECT_TRUE(kernel->supports(with_term, tensors.inputs).has_value());
}

TEST(Reference, DensityIsThatOfThePairs) {
  std::mt19937 engine(6);
  Tensors tensors(DType::f32, 1, 100, 16);
  const Plan plan = random_plan(1, 100, 16, {.ragged = true, .keep = 0.4}, engine);
  const auto prepared = find_kernel("reference").make()->prepare(plan, tensors.inputs);
  double pairs = 0.0;
  for (const char sees : visibility(plan, nullptr)) pairs += sees;
  EXPECT_DOUBLE_EQ(prepared->density_tiles(), pairs / 1e4);
}

}  // namespace
}  // namespace raingauge
