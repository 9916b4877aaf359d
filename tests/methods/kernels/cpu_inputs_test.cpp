// SPDX-License-Identifier: Apache-2.0
// The `cpu` kernel on inputs and plans that real models and real methods make: every level of this
// machine against float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "data/random.h"
#include "methods/kernels/row_evaluator.h"
#include "tests/methods/kernels/cpu_kernel_fixture.h"

namespace raingauge {
namespace {

using test::attend;
using test::CpuKernelTest;
using test::Output;
using test::Problem;

class CpuKernelInputs : public CpuKernelTest {};

TEST_P(CpuKernelInputs, HeavyTailedAndCorrelatedValues) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    SCOPED_TRACE(name_of(dtype));
    Problem heavy = test::make_problem(dtype, 1, 200, 64, 32, random);
    Problem still = heavy;
    for (auto* tensor : {&heavy.q, &heavy.k, &heavy.v}) test::fill_heavy_tailed(*tensor, random);
    for (auto* tensor : {&still.q, &still.k, &still.v}) test::fill_correlated(*tensor, random);
    for (Problem* problem : {&heavy, &still}) {
      test::randomise_lists(problem->plan, 0.5, random);
      expect_right(*problem);
    }
  }
}

// Logits of +-1e4 that f16 inputs can hold, and one key that outweighs all others of its row.
TEST_P(CpuKernelInputs, HugeLogitsAndOneOutlierARow) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    SCOPED_TRACE(name_of(dtype));
    Problem problem = test::make_problem(dtype, 1, 300, 16, 64, random);
    for (std::int64_t j = 0; j < 300; ++j) problem.k.set(0, j, 0, j == 170 ? 100.0F : 1.0F);
    for (std::int64_t i = 0; i < 300; ++i) problem.q.set(0, i, 0, i % 2 == 0 ? 100.0F : -100.0F);
    problem.scale = 1.0;
    expect_right(problem);
  }
}

TEST_P(CpuKernelInputs, HeadDimsOfRealModels) {
  std::mt19937 random(test::fresh_seed());
  for (const int dim : {72, 80, 96, 112, 120, 192, 200, 256}) {
    for (const int block : {64, 128}) {
      SCOPED_TRACE(std::to_string(dim) + ", blocks of " + std::to_string(block));
      Problem problem = test::make_problem(DType::bf16, 1, 3 * block + 2, dim, block, random);
      test::randomise_lists(problem.plan, 0.6, random);
      expect_right(problem);
    }
  }
}

TEST_P(CpuKernelInputs, ManyHeadsAndSlicesOfAFusedProjection) {
  std::mt19937 random(test::fresh_seed());
  for (const int heads : {1, 3, 40}) {
    SCOPED_TRACE(heads);
    Problem problem =
        test::make_problem(DType::bf16, heads, 50, 16, 16, random, test::Storage::fused);
    test::randomise_lists(problem.plan, 0.5, random);
    expect_right(problem);
  }
}

// Every query block keeps one of: nothing, the first block, the last (ragged) one, all of them.
TEST_P(CpuKernelInputs, ListsOfEveryLength) {
  std::mt19937 random(test::fresh_seed());
  for (const int tokens : {1000, 77, 129}) {
    SCOPED_TRACE(tokens);
    Problem problem = test::make_problem(DType::bf16, 2, tokens, 24, 64, random);
    BlockLists& lists = problem.plan.lists;
    const auto blocks = static_cast<std::int32_t>(problem.plan.k_blocks.blocks);
    lists.row_offsets.assign(1, 0);
    lists.columns.clear();
    for (std::int64_t row = 0; row < 2 * problem.plan.q_blocks.blocks; ++row) {
      const std::int64_t kind = (row + row / problem.plan.q_blocks.blocks) % 4;  // heads differ
      if (kind == 1) lists.columns.push_back(0);
      if (kind == 2) lists.columns.push_back(blocks - 1);
      for (std::int32_t b = 0; kind == 3 && b < blocks; ++b) lists.columns.push_back(b);
      lists.row_offsets.push_back(static_cast<std::int64_t>(lists.columns.size()));
    }
    expect_right(problem);
  }
}

// The same blocks in another order: other roundings, within the bounds of both.
TEST_P(CpuKernelInputs, OrderOfKeyBlocksOnlyRounds) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Problem problem = test::make_problem(DType::f32, 1, 512, 32, 64, random);
  test::randomise_lists(problem.plan, 0.5, random);
  Problem moved = problem;
  std::vector<std::int32_t> place(8);  // old block -> new block
  std::iota(place.begin(), place.end(), 0);
  std::shuffle(place.begin(), place.end(), random);
  moved.plan.k_order.identity = false;
  moved.plan.k_order.tokens = 512;
  moved.plan.k_order.index.resize(512);
  for (std::int32_t t = 0; t < 512; ++t) {
    moved.plan.k_order
        .index[static_cast<std::size_t>(place[static_cast<std::size_t>(t / 64)] * 64 + t % 64)] = t;
  }
  for (std::int64_t b = 0; b < 8; ++b) {
    auto* begin = moved.plan.lists.columns.data() + moved.plan.lists.row_offsets[std::size_t(b)];
    auto* end = moved.plan.lists.columns.data() + moved.plan.lists.row_offsets[std::size_t(b) + 1];
    for (auto* column = begin; column != end; ++column) {
      *column = place[static_cast<std::size_t>(*column)];
    }
    std::sort(begin, end);
  }
  expect_right(problem);
  expect_right(moved);
  EXPECT_TRUE(attend(moved, isa()).same_bits(attend(moved, isa())));
}

