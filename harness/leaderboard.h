// SPDX-License-Identifier: Apache-2.0
// Methods side by side at equal measured density: where each stands between random blocks and the best
// mask of its own layout, what deciding costs, and how unevenly its rows are loaded.
#pragma once

#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace raingauge {

inline constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

// One arm at one density asked for. Vectors hold one value a generation, each a mean over records and
// heads; NaN where a generation lacks it.
struct LeaderboardRow {
  std::string arm;
  std::string method;
  double asked = kNoNumber;  // NaN: the arm ran at its own knob
  std::vector<double> density_pairs, recall, rel_l2;
  std::vector<double> random;       // recall of random_bare, else of random
  std::vector<double> oracle_head;  // recall of oracle_head, else of oracle_row
  // (recall - random) / (oracle_head - random): 0 = no better than chance, 1 = the best mask of this
  // layout.
  std::vector<double> place;
  // Most key blocks of a query block / mean over query blocks.
  std::vector<double> load_imbalance;
  double plan_ms = kNoNumber;  // median of the latency stage; NaN when the arm was not timed
  int timed = 0;               // samples behind plan_ms
  std::map<std::string, int> outcomes;
  std::string reason;  // of the first row that is not ok
};

// One arm's clips against one reference.
struct LeaderboardClip {
  std::string arm, method, reference;
  double asked = kNoNumber;           // density of the sparse calls
  std::vector<double> density_pairs;  // a value a clip: over all calls, dense ones included
  std::map<std::string, std::vector<double>> metrics;
  std::map<std::string, int> outcomes;
  std::string reason;
};

struct Leaderboard {
  std::vector<LeaderboardRow> rows;    // by density asked, then by falling place
  std::vector<LeaderboardClip> clips;  // by reference, density, then by falling first metric
  std::vector<std::string> metrics;    // of clips
};

// From the rows in a run's folder. No rows without a floor and a ceiling (a random control and an
// oracle): nobody can be placed then.
Leaderboard read_leaderboard(const std::filesystem::path& run);

// Mean of the finite values; NaN without any.
double mean_of(const std::vector<double>& values);

// "ok 16", "infeasible 16: the forced blocks …"
std::string outcome_text(const std::map<std::string, int>& outcomes, const std::string& reason);

}  // namespace raingauge
