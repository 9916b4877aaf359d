// SPDX-License-Identifier: Apache-2.0
#include "harness/report/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/error.h"
#include "tests/harness/report/run_fixture.h"

namespace raingauge {
namespace {

using testing_support::planted_manifest;
using testing_support::PlantedRun;
using testing_support::write_planted;

class Compare : public ::testing::Test {
 protected:
  RunData run(const std::string& name, const PlantedRun& planted = {}) {
    write_planted(folder_.path() / name, planted);
    return load_run(folder_.path() / name);
  }
  void rewrite(const std::string& name, const nlohmann::json& manifest) {
    std::ofstream(folder_.path() / name / "manifest.json") << manifest.dump();
  }
  testing_support::TemporaryFolder folder_;
};

PlantedRun shifted(double by, double spread = 0.0) {
  PlantedRun planted;
  planted.change = [by, spread](nlohmann::json& row) mutable {
    auto& recall = row["metrics"]["recall"]["value"];
    const double sign =
        std::stoi(row["generation"].get<std::string>().substr(4)) % 2 == 0 ? 1.0 : -1.0;
    recall = recall.get<double>() + by + sign * spread;
    row["metrics"]["rel_l2"]["value"] = 1.0 - recall.get<double>();
  };
  return planted;
}

TEST_F(Compare, IdenticalRunsAreTheSame) {
  const auto out = compare_runs(run("a"), run("b"), {});
  EXPECT_EQ(out.count(CompareVerdict::same), static_cast<int>(out.values.size()));
  EXPECT_EQ(out.values.size(), 16U);  // 8 arms, recall and rel_l2
  EXPECT_TRUE(out.notes.empty());
}

TEST_F(Compare, BetterAndWorseFollowTheMetricsDirection) {
  const auto up = compare_runs(run("a"), run("b", shifted(0.05)), {});
  EXPECT_EQ(up.count(CompareVerdict::better), 16);
  const auto down = compare_runs(run("a"), run("c", shifted(-0.05)), {});
  EXPECT_EQ(down.count(CompareVerdict::worse), 16);
}

TEST_F(Compare, TolerancesDecide) {
  const auto out =
      compare_runs(run("a"), run("b", shifted(0.05)), {{"recall", 0.06}, {"rel_l2", 0.06}});
  EXPECT_EQ(out.count(CompareVerdict::same), 16);
}

TEST_F(Compare, ScatterIsUndecided) {
  const auto out =
      compare_runs(run("a"), run("b", shifted(0.01, 0.05)), {{"recall", 0.01}, {"rel_l2", 0.01}});
  EXPECT_EQ(out.count(CompareVerdict::undecided), 16);
}

TEST_F(Compare, FewGenerationsNeedAllDifferences) {
  PlantedRun few;
  few.generations = 2;
  auto moved = shifted(0.05);
  moved.generations = 2;
  EXPECT_EQ(compare_runs(run("a", few), run("b", moved), {}).count(CompareVerdict::better), 16);
  EXPECT_EQ(compare_runs(run("a", few), run("c", few), {}).count(CompareVerdict::same), 16);
}

TEST_F(Compare, UnlikeCapturesAreRefused) {
  const auto a = run("a");
  PlantedRun other;
  other.generations = 15;
  EXPECT_THROW(compare_runs(a, run("b", other), {}), Error);
}

TEST_F(Compare, OtherRowsAreRefused) {
  const auto a = run("a");
  run("b");
  auto manifest = planted_manifest({});
  manifest["experiment"]["rows"]["seed"] = 1;
  rewrite("b", manifest);
  EXPECT_THROW(compare_runs(a, load_run(folder_.path() / "b"), {}), Error);
}

TEST_F(Compare, UnlikeHardwareIsNamed) {
  const auto a = run("a");
  run("b");
  auto manifest = planted_manifest({});
  manifest["machine"]["cpu"] = "another CPU";
  rewrite("b", manifest);
  const auto out = compare_runs(a, load_run(folder_.path() / "b"), {});
  ASSERT_EQ(out.notes.size(), 1U);
  EXPECT_THAT(out.notes[0], ::testing::HasSubstr("another CPU"));
}

TEST_F(Compare, AnArmThatNoLongerWorksIsWorse) {
  PlantedRun broken;
  broken.change = [](nlohmann::json& row) {
    if (row["arm"] != "rf2.raster.none.0.2") return;
    row["outcome"] = "failed";
    row.erase("metrics");
  };
  EXPECT_EQ(compare_runs(run("a"), run("b", broken), {}).count(CompareVerdict::worse), 1);
}

// One row of latency.jsonl with 8 samples, the first `odd` of them 100 ms.
nlohmann::json timed_row(const std::string& generation, double milliseconds, int odd = 0) {
  std::vector<double> samples(8, milliseconds);
  for (int i = 0; i < odd; ++i) samples[static_cast<std::size_t>(i)] = 100.0;
  return {{"cell", generation},
          {"arm", "rf2.raster.none.0.2"},
          {"kernel", "cpu"},
          {"generation", generation},
          {"layer", 2},
          {"step", 1},
          {"total_ms", {{"median", milliseconds}, {"n", samples.size()}, {"samples", samples}}}};
}

class CompareLatency : public Compare {
 protected:
  RunData timed(const std::string& name, const std::vector<nlohmann::json>& rows) {
    write_planted(folder_.path() / name, {});
    std::ofstream out(folder_.path() / name / "latency.jsonl");
    for (const auto& row : rows) out << row.dump() << "\n";
    out.close();
    return load_run(folder_.path() / name);
  }
  std::vector<CompareVerdict> verdicts(const std::vector<nlohmann::json>& a,
                                       const std::vector<nlohmann::json>& b,
                                       const std::map<std::string, double>& tolerance = {}) {
    std::vector<CompareVerdict> out;
    for (const auto& value : compare_runs(timed("a", a), timed("b", b), tolerance).values) {
      if (value.metric == "total_ms") out.push_back(value.verdict);
    }
    return out;
  }
};

TEST_F(CompareLatency, TenPerCentIsTheThreshold) {
  const auto base = timed_row("clip0", 100.0);
  EXPECT_THAT(verdicts({base}, {timed_row("clip0", 109.9)}),
              ::testing::ElementsAre(CompareVerdict::same));
  EXPECT_THAT(verdicts({base}, {timed_row("clip0", 110.1)}),
              ::testing::ElementsAre(CompareVerdict::worse));
  EXPECT_THAT(verdicts({base}, {timed_row("clip0", 89.9)}),
              ::testing::ElementsAre(CompareVerdict::better));
}

TEST_F(CompareLatency, AGivenToleranceReplacesIt) {
  EXPECT_THAT(
      verdicts({timed_row("clip0", 100.0)}, {timed_row("clip0", 109.9)}, {{"total_ms", 0.05}}),
      ::testing::ElementsAre(CompareVerdict::worse));
}

TEST_F(CompareLatency, SamplesThatOverlapAreUndecided) {
  EXPECT_THAT(verdicts({timed_row("clip0", 100.0)}, {timed_row("clip0", 120.0, 3)}),
              ::testing::ElementsAre(CompareVerdict::undecided));
}

TEST_F(CompareLatency, RecordsArePairedWithThemselvesAlone) {
  const std::vector rows{timed_row("small", 10.0), timed_row("large", 1000.0)};
  EXPECT_THAT(verdicts(rows, rows),
              ::testing::ElementsAre(CompareVerdict::same, CompareVerdict::same));
}

}  // namespace
}  // namespace raingauge
