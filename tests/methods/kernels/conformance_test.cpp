// SPDX-License-Identifier: Apache-2.0
// Does the gate see errors wherever they are, and does it pass what rounding explains?
#include "methods/kernels/conformance.h"

#include <gtest/gtest.h>

#include "methods/kernels/reference.h"
#include "methods/kernels/registry.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;

// Plan of 600 query blocks of 8 tokens (the last ragged), with reference output.
struct Fixture {
  Fixture(DType dtype, std::int64_t tokens, int block, double keep, std::int64_t heads = 1)
      : tensors(dtype, heads, tokens, 16), outputs(heads, tokens, 16) {
    std::mt19937 engine(11);
    tensors.randomise(engine);
    plan = random_plan(heads, tokens, block, {.orders = true, .keep = keep}, engine);
    run();
  }
  void run() {
    const auto kernel = find_kernel("reference").make();
    kernel->attend(*kernel->prepare(plan, tensors.inputs), tensors.inputs, outputs.view());
  }
  Conformance check(std::uint64_t seed = 0, std::int64_t blocks = 8) {
    return check_conformance(find_kernel("reference").spec, plan, tensors.inputs, outputs.view(),
                             {.blocks = blocks, .seed = seed});
  }
  std::size_t token(std::int64_t head, std::int64_t block, std::int64_t row) const {
    return at(head * plan.tokens +
              plan.q_order.token(head, plan.q_blocks.begin(head, block) + row));
  }
  void scale_row(std::size_t row, float factor) {
    for (std::size_t x = row * 16; x < row * 16 + 16; ++x) outputs.o[x] *= factor;
  }

  Tensors tensors;
  Outputs outputs;
  Plan plan;
};

TEST(Conformance, TheReferenceConforms) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    Fixture fixture(dtype, 700, 32, 0.4, 2);
    const Conformance verdict = fixture.check();
    EXPECT_TRUE(verdict.ok) << verdict.reason;
    EXPECT_EQ(verdict.outcome, ConformanceOutcome::ok);
    EXPECT_EQ(verdict.max_row_error, 0.0);
    EXPECT_GT(verdict.tolerance, 0.0);
    // 22 blocks a head: first, last (28 rows) and six more whole, one row of each of the other 14.
    EXPECT_EQ(verdict.rows, 2 * (7 * 32 + 28 + 14));
  }
}

TEST(Conformance, TenPercentInOneOf600BlocksIsAlwaysSeen) {
  Fixture fixture(DType::bf16, 600 * 8 - 3, 8, 0.02);
  ASSERT_EQ(fixture.plan.q_blocks.blocks, 600);
  const std::vector<float> clean = fixture.outputs.o;
  for (std::int64_t victim = 0; victim < 600; victim += 13) {
    fixture.outputs.o = clean;
    for (std::int64_t r = 0; r < fixture.plan.q_blocks.size(0, victim); ++r) {
      fixture.scale_row(fixture.token(0, victim, r), 1.1F);
    }
    const Conformance verdict = fixture.check(static_cast<std::uint64_t>(victim));
    ASSERT_FALSE(verdict.ok) << "block " << victim;
    EXPECT_EQ(verdict.outcome, ConformanceOutcome::incorrect);
    EXPECT_NE(verdict.reason.find("query block " + std::to_string(victim) + ","), std::string::npos)
        << verdict.reason;
    EXPECT_GT(verdict.max_row_error, verdict.tolerance);
  }
}

TEST(Conformance, OneRowOfAWholeBlockIsSeen) {
  Fixture fixture(DType::bf16, 1000, 32, 0.3);
  fixture.scale_row(fixture.token(0, 0, 17), 1.1F);  // the first block is always compared whole
  const Conformance verdict = fixture.check();
  EXPECT_FALSE(verdict.ok);
  EXPECT_NE(verdict.reason.find("token " + std::to_string(fixture.token(0, 0, 17))),
            std::string::npos)
      << verdict.reason;
}

