// SPDX-License-Identifier: Apache-2.0
// Parts put together: identities between methods that share them, and what every predictor owes.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "data/error.h"
#include "methods/controls.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::NoiseRecord;
using testing::video_then_text;

Plan plan_of(const std::string& method, const RecordView& record, const json& params) {
  State state;
  return make_method(method, params)->plan(record, state);
}

// SLA (released utils.py) subtracts the mean key, pools, and takes min(n, int(topk n)) blocks a row:
// in raster order and without forced blocks that is RainFusion2.0's top-k.
TEST(Recipe, SlaSelectorIsBareRainFusion2AtEqualK) {
  const NoiseRecord record(video_then_text(5, 16, 16, 0), 2, 32, 60, DType::f32);
  for (const double density : {0.1, 0.25, 0.5}) {  // whole numbers of the 20 blocks
    const json bare = {{"block", 64},       {"order", "raster"}, {"frame0", "in_place"},
                       {"sink", "none"},    {"text", "none"},    {"budget", "outside"},
                       {"density", density}};
    json sla = bare;
    sla["score"] = {{"pooled", {{"smooth_k", true}}}};
    sla["selector"] = {{"top_k", {{"rounding", "floor"}}}};
    EXPECT_EQ(plan_of("recipe", record.view(), sla).lists.columns,
              plan_of("rainfusion2", record.view(), bare).lists.columns)
        << density;
  }
}

TEST(Recipe, MinMaxScoresKeepTheRanking) {
  const NoiseRecord record(video_then_text(4, 16, 16, 0), 1, 32, 61, DType::f32);
  const json pooled = {{"density", 0.3}};
  EXPECT_EQ(plan_of("recipe", record.view(), {{"density", 0.3}, {"score", "pooled_min_max"}})
                .lists.columns,
            plan_of("recipe", record.view(), pooled).lists.columns);
}

// Queries and keys that follow their place on the grid: attention is local, means tell much of it.
NoiseRecord local_record() {
  NoiseRecord record(video_then_text(8, 16, 16, 0), 2, 32, 62, DType::f32);
  for (int tensor = 0; tensor < 2; ++tensor) {
    auto* values = reinterpret_cast<float*>(record.bytes(tensor).data());
    for (std::int64_t t = 0; t < 2 * 2048; ++t) {
      const double place[3] = {double(t / 256 % 8) / 8, double(t / 16 % 16) / 16,
                               double(t % 16) / 16};
      for (std::int64_t c = 0; c < 32; ++c) {
        const double angle = 6.283185307 * place[c % 3] * double(1 + c / 12) + double(c % 2) * 1.57;
        auto& value = values[t * 32 + c];
        value = static_cast<float>(0.3 * double{value} + 1.5 * std::sin(angle));
      }
    }
  }
  return record;
}

double mean_recall(const RecordView& record, std::int64_t head, const Plan& plan) {
  RowSample sample;
  sample.tokens.resize(std::size_t(record.tokens()));
  std::iota(sample.tokens.begin(), sample.tokens.end(), 0);
  const auto dense = evaluate_rows(record, head, sample, nullptr, 1);
  RecordView one = record;
  const bool control = plan.heads == 1;
  if (control) {
    one.q = record.q.slice_heads(head, 1);
    one.k = record.k.slice_heads(head, 1);
    one.v = record.v.slice_heads(head, 1);
  }
  const auto sparse = evaluate_rows(control ? one : record, control ? 0 : head, sample, &plan, 1);
  double sum = 0.0;
  for (std::size_t i = 0; i < dense.lse.size(); ++i) sum += std::exp(sparse.lse[i] - dense.lse[i]);
  return sum / double(dense.lse.size());
}

class Predictor : public ::testing::TestWithParam<std::string> {};

TEST_P(Predictor, RecallLiesBetweenRandomAndOracleHead) {
  const auto record = local_record();
  const auto view = record.view();
  MethodOptions options;
  options.match = DensityMatch::measured;
  State state;
  const json params = json::parse(GetParam());
  const Plan plan =
      make_method(params.at("method"), params.at("params"), options)->plan(view, state);
  for (std::int64_t head = 0; head < 2; ++head) {
    EXPECT_NEAR(measure_density(plan).pairs[std::size_t(head)], 0.5, 0.01);
    const auto mass = block_mass(view, head, plan, 1);
    const double recall = mean_recall(view, head, plan);
    const double floor = mean_recall(view, head, control_plan("random_bare", plan, head, {}, 1));
    const double ceiling =
        mean_recall(view, head, control_plan("oracle_head", plan, head, mass, 0));
    EXPECT_GT(recall, floor) << params.dump();
    EXPECT_LE(recall, ceiling + 1e-6) << params.dump();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Matched, Predictor,
    ::testing::Values(
        R"({"method": "rainfusion2", "params": {"density": 0.5}})",
        R"({"method": "sparge", "params": {"density": 0.5, "topk": 0.5}})",
        R"({"method": "sparge", "params": {"density": 0.5, "cdfthreshd": 0.9}})",
        R"({"method": "jenga", "params": {"density": 0.5}})",
        R"({"method": "jenga", "params": {"density": 0.5, "mass": false, "adjacency": false}})",
        R"({"method": "xattention", "params": {"density": 0.5}})",
        R"({"method": "xattention", "params": {"density": 0.5, "preset": "shipped"}})",
        R"({"method": "ada_bsa", "params": {"density": 0.5}})",
        R"({"method": "ada_bsa", "params": {"density": 0.5, "cdf_threshold": 0.9}})",
        R"({"method": "recipe", "params": {"density": 0.5, "score": "antidiagonal"}})"));

}  // namespace
}  // namespace raingauge
