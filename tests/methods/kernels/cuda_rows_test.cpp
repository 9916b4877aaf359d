// SPDX-License-Identifier: Apache-2.0
// The row evaluator on a device against float64 and against the host's evaluator. All of it needs a GPU and
// says so elsewhere.
//
// Error bounds, u = 2^-24. The tensor cores add the 16 products and the former sum of one instruction after
// cutting each off at the largest one's last place, 2^-23 of it at most, and cut the result off as well:
// 18 * 2^-23 a step of 16, so D / 16 steps leave 2.25 D u of sum |q k|; scaling and the exponent's argument
// add 8 u of it. The exponential is within 2 ulp (2^-22); a thread's part of a tile is a sum of 16 terms.
// P V: a weight is hi + lo of the inputs' type (bf16: 2^-18 is left, f16: 2^-22); a tile's product is 8
// steps of 18 * 2^-23; tiles are added in fp32, one rounding each; the quotient rounds three times.
#include "methods/kernels/cuda_rows.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "data/error.h"
#include "methods/kernels/device_record.h"
#include "methods/kernels/true_mass.h"
#include "methods/plan_heads.h"
#include "tests/methods/kernels/cpu_test_support.h"

namespace raingauge {
namespace {

using test::Problem;

RowSample every(std::int64_t step, std::int64_t tokens) {
  RowSample sample;
  for (std::int64_t i = step > 1 ? 1 : 0; i < tokens; i += step)
    sample.tokens.push_back(static_cast<std::int32_t>(i));
  return sample;
}

Segments text_video_text(std::int64_t tokens) {
  const std::int64_t text = tokens / 9;
  const std::int64_t video = tokens - 2 * text;
  Segments segments;
  segments.push_back({Role::text, 0, text, 0, 0, 0});
  segments.push_back({Role::video, text, video / 3 * 3, 3, 1, static_cast<int>(video / 3)});
  segments.push_back({Role::text, text + video / 3 * 3, tokens - text - video / 3 * 3, 0, 0, 0});
  return segments;
}

struct DeviceBound {
  double lse, p, o;
};

DeviceBound bound_of(const test::Exact& exact, std::int64_t dim, DType dtype) {
  constexpr double kUnit = 0x1p-24;
  const double logit = (2.25 * static_cast<double>(dim) + 8.0) * kUnit * exact.score_abs;
  const double weight = 17.0 * kUnit + 0x1p-22;
  const double tiles = static_cast<double>(exact.keys + 63) / 64.0;
  DeviceBound bound{};
  bound.lse = logit + weight;
  bound.p = std::expm1(2.0 * logit) + 2.0 * weight;
  bound.o = bound.p + (dtype == DType::bf16 ? 0x1p-18 : 0x1p-22) + 8.0 * 18.0 * 0x1p-23 +
            (tiles + 3.0) * kUnit;
  return bound;
}

class CudaRowsOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (list_cuda_devices(&why).empty()) GTEST_SKIP() << "skipped: no CUDA device (" << why << ")";
    random.seed(test::fresh_seed());
  }

  // One problem of the given shape with random segments, orders, layouts, lists and, at times, a mask.
  Problem random_problem(DType dtype, std::int64_t heads, std::int64_t tokens, std::int64_t dim,
                         int form) {
    Problem problem = test::make_problem(dtype, heads, tokens, dim, 100, random,
                                         static_cast<test::Storage>(form % 3));
    problem.info.segments = text_video_text(tokens);
    problem.plan.q_order = test::random_order(heads, tokens, form % 2 == 0, random);
    problem.plan.k_order = test::random_order(heads, tokens, form % 3 == 0, random);
    problem.plan.q_blocks = test::random_layout(heads, tokens, 7, form % 2 == 1, random);
    problem.plan.k_blocks = test::random_layout(heads, tokens, 11, form % 3 == 1, random);
    test::randomise_lists(problem.plan, 0.45, random);
    if (form % 4 == 1) {
      problem.valid.resize(static_cast<std::size_t>(tokens));
      for (auto& valid : problem.valid) {
        valid = static_cast<std::uint8_t>(test::random_int(random, 0, 3) != 0);
      }
    }
    return problem;
  }

