// SPDX-License-Identifier: Apache-2.0
// An arm judged on one record: which rows come out, in which order, by whom; and, where there is a GPU,
// that it judges as the host does.
#include "harness/fidelity.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <set>
#include <thread>

#include "data/error.h"
#include "methods/registry.h"
#include "metrics/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;

struct Judged {
  Judged()
      : noise({testing::text_segment(0, 20), testing::video_segment(20, 5, 8, 12)}, 2, 64, 7,
              DType::bf16, 2.0) {
    for (const MetricEntry& entry : metric_registry()) metrics.emplace_back(entry.spec.name);
    controls.arms = {"random", "random_bare", "oracle_row", "oracle_head"};
    controls.random_seeds = 2;
  }

  Plan plan(const RecordView& record, const std::string& method = "rainfusion2") const {
    State state;
    const json order = {{"window3d", {{"window", {2, 4, 4}}}}};
    return make_method(method, {{"block", 32}, {"order", order}, {"density", 0.6}})
        ->plan(record, state);
  }

  std::vector<json> rows(RecordJudge& judge, const Plan& arm_plan,
                         RecordJudge* second = nullptr) const {
    return judge_arm(judge, second, arm_plan, controls, metrics, {{"arm", "rf2"}, {"cell", "c"}});
  }

  testing::NoiseRecord noise;
  Controls controls;
  std::vector<std::string> metrics;
};

std::vector<std::string> names_of(const std::vector<json>& rows) {
  std::vector<std::string> names;
  for (const auto& row : rows) {
    names.push_back(row.at("arm").get<std::string>() + " " +
                    std::to_string(row.at("head").get<int>()) + " " +
                    std::to_string(row.value("control_seed", -1)));
  }
  return names;
}

double metric(const json& row, const std::string& name) {
  const auto& value = row.at("metrics").at(name).at("value");
  return value.is_number() ? value.get<double>() : std::nan("");
}

TEST(Fidelity, ControlsThenTheArmHeadByHead) {
  const Judged judged;
  RecordJudge judge(judged.noise.view(), {.all = false, .sample = 100, .seed = 0}, 1);
  RecordJudge second(judged.noise.view(), {.all = false, .sample = 100, .seed = 1}, 1);
  const auto rows = judged.rows(judge, judged.plan(judged.noise.view()), &second);
  EXPECT_EQ(names_of(rows),
            (std::vector<std::string>{
                "rf2:oracle_row 0 0", "rf2:oracle_head 0 0", "rf2:random 0 0", "rf2:random 0 1",
                "rf2:random_bare 0 0", "rf2:random_bare 0 1", "rf2 0 -1", "rf2:second_rows 0 -1",
                "rf2:oracle_row 1 0", "rf2:oracle_head 1 0", "rf2:random 1 0", "rf2:random 1 1",
                "rf2:random_bare 1 0", "rf2:random_bare 1 1", "rf2 1 -1", "rf2:second_rows 1 -1"}));
  for (const auto& row : rows) {
    EXPECT_EQ(row.at("judged_on"), "cpu");
    EXPECT_FALSE(row.contains("judged_on_reason"));
    EXPECT_EQ(row.at("rows"), 100);
    const bool oracle = row.value("control", "").starts_with("oracle");
    EXPECT_EQ(row.value("mass_on", ""), oracle ? "cpu" : "");
    // The order is the arm's, and so is what its blocks have in common.
    EXPECT_EQ(metric(row, "block_similarity_q"),
              metric(rows[row.at("head") == 0 ? 6 : 14], "block_similarity_q"));
    // The gap to the oracle is the arm's alone.
    EXPECT_EQ(std::isfinite(metric(row, "oracle_gap")), !row.contains("control"));
  }
  EXPECT_NEAR(metric(rows[0], "recall") - metric(rows[6], "recall"), metric(rows[6], "oracle_gap"),
              1e-12);
  EXPECT_GT(metric(rows[0], "recall"), metric(rows[4], "recall"));
}

TEST(Fidelity, LayoutsAreToldApart) {
  const Judged judged;
  const Plan plan = judged.plan(judged.noise.view());
  std::set<std::uint64_t> keys{layout_key(plan, 0)};
  EXPECT_EQ(layout_key(plan, 1), layout_key(plan, 0)) << "heads share order and blocks";
  EXPECT_TRUE(shares_frame(plan));
  Plan other = plan;
  std::swap(other.k_order.index[0], other.k_order.index[1]);
  EXPECT_TRUE(keys.insert(layout_key(other, 0)).second);
  other = plan;
  ++other.q_blocks.offsets[1];
  EXPECT_TRUE(keys.insert(layout_key(other, 0)).second);
  other = plan;
  other.lists.columns.pop_back();
  EXPECT_FALSE(keys.insert(layout_key(other, 0)).second) << "lists are no part of a layout";
}