TEST(Conformance, TheRowOfOtherBlocksDependsOnTheSeed) {
  Fixture fixture(DType::bf16, 32 * 40, 32, 0.3);
  fixture.scale_row(fixture.token(0, 20, 5), 2.0F);
  int seen = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) seen += fixture.check(seed, 2).ok ? 0 : 1;
  // Two blocks are whole, never block 20: one row in 32 is drawn. Binomial(200, 1/32): mean 6.25,
  // and 0 or above 25 have probabilities below 0.002 and 1e-8; the seeds are fixed.
  EXPECT_GT(seen, 0);
  EXPECT_LT(seen, 25);
}

TEST(Conformance, ANotFiniteValueAnywhereIsItsOwnOutcome) {
  Fixture fixture(DType::bf16, 32 * 40, 32, 0.3);
  const std::size_t row = fixture.token(0, 25, 9);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    fixture.run();
    fixture.outputs.o[row * 16 + 3] = bad;
    Conformance verdict = fixture.check();
    EXPECT_EQ(verdict.outcome, ConformanceOutcome::not_finite);
    EXPECT_FALSE(verdict.ok);
    EXPECT_NE(verdict.reason.find("query block 25, token " + std::to_string(row)),
              std::string::npos)
        << verdict.reason;
    fixture.run();
    fixture.outputs.lse[row] = bad;
    verdict = fixture.check();
    EXPECT_EQ(verdict.outcome, ConformanceOutcome::not_finite);
  }
  fixture.run();
  fixture.outputs.o[row * 16] = std::numeric_limits<float>::quiet_NaN();
  fixture.outputs.o[fixture.token(0, 30, 0) * 16] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(fixture.check().reason.find("query block 25"), std::string::npos)
      << "the first is named";
  fixture.run();
  fixture.outputs.lse[row] = -std::numeric_limits<float>::infinity();  // says: no keys
  const Conformance verdict = fixture.check();
  EXPECT_EQ(verdict.outcome, ConformanceOutcome::incorrect) << verdict.reason;
}

TEST(Conformance, InputsThatAreNotFiniteAreNamedAsSuch) {
  Fixture fixture(DType::bf16, 64, 32, 1.0);
  fixture.tensors.set(0, 0, 5, std::vector<float>(16, std::numeric_limits<float>::quiet_NaN()));
  fixture.run();
  const Conformance verdict = fixture.check();
  EXPECT_EQ(verdict.outcome, ConformanceOutcome::not_finite);
  EXPECT_NE(verdict.reason.find("the reference is not finite"), std::string::npos)
      << verdict.reason;
}

TEST(Conformance, AWrongLseIsSeenAndAMissingOneIsNotAsked) {
  Fixture fixture(DType::bf16, 700, 32, 0.4);
  for (float& value : fixture.outputs.lse) value += 0.01F;
  Conformance verdict = fixture.check();
  EXPECT_FALSE(verdict.ok);
  EXPECT_NEAR(verdict.max_lse_error, 0.01, 1e-4);
  EXPECT_NE(verdict.reason.find("LSE"), std::string::npos) << verdict.reason;
  verdict = check_conformance(find_kernel("reference").spec, fixture.plan, fixture.tensors.inputs,
                              {fixture.outputs.o.data(), nullptr});
  EXPECT_TRUE(verdict.ok) << verdict.reason;
}

TEST(Conformance, RowsWithoutKeysMustBeZero) {
  std::mt19937 engine(5);
  Fixture fixture(DType::f32, 320, 32, 0.5);
  fixture.plan = random_plan(1, 320, 32, {.empty_lists = true}, engine);
  fixture.run();
  EXPECT_TRUE(fixture.check().ok) << fixture.check().reason;
  fixture.outputs.o[fixture.token(0, 1, 4) * 16] = 1e-3F;  // block 1 keeps nothing
  EXPECT_EQ(fixture.check().outcome, ConformanceOutcome::incorrect);
}