  void expect_exact(Problem& problem, const RowSample& sample, const Plan* plan) {
    const RecordView record = problem.record();
    const DeviceRecord copy(record, device);
    RowLane lane(device);
    const DeviceRows rows(copy.on_device(), sample, lane);
    const test::Kept kept(problem.plan);
    for (std::int64_t head = 0; head < record.heads(); ++head) {
      const RowResults found = rows.evaluate(lane, head, plan);
      const test::ExactHead exact_head(problem, head);
      for (std::size_t r = 0; r < sample.tokens.size(); ++r) {
        const std::int64_t q = sample.tokens[r];
        const test::Exact exact =
            exact_head.row(q, [&](std::int64_t j) { return plan == nullptr || kept(head, q, j); });
        SCOPED_TRACE("head " + std::to_string(head) + " row " + std::to_string(q));
        expect_row(problem, found, r, exact);
        if (HasFatalFailure()) return;
      }
    }
  }

  static void expect_row(const Problem& problem, const RowResults& found, std::size_t r,
                         const test::Exact& exact) {
    const std::int64_t dim = problem.q.view.head_dim;
    const DeviceBound bound = bound_of(exact, dim, problem.q.view.dtype);
    if (exact.keys == 0) {
      ASSERT_EQ(found.lse[r], -test::kInfinity);
    } else {
      ASSERT_TRUE(std::abs(found.lse[r] - exact.lse) <= bound.lse)
          << found.lse[r] << " exact " << exact.lse << " allowed " << bound.lse;
    }
    for (std::size_t c = 0; c < static_cast<std::size_t>(dim); ++c) {
      const auto o = static_cast<double>(found.o[r * static_cast<std::size_t>(dim) + c]);
      ASSERT_TRUE(std::abs(o - exact.o[c]) <= bound.o * exact.o_abs[c] + 1e-30)
          << o << " exact " << exact.o[c] << " allowed " << bound.o * exact.o_abs[c];
    }
    double first = 0.0, text = 0.0;
    for (const Segment& segment : problem.info.segments) {
      for (std::int64_t j = segment.start; j < segment.end(); ++j) {
        const double p = exact.p[static_cast<std::size_t>(j)];
        const bool in_first =
            segment.role == Role::video && j < segment.start + segment.frame_size();
        first += in_first ? p : 0.0;
        text += segment.role == Role::text ? p : 0.0;
      }
    }
    ASSERT_TRUE(std::abs(found.mass_first_frame[r] - first) <= bound.p * first + 1e-30);
    ASSERT_TRUE(std::abs(found.mass_text[r] - text) <= bound.p * text + 1e-30);
  }

  Device device{DeviceKind::cuda, 0};
  std::mt19937 random;
};

TEST_F(CudaRowsOnGpu, DenseAndSparseAgainstFloat64) {
  int form = 0;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int64_t dim : {64, 128}) {
      for (const std::int64_t tokens : {41, 64, 333, 700}) {
        SCOPED_TRACE("form " + std::to_string(form));
        Problem problem = random_problem(dtype, 2, tokens, dim, form);
        const double scales[] = {problem.scale, -0.3, 0.0, 1.0};
        problem.scale = scales[form % 4];
        const RowSample sample = every(form % 3 == 0 ? 1 : 3, tokens);
        expect_exact(problem, sample, nullptr);
        expect_exact(problem, sample, &problem.plan);
        if (HasFatalFailure()) return;
        ++form;
      }
    }
  }
}

// Rows whose largest score grows all the time, rows with one outlier, rare values of a hundred times the
// usual, keys that are much alike.
TEST_F(CudaRowsOnGpu, HardInputsAgainstFloat64) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    Problem problem = random_problem(dtype, 1, 900, 64, 2);
    for (std::int64_t j = 0; j < 900; ++j) {
      for (std::int64_t c = 0; c < 64; ++c) {
        const auto value = static_cast<float>(problem.k.at(0, j, c));
        problem.k.set(0, j, c, value * (0.02F + 6.0F * static_cast<float>(j) / 900.0F));
      }
    }
    expect_exact(problem, every(7, 900), nullptr);
    expect_exact(problem, every(7, 900), &problem.plan);
    for (std::int64_t c = 0; c < 64; ++c) problem.k.set(0, 450, c, 8.0F);
    expect_exact(problem, every(7, 900), nullptr);
    if (HasFatalFailure()) return;
  }
  Problem heavy = random_problem(DType::bf16, 1, 500, 128, 0);
  test::fill_heavy_tailed(heavy.q, random);
  test::fill_heavy_tailed(heavy.k, random);
  test::fill_heavy_tailed(heavy.v, random);
  expect_exact(heavy, every(5, 500), &heavy.plan);
  Problem alike = random_problem(DType::f16, 1, 500, 64, 1);
  for (test::Tensor* tensor : {&alike.q, &alike.k, &alike.v})
    test::fill_correlated(*tensor, random);
  expect_exact(alike, every(5, 500), nullptr);
  expect_exact(alike, every(5, 500), &alike.plan);
}