TEST(OnceMap, MakesEveryValueOnce) {
  OnceMap<int, int> map;
  std::atomic<int> made{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int key = 0; key < 50; ++key) {
        EXPECT_EQ(map.get(key, [&] { return ++made, key * key; }), key * key);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(made, 50);
  EXPECT_THROW(map.get(99, []() -> int { throw Error("no"); }), Error);
  EXPECT_EQ(map.get(99, [] { return 3; }), 3) << "what failed is made at the next call";
}

class FidelityOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (list_cuda_devices().empty()) GTEST_SKIP() << "skipped: no CUDA device";
  }
  Device device{DeviceKind::cuda, 0};
};

// Metrics are differences of nearly equal outputs at worst: 1e-4 of the value or 1e-5, where host and
// device agree to 2^-16 of an output.
TEST_F(FidelityOnGpu, JudgesAsTheHostDoes) {
  const Judged judged;
  RowLanes lanes(device);
  const DeviceRecord copy(judged.noise.view(), device);
  for (const bool all : {true, false}) {
    const RowPlan sample{.all = all, .sample = 77, .seed = 3};
    RecordJudge host(judged.noise.view(), sample, 1);
    RecordJudge judge(copy.host(), sample, 1, &copy, &lanes);
    ASSERT_TRUE(judge.on_device());
    for (const std::string method : {"rainfusion2", "oracle_row", "random"}) {
      const Plan plan = judged.plan(judged.noise.view(), method);
      const auto expected = judged.rows(host, plan);
      const auto found = judged.rows(judge, plan);
      ASSERT_EQ(names_of(found), names_of(expected));
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(found[i].at("judged_on"), "cuda:0");
        EXPECT_EQ(found[i].at("density_pairs"), expected[i].at("density_pairs"));
        for (const auto& name : judged.metrics) {
          const double a = metric(found[i], name);
          const double b = metric(expected[i], name);
          if (std::isnan(b)) {
            EXPECT_TRUE(std::isnan(a)) << name;
            continue;
          }
          EXPECT_TRUE(std::abs(a - b) <= 1e-4 * std::abs(b) + 1e-5)
              << method << " " << found[i].at("arm") << " " << name << ": " << a << " host " << b;
        }
      }
      // Side by side or alone, once or again: the same text.
      std::vector<std::vector<json>> again(6);
      std::vector<std::thread> threads;
      for (auto& rows : again) threads.emplace_back([&] { rows = judged.rows(judge, plan); });
      for (auto& thread : threads) thread.join();
      for (const auto& rows : again) EXPECT_EQ(json(rows).dump(), json(found).dump());
    }
  }
}

// NaN in a record is its arms' outcome, not the end of the run.
TEST_F(FidelityOnGpu, WhatIsNotFiniteFailsTheArms) {
  Judged judged;
  const Plan plan = judged.plan(judged.noise.view());
  auto* q = reinterpret_cast<std::uint16_t*>(judged.noise.bytes(0).data());
  q[5] = 0x7fc0;
  const DeviceRecord copy(judged.noise.view(), device);
  RowLanes lanes(device);
  RecordJudge judge(copy.host(), {.all = true}, 1, &copy, &lanes);
  EXPECT_TRUE(judge.on_device());
  EXPECT_THROW(judged.rows(judge, plan), NotFinite);
}

TEST_F(FidelityOnGpu, SaysWhyTheHostJudges) {
  const testing::NoiseRecord noise({testing::video_segment(0, 3, 8, 8)}, 1, 32, 5);
  const DeviceRecord copy(noise.view(), device);
  RowLanes lanes(device);
  RecordJudge judge(copy.host(), {.all = true}, 1, &copy, &lanes);
  EXPECT_FALSE(judge.on_device());
  Judged judged;
  const auto rows = judged.rows(judge, judged.plan(noise.view()));
  EXPECT_EQ(rows.back().at("judged_on"), "cpu");
  EXPECT_NE(rows.back().at("judged_on_reason").get<std::string>().find("head_dim"),
            std::string::npos);
}

}  // namespace
}  // namespace raingauge
