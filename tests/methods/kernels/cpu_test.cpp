// SPDX-License-Identifier: Apache-2.0
// The `cpu` kernel at every instruction-set level of this machine against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "data/error.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/kernel.h"
#include "tests/methods/kernels/cpu_kernel_fixture.h"

namespace raingauge {

namespace {

using test::attend;
using test::CpuKernelTest;
using test::expect_exact;
using test::inputs_of;
using test::Kept;
using test::Output;
using test::Problem;
using test::Storage;

constexpr DType kAllTypes[] = {DType::f32, DType::f16, DType::bf16};

TEST_P(CpuKernelTest, DenseListEveryTypeAndHeadDim) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const DType dtype : kAllTypes) {
    for (const int dim : {8, 40, 64, 72, 128, 256}) {
      SCOPED_TRACE(std::string(name_of(dtype)) + " head_dim " + std::to_string(dim));
      expect_right(test::make_problem(dtype, 1, 75, dim, 32, random));
    }
  }
}

TEST_P(CpuKernelTest, RaggedLengths) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const int tokens : {1, 7, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(std::string(name_of(dtype)) + " tokens " + std::to_string(tokens));
      expect_right(test::make_problem(dtype, 1, tokens, 16, 128, random));
    }
  }
}

// Clusters of any size, per-head orders and layouts, masks, strides, both signs of the scale.
TEST_P(CpuKernelTest, RandomPlans) {
  const std::uint32_t seed = test::fresh_seed();
  std::mt19937 random(seed);
  for (int trial = 0; trial < 24; ++trial) {
    SCOPED_TRACE("seed " + std::to_string(seed) + " trial " + std::to_string(trial));
    const int heads = test::random_int(random, 1, 3);
    const int tokens = test::random_int(random, 1, 180);
    const int dim = 8 * test::random_int(random, 1, 6);
    const auto storage = static_cast<Storage>(test::random_int(random, 0, 2));
    Problem problem =
        test::make_problem(kAllTypes[trial % 3], heads, tokens, dim, 16, random, storage);
    const bool per_head = test::random_int(random, 0, 1) != 0;
    Plan& plan = problem.plan;
    plan.q_order = test::random_order(heads, tokens, per_head, random);
    if (test::random_int(random, 0, 3) != 0) {
      plan.k_order = test::random_order(heads, tokens, !per_head, random);
    }
    plan.q_blocks =
        test::random_layout(heads, tokens, test::random_int(random, 1, 9), per_head, random);
    plan.k_blocks =
        test::random_layout(heads, tokens, test::random_int(random, 1, 14), !per_head, random);
    test::randomise_lists(plan, test::random_int(random, 0, 10) / 10.0, random);
    if (trial % 4 == 1) {
      problem.valid.resize(static_cast<std::size_t>(tokens));
      for (auto& valid : problem.valid) {
        valid = static_cast<std::uint8_t>(test::random_int(random, 0, 1));
      }
    }
    const double scales[] = {problem.scale, -problem.scale, 0.0, 1.0};
    problem.scale = static_cast<double>(static_cast<float>(scales[trial % 4]));
    expect_right(problem);
  }
}

TEST_P(CpuKernelTest, LargeClustersAndLongLists) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Problem problem = test::make_problem(dtype, 1, 338, 24, 128, random);
    problem.plan.q_blocks.blocks = problem.plan.k_blocks.blocks = 4;
    problem.plan.q_blocks.offsets = problem.plan.k_blocks.offsets = {0, 1, 38, 38, 338};
    test::randomise_lists(problem.plan, 1.0, random);
    expect_right(problem);
  }
}

// Several visits of 1,024 keys by several groups of 32 rows (matrix tiles), the last of each ragged;
// the maximum grows in every chunk for rows whose first channel is positive.
TEST_P(CpuKernelTest, GrowingMaximaInLongLists) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  constexpr std::int64_t kTokens = 2291;
  for (const std::int64_t dim : {std::int64_t{64}, std::int64_t{72}, std::int64_t{136}}) {
    Problem problem = test::make_problem(DType::bf16, 1, kTokens, dim, 99, random);
    for (std::int64_t j = 0; j < kTokens; ++j) {
      problem.k.set(0, j, 0, static_cast<float>(j / 128 * 8));
    }
    problem.scale = 1.0;
    test::randomise_lists(problem.plan, 0.9, random);
    expect_right(problem);
  }
}

TEST_P(CpuKernelTest, ExtremeLogits) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    // Logits of about +-1e4, one outlier a row.
    Problem large = test::make_problem(dtype, 1, 150, 32, 32, random);
    large.scale = 1024.0;
    expect_right(large);
    // The maximum grows in every chunk of 128 keys (rescaling), or falls (never rescaled).
    for (const float slope : {1.0F, -1.0F}) {
      Problem ramp = test::make_problem(dtype, 1, 400, 8, 16, random);
      for (std::int64_t j = 0; j < 400; ++j) {
        for (std::int64_t c = 0; c < 8; ++c) {
          ramp.q.set(0, j, c, c == 0 ? 1.0F : 0.0F);
          ramp.k.set(0, j, c, c == 0 ? slope * static_cast<float>(j / 16 * 4) : 0.0F);
        }
      }
      ramp.scale = 1.0;
      expect_right(ramp);
    }
  }
}