TEST_P(CpuKernelInputs, InfiniteKeysReachOnlyTheRowsThatAttendThem) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::bf16, 1, 140, 16, 20, random);
  test::randomise_lists(problem.plan, 0.5, random);
  const Output clean = attend(problem, isa());
  const test::Kept kept(problem.plan);
  const float infinity = std::numeric_limits<float>::infinity();
  problem.k.set(0, 47, 5, infinity);
  const Output output = attend(problem, isa());
  for (std::int64_t i = 0; i < 140; ++i) {
    const auto row = static_cast<std::size_t>(i);
    if (!kept(0, i, 47)) {
      ASSERT_TRUE(output.same_row(clean, row, 16)) << i;
    } else if (problem.q.at(0, i, 5) > 0.0) {  // a score of +inf: no softmax
      ASSERT_FALSE(std::isfinite(output.o[row * 16])) << i;
    } else if (problem.q.at(0, i, 5) < 0.0) {  // a score of -inf: as if the key were not there
      ASSERT_TRUE(std::isfinite(output.o[row * 16])) << i;
    }
  }
}

// The judge of sampled rows is other code: its LSE of a dense list is the kernel's.
TEST_P(CpuKernelInputs, LseIsThatOfTheRowEvaluator) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::f32, 2, 333, 64, 128, random);
  const Output output = attend(problem, isa());
  RowSample sample;
  for (std::int32_t i = 0; i < 333; i += 3) sample.tokens.push_back(i);
  for (std::int64_t head = 0; head < 2; ++head) {
    const test::ExactHead exact_head(problem, head);
    const RowResults judged = evaluate_rows(problem.record(), head, sample, nullptr, 1);
    for (std::size_t r = 0; r < sample.tokens.size(); ++r) {
      const std::int64_t i = sample.tokens[r];
      const auto bound =
          test::error_bound(exact_head.row(i, [](std::int64_t) { return true; }), 64, false);
      const auto lse = static_cast<double>(output.lse[static_cast<std::size_t>(head * 333 + i)]);
      ASSERT_TRUE(std::abs(lse - judged.lse[r]) <= 2.0 * bound.lse) << head << ", " << i;
    }
  }
}

// One head of a full 720p clip, 591 blocks with a ragged tail: some rows against float64.
TEST_P(CpuKernelInputs, FullLength) {
  constexpr std::int64_t kTokens = 75600, kDim = 64;
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Problem problem;
  for (test::Tensor* tensor : {&problem.q, &problem.k, &problem.v}) {
    *tensor = test::make_tensor(DType::bf16, 1, kTokens, kDim);
    auto* bits = reinterpret_cast<std::uint16_t*>(tensor->bytes.data());
    for (std::int64_t i = 0; i < kTokens * kDim; ++i) {  // [-2, 2), from the generator's bits
      const float value = static_cast<float>(random() >> 8) * 0x1p-22F - 2.0F;
      convert_from_float(&value, bits + i, DType::bf16, 1);
    }
  }
  problem.plan = dense_plan(1, kTokens, 128);
  problem.scale = 0.125;
  test::randomise_lists(problem.plan, 0.004, random);
  const Output output = attend(problem, isa(), 0);
  const test::Kept kept(problem.plan);
  const test::ExactHead head(problem, 0);
  for (const std::int64_t i : {std::int64_t{0}, std::int64_t{37801}, kTokens - 1}) {
    const test::Exact exact = head.row(i, [&](std::int64_t j) { return kept(0, i, j); });
    const test::Bound bound = test::kernel_bound(exact, kDim, products(DType::bf16));
    const auto row = static_cast<std::size_t>(i);
    if (exact.keys == 0) {
      ASSERT_EQ(output.lse[row], -std::numeric_limits<float>::infinity()) << i;
      continue;
    }
    ASSERT_TRUE(std::abs(static_cast<double>(output.lse[row]) - exact.lse) <= bound.lse) << i;
    for (std::size_t c = 0; c < static_cast<std::size_t>(kDim); ++c) {
      const auto o = static_cast<double>(output.o[row * static_cast<std::size_t>(kDim) + c]);
      ASSERT_TRUE(std::abs(o - exact.o[c]) <= bound.p * exact.o_abs[c] + 1e-30) << i << ", " << c;
    }
  }
}

RAINGAUGE_EVERY_LEVEL(CpuKernelInputs);

// Every pair of levels on the same list agrees within the bounds that each keeps to float64.
TEST(CpuLevels, AgreeWithEachOther) {
  std::mt19937 random(test::fresh_seed());
  Problem problem = test::make_problem(DType::bf16, 2, 500, 128, 64, random);
  test::randomise_lists(problem.plan, 0.4, random);
  const Output best = attend(problem, "");
  for (const std::string& level : cpu::available_levels()) {
    const Output output = attend(problem, level);
    double difference = 0.0, size = 0.0;
    for (std::size_t i = 0; i < best.o.size(); ++i) {
      const auto d = static_cast<double>(output.o[i]) - static_cast<double>(best.o[i]);
      difference += d * d;
      size += static_cast<double>(best.o[i]) * static_cast<double>(best.o[i]);
    }
    EXPECT_TRUE(std::sqrt(difference) <= 0x1p-8 * std::sqrt(size)) << level;  // bf16 P at most
  }
}

}  // namespace
}  // namespace raingauge
