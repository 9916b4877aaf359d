// SPDX-License-Identifier: Apache-2.0
// SVG2: clusters as blocks, the estimate and its top-p written out, state across steps.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/error.h"
#include "methods/registry.h"
#include "tests/methods/planted.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::NoiseRecord;
using testing::video_then_text;

json small(json more = json::object()) {
  json params = {{"q_clusters", 9}, {"k_clusters", 20}, {"iterations", 8}};
  params.update(more);
  return params;
}

Plan plan_of(const RecordView& view, const json& params, State& state,
             DensityMatch match = DensityMatch::nominal) {
  MethodOptions options;
  options.match = match;
  Plan plan = make_method("svg2", params, options)->plan(view, state);
  check_plan(plan, view.key_valid);
  return plan;
}

std::vector<double> mean_of(const TensorView& x, std::int64_t head, const Orders& order,
                            std::int32_t begin, std::int32_t end) {
  std::vector<double> mean(static_cast<std::size_t>(x.head_dim), 0.0);
  for (auto p = begin; p < end; ++p) {
    std::vector<float> row(mean.size());
    convert_to_float(x.row(head, order.token(head, p)), x.dtype, row.data(), row.size());
    for (std::size_t c = 0; c < mean.size(); ++c) mean[c] += row[c] / double(end - begin);
  }
  return mean;
}

// With one iteration fewer than convergence the centroids are the means of the blocks (fp32 record, so
// nothing is rounded): the kept lists can be recomputed from the plan alone.
TEST(Svg2, KeepsKeyClustersByEstimatedMassWeightedBySize) {
  const NoiseRecord record(video_then_text(3, 10, 12, 0), 2, 16, 51, DType::f32, 1.5);
  for (const double p : {0.5, 0.9}) {
    for (const double share : {0.0, 0.4}) {
      State state;
      const Plan plan = plan_of(record.view(), small({{"p", p}, {"min_kc_ratio", share}}), state);
      int borderline = 0;
      for (std::int64_t head = 0; head < 2; ++head) {
        for (std::int64_t i = 0; i < 9; ++i) {
          if (plan.q_blocks.size(head, i) == 0) continue;
          const auto q = mean_of(record.view().q, head, plan.q_order, plan.q_blocks.begin(head, i),
                                 plan.q_blocks.end(head, i));
          std::vector<std::pair<double, std::int32_t>> mass;
          double all = 0.0;
          for (std::int32_t j = 0; j < 20; ++j) {
            const auto size = plan.k_blocks.size(head, j);
            if (size == 0) continue;
            const auto k = mean_of(record.view().k, head, plan.k_order,
                                   plan.k_blocks.begin(head, j), plan.k_blocks.end(head, j));
            const double dot = std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
            mass.emplace_back(size * std::exp(dot / 4.0), j);
            all += mass.back().first;
          }
          std::sort(mass.rbegin(), mass.rend());
          std::vector<std::int32_t> expected;
          double sum = 0.0;
          for (std::size_t r = 0; r < mass.size(); ++r) {
            if (std::abs(sum / all - p) < 1e-5) ++borderline;
            if (sum / all < p || r < std::size_t(20 * share)) expected.push_back(mass[r].second);
            sum += mass[r].first;
          }
          std::sort(expected.begin(), expected.end());
          const auto* list = plan.lists.begin(head, i);
          EXPECT_EQ(std::vector<std::int32_t>(list, list + plan.lists.count(head, i)), expected);
        }
      }
      EXPECT_EQ(borderline, 0) << "the seed puts a cumulative sum on p";
    }
  }
}

TEST(Svg2, BlocksAreClustersAndOrdersDifferBetweenQueriesKeysAndHeads) {
  const NoiseRecord record(video_then_text(3, 10, 12, 7), 2, 16, 52);
  State state;
  const Plan plan = plan_of(record.view(), small(), state);
  EXPECT_EQ(plan.q_blocks.blocks, 9 + 2);  // text, padding (empty)
  EXPECT_EQ(plan.k_blocks.blocks, 20 + 2);
  EXPECT_EQ(plan.q_order.rows, 2);
  EXPECT_NE(plan.q_order.index, plan.k_order.index);
  for (std::int64_t head = 0; head < 2; ++head) {
    EXPECT_EQ(plan.q_blocks.size(head, 9), 7);
    for (std::int64_t i = 0; i < 10; ++i) {
      if (plan.q_blocks.size(head, i) == 0) continue;
      EXPECT_TRUE(testing::keeps(plan, head, i, 20));
    }
    std::int64_t filled = 0;
    for (std::int64_t j = 0; j < 22; ++j) filled += plan.k_blocks.size(head, j) > 0 ? 1 : 0;
    EXPECT_EQ(plan.lists.count(head, 9), filled);  // text sees all
  }
}