TEST_P(CpuKernelTest, ExponentialIsAccurate) {
  std::mt19937 random(1);
  for (const DType dtype : kAllTypes) {
    const Output output = attend(test::make_exponentials(dtype, random), isa());
    const double error = products(dtype) == cpu::Products::tiles ? 3e-6 : 1e-6;
    for (std::size_t i = 0; i < output.lse.size(); ++i) {
      const double e = std::exp(-static_cast<double>(i) / 64.0);
      // The error of e, and roundings of a sum and a logarithm below 1.
      ASSERT_TRUE(std::abs(static_cast<double>(output.lse[i]) - std::log1p(e)) <=
                  error * e / (1.0 + e) + 0x1p-23)
          << i;
    }
  }
}

TEST_P(CpuKernelTest, ConstantInputsAreExact) {
  Problem problem = [] {
    std::mt19937 random(1);
    return test::make_problem(DType::bf16, 1, 100, 16, 16, random);
  }();
  for (std::int64_t j = 0; j < 100; ++j) {
    for (std::int64_t c = 0; c < 16; ++c) {
      problem.q.set(0, j, c, 0.5F);
      problem.k.set(0, j, c, -2.0F);
      problem.v.set(0, j, c, 3.0F);
    }
  }
  problem.scale = 0.25;
  const Output output = attend(problem, isa());
  for (const float o : output.o) {
    EXPECT_FLOAT_EQ(o, 3.0F);
  }
  for (const float lse : output.lse) {
    EXPECT_NEAR(lse, -4.0 + std::log(100.0), 1e-6);
  }
}

TEST_P(CpuKernelTest, RowsWithoutKeys) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::bf16, 2, 96, 16, 32, random);
  BlockLists& lists = problem.plan.lists;  // head 0: nothing, {1}, {2}; head 1: {0}, nothing, {1}
  lists.row_offsets = {0, 0, 1, 2, 3, 3, 4};
  lists.columns = {1, 2, 0, 1};
  problem.valid.assign(96, 1);
  std::fill(problem.valid.begin() + 64, problem.valid.end(), std::uint8_t{0});
  const Output output = attend(problem, isa());
  expect_exact(problem, output, products(DType::bf16));
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(output.lse[i], -std::numeric_limits<float>::infinity());
    EXPECT_EQ(output.lse[64 + i], -std::numeric_limits<float>::infinity());  // only invalid keys
    for (std::size_t c = 0; c < 16; ++c) {
      EXPECT_EQ(output.o[i * 16 + c], 0.0F);
      EXPECT_EQ(output.o[(64 + i) * 16 + c], 0.0F);
    }
  }
}

TEST_P(CpuKernelTest, UnselectedKeysChangeNoBit) {
  std::mt19937 random(test::fresh_seed());
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Problem problem = test::make_problem(dtype, 1, 200, 24, 20, random);
    test::randomise_lists(problem.plan, 0.5, random);
    for (std::int64_t b = 0; b < 10; ++b) {  // nobody attends block 3
      auto& lists = problem.plan.lists;
      const auto begin =
          static_cast<std::ptrdiff_t>(lists.row_offsets[static_cast<std::size_t>(b)]);
      const auto end =
          static_cast<std::ptrdiff_t>(lists.row_offsets[static_cast<std::size_t>(b) + 1]);
      const auto at = std::find(lists.columns.begin() + begin, lists.columns.begin() + end, 3);
      if (at != lists.columns.begin() + end) {
        lists.columns.erase(at);
        for (auto r = static_cast<std::size_t>(b) + 1; r < lists.row_offsets.size(); ++r) {
          --lists.row_offsets[r];
        }
      }
    }
    problem.valid.assign(200, 1);
    problem.valid[5] = 0;
    const Output clean = attend(problem, isa());
    for (const float poison : {1e4F, std::nanf(""), std::numeric_limits<float>::infinity()}) {
      for (std::int64_t c = 0; c < 24; ++c) {
        for (std::int64_t j = 60; j < 80; ++j) {
          problem.k.set(0, j, c, poison);
          problem.v.set(0, j, c, poison);
        }
        problem.k.set(0, 5, c, poison);  // ruled out by key_valid
        problem.v.set(0, 5, c, poison);
      }
      EXPECT_TRUE(attend(problem, isa()).same_bits(clean)) << name_of(dtype) << ' ' << poison;
    }
  }
}