// The size of a demo record: how far the two evaluators are apart is printed.
TEST_F(CudaRowsOnGpu, AgreesWithTheHostAtTheSizeOfARecord) {
  Problem problem = test::make_problem(DType::bf16, 1, 8072, 64, 128, random);
  for (test::Tensor* tensor : {&problem.q, &problem.k, &problem.v})
    test::fill_correlated(*tensor, random);
  test::fill_normal(problem.q, random, 2.0F);
  problem.info.segments = text_video_text(8072);
  problem.plan.q_order = problem.plan.k_order = test::random_order(1, 8072, false, random);
  test::randomise_lists(problem.plan, 0.25, random);
  const RecordView record = problem.record();
  const RowSample sample = every(1, 8072);
  const DeviceRecord copy(record, device);
  RowLane lane(device);
  const DeviceRows rows(copy.on_device(), sample, lane);
  for (const Plan* plan :
       {static_cast<const Plan*>(nullptr), static_cast<const Plan*>(&problem.plan)}) {
    const RowResults host = evaluate_rows(record, 0, sample, plan);
    const RowResults found = rows.evaluate(lane, 0, plan);
    double lse = 0.0, mass = 0.0, error = 0.0, norm = 0.0;
    for (std::size_t r = 0; r < sample.tokens.size(); ++r) {
      lse = std::max(lse, std::abs(found.lse[r] - host.lse[r]));
      mass = std::max(mass, std::abs(found.mass_first_frame[r] - host.mass_first_frame[r]));
    }
    for (std::size_t i = 0; i < host.o.size(); ++i) {
      const double d = double(found.o[i]) - double(host.o[i]);
      error += d * d;
      norm += double(host.o[i]) * double(host.o[i]);
    }
    const double relative = std::sqrt(error / norm);
    std::printf("[ device - host ] lse %.2e, mass %.2e, o %.2e of its norm\n", lse, mass, relative);
    EXPECT_TRUE(lse <= 1e-4) << lse;  // scores of some tens: 200 u of sum |q k|
    EXPECT_TRUE(mass <= 1e-4) << mass;
    EXPECT_TRUE(relative <= 0x1p-16) << relative;
  }
}

// Plans judged together are what each is alone, bit for bit, and their moments are row_moments().
TEST_F(CudaRowsOnGpu, JudgedTogetherOrAloneTheSameBits) {
  Problem problem = random_problem(DType::bf16, 2, 600, 64, 2);
  const RowSample sample = every(2, 600);
  const DeviceRecord copy(problem.record(), device);
  RowLane lane(device);
  const DeviceRows rows(copy.on_device(), sample, lane);
  std::vector<Plan> plans(3, problem.plan);
  for (Plan& plan : plans) test::randomise_lists(plan, 0.3, random);
  plans.push_back(dense_plan(2, 600, 600));
  plans.back().q_order = problem.plan.q_order;
  plans.back().k_order = problem.plan.k_order;
  plans.back().q_blocks = problem.plan.q_blocks;
  plans.back().k_blocks = problem.plan.k_blocks;
  test::randomise_lists(plans.back(), 1.0, random);
  for (std::int64_t head = 0; head < 2; ++head) {
    const RowResults dense = rows.evaluate(lane, head, nullptr);
    EXPECT_EQ(dense.lse, rows.dense(head).lse);
    std::vector<RowResults> alone;
    std::vector<RowLists> lists;
    for (const Plan& plan : plans) {
      alone.push_back(rows.evaluate(lane, head, &plan));
      lists.push_back({&plan.lists, head});
    }
    const auto together = rows.judge(lane, head, problem.plan, head, lists);
    ASSERT_EQ(together.size(), plans.size());
    for (std::size_t i = 0; i < plans.size(); ++i) {
      for (std::size_t r = 0; r < sample.tokens.size(); ++r) {
        ASSERT_EQ(together[i].lse[r], alone[i].lse[r]);
        ASSERT_EQ(together[i].mass_first_frame[r], alone[i].mass_first_frame[r]);
        ASSERT_EQ(together[i].mass_text[r], alone[i].mass_text[r]);
        const RowMoments moments = row_moments(&dense.o[r * 64], &alone[i].o[r * 64], 64);
        ASSERT_EQ(std::memcmp(&together[i].moments[r], &moments, sizeof moments), 0) << r;
      }
    }
    // What keeps every key is dense, to rounding.
    for (std::size_t r = 0; r < sample.tokens.size(); ++r) {
      ASSERT_TRUE(std::abs(std::exp(together.back().lse[r] - dense.lse[r]) - 1.0) <= 1e-6);
    }
  }
}