// Weights rounded to the inputs' dtype, everything else exact: the error that the tolerance is made
// for must pass in every row; twenty times that error must not pass.
TEST(Conformance, ToleranceCoversRoundedWeightsAndLittleMore) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const float spread : {0.2F, 1.0F, 2.0F}) {
      std::mt19937 engine(13);
      const std::int64_t n = 400;
      Tensors tensors(dtype, 1, n, 64);
      tensors.randomise(engine, spread);
      const Plan plan = random_plan(1, n, 64, {.keep = 0.7}, engine);
      const Exact exact = exact_attention(tensors, plan);
      const std::vector<char> sees = visibility(plan, nullptr);
      for (const float magnified : {1.0F, 20.0F}) {
        Outputs rounded(1, n, 64);
        for (std::int64_t q = 0; q < n; ++q) {
          std::vector<double> o(64, 0.0);
          const auto query = tensors.get(0, 0, q);
          for (std::int64_t k = 0; k < n; ++k) {
            if (sees[at(q * n + k)] == 0) continue;
            const auto key = tensors.get(1, 0, k);
            double dot = 0.0;
            for (std::size_t x = 0; x < 64; ++x) dot += double{query[x]} * double{key[x]};
            const auto p =
                static_cast<float>(std::exp(dot * double{tensors.inputs.scale} - exact.lse[at(q)]));
            float stored = 0.0F;
            std::uint16_t bits = 0;
            convert_from_float(&p, &bits, dtype, 1);
            convert_to_float(&bits, dtype, &stored, 1);
            const double weight = double{p} + double{magnified} * (double{stored} - double{p});
            const auto value = tensors.get(2, 0, k);
            for (std::size_t x = 0; x < 64; ++x) o[x] += weight * double{value[x]};
          }
          for (std::size_t x = 0; x < 64; ++x) rounded.o[at(q * 64) + x] = static_cast<float>(o[x]);
          rounded.lse[at(q)] = static_cast<float>(exact.lse[at(q)]);
        }
        const Conformance verdict = check_conformance(
            find_kernel("reference").spec, plan, tensors.inputs, rounded.view(), {.blocks = 100});
        EXPECT_EQ(verdict.ok, magnified == 1.0F)
            << name_of(dtype) << " spread " << spread << " error " << verdict.max_row_error
            << " tolerance " << verdict.tolerance;
      }
    }
  }
}

// Values that cancel make |o| tiny; an error of one rounding of the weights is then larger than |o|
// and still no mistake.
TEST(Conformance, CancellationIsNoMistake) {
  Tensors tensors(DType::bf16, 1, 256, 16);
  tensors.fill(0, 0.0F);
  tensors.fill(1, 0.0F);
  for (std::int64_t x = 0; x < 256; ++x) {
    tensors.set(2, 0, x, std::vector<float>(16, x % 2 == 0 ? 1.0F : -1.0F));
  }
  const Plan plan = dense_plan(1, 256, 64);
  Outputs outputs(1, 256, 16);
  const float step = 0x1p-8F / 16.0F;  // u sqrt(sum p^2) of 256 equal weights
  for (float& value : outputs.o) value = step;
  for (float& value : outputs.lse) value = std::log(256.0F);
  const auto check = [&] {
    return check_conformance(find_kernel("reference").spec, plan, tensors.inputs, outputs.view());
  };
  EXPECT_TRUE(check().ok) << check().reason;
  for (float& value : outputs.o) value = 16.0F * step;
  EXPECT_FALSE(check().ok);
}

TEST(Conformance, RaggedBlocksAreComparedWhole) {
  std::mt19937 engine(21);
  Tensors tensors(DType::f32, 1, 40 * 16 + 5, 16);
  tensors.randomise(engine);
  Plan plan = random_plan(1, tensors.n, 16, {.keep = 0.3}, engine);
  for (std::int64_t b = 11; b <= plan.q_blocks.blocks - 1; ++b) {
    plan.q_blocks.offsets[at(b)] -= 7;  // block 10 has 9 rows; the last one 12
  }
  Outputs outputs(1, tensors.n, 16);
  const auto kernel = find_kernel("reference").make();
  kernel->attend(*kernel->prepare(plan, tensors.inputs), tensors.inputs, outputs.view());
  for (std::int64_t row = plan.q_blocks.begin(0, 10); row < plan.q_blocks.end(0, 10); ++row) {
    std::vector<float> broken = outputs.o;
    for (std::size_t x = at(row * 16); x < at(row * 16 + 16); ++x) broken[x] *= 1.1F;
    const Conformance verdict = check_conformance(
        kernel->spec(), plan, tensors.inputs, {broken.data(), nullptr}, {.blocks = 3, .seed = 1});
    EXPECT_FALSE(verdict.ok) << "row " << row;
  }
}

}  // namespace
}  // namespace raingauge