// A NaN reaches the rows that use it, and no other.
TEST_P(CpuKernelTest, NotFiniteStaysWhereItBelongs) {
  std::mt19937 random(test::fresh_seed());
  const float inf = std::numeric_limits<float>::infinity();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Problem clean_problem = [&] {
      Problem p = test::make_problem(dtype, 1, 140, 16, 20, random);
      test::randomise_lists(p.plan, 0.5, random);
      return p;
    }();
    const Kept kept(clean_problem.plan);
    const Output clean = attend(clean_problem, isa());
    const auto check = [&](const char* what, const std::function<void(Problem&)>& poison,
                           const std::function<bool(std::int64_t)>& affected, bool lse_too) {
      Problem problem = clean_problem;
      poison(problem);
      const Output output = attend(problem, isa());
      for (std::int64_t i = 0; i < 140; ++i) {
        const auto row = static_cast<std::size_t>(i);
        if (!affected(i)) {
          ASSERT_TRUE(output.same_row(clean, row, 16)) << what << ", row " << i;
          continue;
        }
        ASSERT_FALSE(std::isfinite(output.o[row * 16])) << what << ", row " << i;
        ASSERT_TRUE(!lse_too || !std::isfinite(output.lse[row])) << what << ", row " << i;
      }
    };
    check(
        "NaN in Q", [](Problem& p) { p.q.set(0, 33, 3, std::nanf("")); },
        [&](std::int64_t i) {
          const std::int64_t block = 33 / 20;
          return i == 33 && clean_problem.plan.lists.count(0, block) > 0;
        },
        true);
    const auto uses_key = [&](std::int64_t i) { return kept(0, i, 47); };
    check(
        "NaN in K", [](Problem& p) { p.k.set(0, 47, 5, std::nanf("")); }, uses_key, true);
    check(
        "NaN in V", [](Problem& p) { p.v.set(0, 47, 0, std::nanf("")); }, uses_key, false);
    check(
        "Inf in V", [&](Problem& p) { p.v.set(0, 47, 0, inf); }, uses_key, false);
  }
}

TEST_P(CpuKernelTest, RepeatableForAnyThreadCount) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::bf16, 3, 333, 64, 64, random);
  test::randomise_lists(problem.plan, 0.4, random);
  const Output once = attend(problem, isa(), 1);
  for (const int threads : {1, 2, 5, 0}) {
    EXPECT_TRUE(attend(problem, isa(), threads).same_bits(once)) << threads;
  }
}

TEST_P(CpuKernelTest, LseIsOptional) {
  std::mt19937 random(test::fresh_seed());
  const Problem problem = test::make_problem(DType::f32, 1, 40, 8, 16, random);
  KernelOptions options;
  options.isa = isa();
  const auto kernel = make_cpu_kernel(options);
  std::vector<float> o(320, std::nanf(""));
  const auto prepared = kernel->prepare(problem.plan, inputs_of(problem));
  kernel->attend(*prepared, inputs_of(problem), {o.data(), nullptr});
  EXPECT_EQ(o, attend(problem, isa()).o);
}

RAINGAUGE_EVERY_LEVEL(CpuKernelTest);

TEST(CpuKernel, CountsExecutedTiles) {
  std::mt19937 random(1);
  Problem problem = test::make_problem(DType::f32, 1, 40, 8, 20, random);
  problem.plan.lists.row_offsets = {0, 1, 3};
  problem.plan.lists.columns = {1, 0, 1};
  const auto kernel = make_cpu_kernel({});
  // 20 rows x 1 block + 20 rows x 2 blocks of 40 rows x 2 blocks; each block of 20 keys is padded to
  // 32 in numerator and denominator alike.
  EXPECT_DOUBLE_EQ(kernel->prepare(problem.plan, inputs_of(problem))->density_tiles(), 0.75);
  problem.plan.k_blocks.offsets = {0, 16, 40};  // 1 and 2 packed units
  EXPECT_DOUBLE_EQ(kernel->prepare(problem.plan, inputs_of(problem))->density_tiles(),
                   (20.0 * 2 + 20.0 * 3) / (40.0 * 3));
}

TEST(CpuKernel, RefusesWhatItDoesNotCover) {
  std::mt19937 random(1);
  const auto kernel = make_cpu_kernel({});
  for (const int dim : {12, 264}) {
    const Problem problem = test::make_problem(DType::f32, 1, 16, dim, 16, random);
    EXPECT_TRUE(kernel->supports(problem.plan, inputs_of(problem)).has_value()) << dim;
    EXPECT_THROW(kernel->prepare(problem.plan, inputs_of(problem)), Unsupported) << dim;
  }
  const Problem problem = test::make_problem(DType::f32, 1, 16, 8, 16, random);
  EXPECT_FALSE(kernel->supports(problem.plan, inputs_of(problem)).has_value());
  AttendInputs wrong = inputs_of(problem);
  wrong.v.tokens = 8;
  EXPECT_THROW(kernel->prepare(problem.plan, wrong), Error);
  KernelOptions options;
  options.isa = "avx513";
  EXPECT_THROW(make_cpu_kernel(options), Error);
  EXPECT_EQ(cpu_kernel_spec().name, "cpu");
}

TEST(CpuLevels, PortableIsAlwaysThere) {
  const auto levels = cpu::available_levels();
  ASSERT_FALSE(levels.empty());
  EXPECT_EQ(levels.back(), "portable");
  EXPECT_EQ(cpu::level_ops().name, levels.front());
}

}  // namespace
}  // namespace raingauge
