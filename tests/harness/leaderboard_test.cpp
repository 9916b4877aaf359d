// SPDX-License-Identifier: Apache-2.0
#include "harness/leaderboard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/harness/temporary_folder.h"

namespace raingauge {
namespace {

using nlohmann::json;

json fidelity_row(const std::string& arm, const std::string& generation, double recall,
                  const std::string& control = "") {
  json row = {{"cell", arm + generation},
              {"cell_rows", 3},
              {"arm", control.empty() ? arm : arm + ":" + control},
              {"method", "m"},
              {"generation", generation},
              {"params", {{"density", 0.2}}},
              {"outcome", "ok"},
              {"density_pairs", 0.2},
              {"load_imbalance", 1.5},
              {"metrics", {{"recall", {{"value", recall}}}, {"rel_l2", {{"value", 1 - recall}}}}}};
  if (!control.empty()) {
    row["control"] = control;
    row["control_of"] = arm;
  }
  return row;
}

void write_rows(const std::filesystem::path& folder, const std::string& stream,
                const std::vector<json>& rows) {
  std::ofstream file(folder / (stream + ".jsonl"));
  for (const auto& row : rows) file << row.dump() << "\n";
}

TEST(Leaderboard, PlacesArmsBetweenRandomAndOracleByGeneration) {
  const testing_support::TemporaryFolder folder;
  std::vector<json> rows;
  const auto add = [&](const std::string& arm, const std::string& clip, double own, double random,
                       double oracle) {
    rows.push_back(fidelity_row(arm, clip, own));
    rows.push_back(fidelity_row(arm, clip, random, "random_bare"));
    rows.push_back(fidelity_row(arm, clip, oracle, "oracle_head"));
  };
  add("weak", "a", 0.4, 0.2, 1.0);  // 0.25
  add("weak", "b", 0.5, 0.2, 0.8);  // 0.5
  add("good", "a", 0.8, 0.2, 1.0);  // 0.75
  add("good", "b", 0.8, 0.2, 0.8);  // 1
  json refused = fidelity_row("refused", "a", 0.0);
  refused["outcome"] = "infeasible";
  refused["reason"] = "forced blocks alone are 0.3";
  refused["cell_rows"] = 1;
  refused.erase("metrics");
  rows.push_back(refused);
  write_rows(folder.path(), "fidelity", rows);
  write_rows(folder.path(), "latency",
             {{{"cell", "t"},
               {"cell_rows", 1},
               {"arm", "good"},
               {"outcome", "ok"},
               {"plan_ms", {{"median", 3.5}}}}});
  const Leaderboard board = read_leaderboard(folder.path());
  ASSERT_EQ(board.rows.size(), 3U);
  EXPECT_EQ(board.rows[0].arm, "good");
  EXPECT_NEAR(mean_of(board.rows[0].place), 0.875, 1e-12);
  ASSERT_EQ(board.rows[0].place.size(), 2U);
  EXPECT_NEAR(board.rows[0].place[0], 0.75, 1e-12);
  EXPECT_EQ(board.rows[0].plan_ms, 3.5);
  EXPECT_NEAR(mean_of(board.rows[0].load_imbalance), 1.5, 1e-12);
  EXPECT_EQ(board.rows[1].arm, "weak");
  EXPECT_NEAR(mean_of(board.rows[1].place), 0.375, 1e-12);
  EXPECT_TRUE(std::isnan(board.rows[1].plan_ms));
  EXPECT_EQ(board.rows[2].arm, "refused");
  EXPECT_TRUE(std::isnan(mean_of(board.rows[2].place)));
  EXPECT_EQ(outcome_text(board.rows[2].outcomes, board.rows[2].reason),
            "infeasible 1: forced blocks alone are 0.3");
}

TEST(Leaderboard, NeedsAFloorAndACeiling) {
  const testing_support::TemporaryFolder folder;
  json row = fidelity_row("arm", "a", 0.5);
  row["cell_rows"] = 1;
  write_rows(folder.path(), "fidelity", {row});
  EXPECT_TRUE(read_leaderboard(folder.path()).rows.empty());
}

}  // namespace
}  // namespace raingauge