TEST_F(CudaRowsOnGpu, SameBitsFromManyThreadsAtOnce) {
  Problem problem = random_problem(DType::bf16, 2, 1500, 64, 2);
  const RowSample sample = every(1, 1500);
  const DeviceRecord copy(problem.record(), device);
  RowLane lane(device);
  const DeviceRows rows(copy.on_device(), sample, lane);
  const RowResults once = rows.evaluate(lane, 1, &problem.plan);
  std::vector<std::thread> threads;
  std::vector<int> different(8, 0);
  for (std::size_t t = 0; t < different.size(); ++t) {
    threads.emplace_back([&, t] {
      RowLane mine(device);
      for (int round = 0; round < 20; ++round) {
        const auto found = rows.judge(mine, 1, problem.plan, 1, {{&problem.plan.lists, 1}}).front();
        different[t] +=
            std::memcmp(found.lse, once.lse.data(), once.lse.size() * sizeof(double)) != 0 ? 1 : 0;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const int count : different) EXPECT_EQ(count, 0);
}

TEST_F(CudaRowsOnGpu, NotFiniteNamesHeadAndToken) {
  Problem problem = test::make_problem(DType::bf16, 2, 200, 64, 50, random);
  RowLane lane(device);
  const RowSample sample = every(1, 200);
  {
    problem.q.set(1, 77, 5, std::nanf(""));
    const DeviceRecord copy(problem.record(), device);
    try {
      const DeviceRows rows(copy.on_device(), sample, lane);
      FAIL() << "NaN in Q was not seen";
    } catch (const NotFinite& error) {
      EXPECT_NE(std::string(error.what()).find("head 1, query token 77"), std::string::npos)
          << error.what();
    }
  }
  problem.q.set(1, 77, 5, 0.0F);
  problem.v.set(1, 3, 0, std::numeric_limits<float>::infinity());
  const DeviceRecord copy(problem.record(), device);
  EXPECT_THROW(DeviceRows(copy.on_device(), sample, lane), NotFinite);
}

TEST_F(CudaRowsOnGpu, RefusesWhatItDoesNotCover) {
  RowLane lane(device);
  const RowSample sample = every(1, 60);
  for (const auto& [dtype, dim] : std::vector<std::pair<DType, std::int64_t>>{
           {DType::f32, 64}, {DType::bf16, 96}, {DType::bf16, 32}}) {
    Problem problem = test::make_problem(dtype, 1, 60, dim, 20, random);
    const DeviceRecord copy(problem.record(), device);
    EXPECT_TRUE(device_rows_support(copy.on_device()).has_value());
    EXPECT_THROW(DeviceRows(copy.on_device(), sample, lane), Unsupported);
  }
  Problem problem = test::make_problem(DType::bf16, 1, 60, 64, 20, random);
  EXPECT_TRUE(device_rows_support(problem.record()).has_value()) << "host memory";
  const DeviceRecord copy(problem.record(), device);
  EXPECT_THROW(DeviceRows(copy.on_device(), RowSample{}, lane), Error);
  EXPECT_THROW(DeviceRows(copy.on_device(), RowSample{{60}}, lane), Error);
}

// The mirror leads the true mass to the device; it is the host's, and says where it was computed.
TEST_F(CudaRowsOnGpu, TrueMassComesFromTheMirror) {
  Problem problem = random_problem(DType::bf16, 3, 500, 64, 3);
  Plan shared = dense_plan(3, 500, 96);
  shared.q_order = test::random_order(3, 500, false, random);
  shared.k_order = shared.q_order;
  const RecordView record = problem.record();
  const DeviceRecord copy(record, device);
  const auto all = true_block_masses_on_device(copy.host(), shared);
  if (list_cuda_devices().front().major != 9) GTEST_SKIP() << "skipped: sm_90 only";
  ASSERT_EQ(all.size(), 3U);
  for (const Plan* plan : {&shared, &problem.plan}) {
    for (std::int64_t head = 0; head < 3; ++head) {
      const TrueMass host = true_block_mass(record, head, *plan, 1);
      const TrueMass found = true_block_mass(copy.host(), head, *plan, 1);
      EXPECT_EQ(host.on, "cpu");
      EXPECT_EQ(found.on, "cuda:0");
      ASSERT_EQ(host.values.size(), found.values.size());
      for (std::size_t i = 0; i < host.values.size(); ++i) {
        ASSERT_NEAR(found.values[i], host.values[i], 1e-5);
        if (plan == &shared) {
          ASSERT_EQ(found.values[i], all[static_cast<std::size_t>(head)].values[i]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace raingauge