TEST(Svg2, WarmStartGoesOnFromTheStepBeforeAndRefusesGaps) {
  NoiseRecord first(video_then_text(3, 10, 12, 0), 2, 16, 53);
  first.info().site.step = 4;
  State state;
  const auto params = small({{"start", "warm"}, {"iterations", 50}, {"warm_iterations", 2}});
  const auto method = make_method("svg2", params);
  EXPECT_TRUE(method->stateful());
  const Plan cold = method->plan(first.view(), state);
  state.last_step = 4;
  first.info().site.step = 5;
  const Plan warm = method->plan(first.view(), state);  // the same Q and K again
  state.last_step = 5;
  // Converged centroids stay: the same clusters after at most two iterations.
  EXPECT_EQ(warm.q_order.index, cold.q_order.index);
  EXPECT_EQ(warm.lists.columns, cold.lists.columns);
  EXPECT_GT(cold.notes.at(0).numbers.at(0), 2.0);
  EXPECT_LE(warm.notes.at(0).numbers.at(0), 2.0);
  first.info().site.step = 7;
  EXPECT_THROW(method->plan(first.view(), state), InvalidPlan);
  EXPECT_FALSE(make_method("svg2", small())->stateful());
}

TEST(Svg2, MatchedDensityNeedsNoLessThanTheShareOfClustersKeptAnyway) {
  const NoiseRecord record(video_then_text(3, 16, 16, 0), 2, 16, 54, DType::bf16, 2.0);
  State state;
  try {
    plan_of(record.view(), small({{"density", 0.1}, {"min_kc_ratio", 0.5}}), state,
            DensityMatch::measured);
    FAIL() << "accepted";
  } catch (const Infeasible& refusal) {
    EXPECT_GT(refusal.least_density(), 0.1);
  }
  const Plan plan = plan_of(record.view(), small({{"density", 0.4}, {"min_kc_ratio", 0.1}}), state,
                            DensityMatch::measured);
  for (std::int64_t head = 0; head < 2; ++head) {
    for (std::int64_t i = 0; i < 9; ++i) {
      if (plan.q_blocks.size(head, i) == 0) continue;
      EXPECT_GE(plan.lists.count(head, i), 2);
    }
  }
}

TEST(Svg2, PaddingSeesItselfAloneAndMaskedPaddingLeavesNoRowEmpty) {
  auto segments = video_then_text(3, 8, 8, 6);
  segments.push_back({Role::pad, 198, 12, 0, 0, 0});
  const NoiseRecord record(segments, 1, 16, 55);
  State state;
  const Plan open = plan_of(record.view(), small(), state);
  EXPECT_EQ(open.lists.count(0, 10), 1);
  EXPECT_TRUE(testing::keeps(open, 0, 10, 21));
  for (std::int64_t i = 0; i < 10; ++i) EXPECT_FALSE(testing::keeps(open, 0, i, 21));
  std::vector<std::uint8_t> valid(210, 1);
  std::fill(valid.begin() + 198, valid.end(), std::uint8_t{0});
  RecordView masked = record.view();
  masked.key_valid = valid.data();
  plan_of(masked, small(), state);
}

// A subset of the heads of a record gets the same clusters as within the whole record, as long as the
// iterations end by count (the early stop couples heads, as in the released code).
TEST(Svg2, HeadsAreSeededByTheirOriginalNumber) {
  const NoiseRecord record(video_then_text(3, 10, 12, 0), 3, 16, 56);
  State state;
  const Plan all = plan_of(record.view(), small({{"iterations", 3}}), state);
  RecordInfo info = *record.view().info;
  info.heads = {2};
  RecordView one{&info, record.view().q.slice_heads(2, 1), record.view().k.slice_heads(2, 1),
                 record.view().v.slice_heads(2, 1), nullptr};
  const Plan third = plan_of(one, small({{"iterations", 3}}), state);
  EXPECT_TRUE(
      std::equal(all.q_order.row(2), all.q_order.row(2) + all.tokens, third.q_order.row(0)));
}

}  // namespace
}  // namespace raingauge
