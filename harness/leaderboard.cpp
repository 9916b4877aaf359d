// SPDX-License-Identifier: Apache-2.0
#include "harness/leaderboard.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "harness/results.h"

namespace raingauge {
namespace {

using nlohmann::json;

struct Sum {
  double total = 0.0;
  int n = 0;
  void add(double value) {
    if (!std::isfinite(value)) return;
    total += value;
    ++n;
  }
  double mean() const { return n > 0 ? total / n : kNoNumber; }
};

double number(const json& value) { return value.is_number() ? value.get<double>() : kNoNumber; }

double metric(const json& row, const std::string& name) {
  const auto metrics = row.find("metrics");
  if (metrics == row.end() || !metrics->contains(name)) return kNoNumber;
  return number(metrics->at(name).value("value", json()));
}

// Recall by who attained it ("" = the arm itself), and what else a generation adds.
struct GenerationSums {
  std::map<std::string, Sum> recall;
  Sum density, rel_l2, imbalance;
};

struct ArmSums {
  LeaderboardRow row;
  std::map<std::string, GenerationSums> generations;
};

double asked_density(const json& row) {
  const auto params = row.find("params");
  if (params == row.end() || !params->contains("density")) return kNoNumber;
  return number(params->at("density"));
}

void add_row(const json& row, std::map<std::string, ArmSums>& arms,
             std::vector<std::string>& order) {
  const std::string control = row.value("control", "");
  const std::string arm =
      control.empty() ? row.at("arm").get<std::string>() : row.at("control_of").get<std::string>();
  auto [found, is_new] = arms.try_emplace(arm);
  ArmSums& sums = found->second;
  if (is_new) {
    order.push_back(arm);
    sums.row.arm = arm;
    sums.row.method = row.value("method", "");
    sums.row.asked = asked_density(row);
  }
  const std::string outcome = row.value("outcome", "failed");
  if (control.empty()) ++sums.row.outcomes[outcome];
  if (outcome != "ok") {
    if (sums.row.reason.empty()) sums.row.reason = row.value("reason", "");
    return;
  }
  GenerationSums& generation = sums.generations[row.value("generation", "")];
  generation.recall[control].add(metric(row, "recall"));
  if (!control.empty()) return;
  generation.density.add(number(row.value("density_pairs", json())));
  generation.rel_l2.add(metric(row, "rel_l2"));
  generation.imbalance.add(number(row.value("load_imbalance", json())));
}

// The first of the controls that was run.
double recall_of(const GenerationSums& sums, const std::vector<std::string>& names) {
  for (const auto& name : names) {
    const auto found = sums.recall.find(name);
    if (found != sums.recall.end() && found->second.n > 0) return found->second.mean();
  }
  return kNoNumber;
}

LeaderboardRow finished(const ArmSums& sums) {
  LeaderboardRow row = sums.row;
  for (const auto& [name, generation] : sums.generations) {
    const double own = recall_of(generation, {""});
    const double floor = recall_of(generation, {"random_bare", "random"});
    const double ceiling = recall_of(generation, {"oracle_head", "oracle_row"});
    row.density_pairs.push_back(generation.density.mean());
    row.rel_l2.push_back(generation.rel_l2.mean());
    row.load_imbalance.push_back(generation.imbalance.mean());
    row.recall.push_back(own);
    row.random.push_back(floor);
    row.oracle_head.push_back(ceiling);
    row.place.push_back((own - floor) / (ceiling - floor));
  }
  return row;
}

// Greater first, NaN last.
bool ahead(double a, double b) { return std::isnan(b) ? !std::isnan(a) : a > b; }

// NaN (own knob) after all densities.
double sortable(double asked) { return std::isnan(asked) ? 2.0 : asked; }

std::vector<LeaderboardRow> fidelity_rows(const std::filesystem::path& run) {
  std::map<std::string, ArmSums> arms;
  std::vector<std::string> order;
  bool floor = false, ceiling = false;
  for_each_row(run, "fidelity", [&](const json& row) {
    const std::string control = row.value("control", "");
    floor = floor || control.starts_with("random");
    ceiling = ceiling || control.starts_with("oracle");
    add_row(row, arms, order);
  });
  if (!floor || !ceiling) return {};
  std::map<std::string, std::pair<double, int>> plan_ms;
  for (const auto& row : load_rows(run, "latency")) {
    if (row.value("outcome", "") != "ok" || !row.contains("plan_ms")) continue;
    const auto& time = row.at("plan_ms");
    if (!time.is_object()) continue;
    plan_ms.try_emplace(row.at("arm").get<std::string>(), number(time.value("median", json())),
                        time.value("n", 0));
  }
  std::vector<LeaderboardRow> rows;
  for (const auto& arm : order) {
    rows.push_back(finished(arms.at(arm)));
    const auto timed = plan_ms.find(arm);
    if (timed == plan_ms.end()) continue;
    rows.back().plan_ms = timed->second.first;
    rows.back().timed = timed->second.second;
  }
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    if (sortable(a.asked) != sortable(b.asked)) return sortable(a.asked) < sortable(b.asked);
    return ahead(mean_of(a.place), mean_of(b.place));
  });
  return rows;
}

void add_clips(const std::filesystem::path& run, Leaderboard& board) {
  std::map<std::pair<std::string, std::string>, LeaderboardClip> clips;
  for (const auto& row : load_rows(run, "generate")) {
    const std::string reference = row.value("reference", "");
    LeaderboardClip& clip = clips[{row.at("arm").get<std::string>(), reference}];
    clip.arm = row.at("arm").get<std::string>();
    clip.reference = reference;
    clip.method = row.value("method", "");
    clip.asked = asked_density(row);
    ++clip.outcomes[row.value("outcome", "failed")];
    if (row.value("outcome", "") != "ok") {
      if (clip.reason.empty()) clip.reason = row.value("reason", "");
      continue;
    }
    clip.density_pairs.push_back(number(row.value("density_pairs", json())));
    for (const auto& [name, value] : row.at("metrics").items()) {
      const bool is_new =
          std::find(board.metrics.begin(), board.metrics.end(), name) == board.metrics.end();
      if (is_new) board.metrics.push_back(name);
      clip.metrics[name].push_back(number(value.value("mean", json())));
    }
  }
  for (auto& [key, clip] : clips) board.clips.push_back(std::move(clip));
  const auto first = [&](const LeaderboardClip& clip) {
    const auto found =
        board.metrics.empty() ? clip.metrics.end() : clip.metrics.find(board.metrics.front());
    return found == clip.metrics.end() ? kNoNumber : mean_of(found->second);
  };
  std::stable_sort(board.clips.begin(), board.clips.end(), [&](const auto& a, const auto& b) {
    if (a.reference != b.reference) return a.reference < b.reference;
    if (sortable(a.asked) != sortable(b.asked)) return sortable(a.asked) < sortable(b.asked);
    return ahead(first(a), first(b));
  });
}

}  // namespace

double mean_of(const std::vector<double>& values) {
  Sum sum;
  for (const double value : values) sum.add(value);
  return sum.mean();
}

std::string outcome_text(const std::map<std::string, int>& outcomes, const std::string& reason) {
  std::string text;
  for (const auto& [name, count] : outcomes) {
    text += (text.empty() ? "" : ", ") + name + " " + std::to_string(count);
  }
  return outcomes.size() == 1 && outcomes.contains("ok") ? text : text + ": " + reason;
}

Leaderboard read_leaderboard(const std::filesystem::path& run) {
  Leaderboard board;
  board.rows = fidelity_rows(run);
  if (!board.rows.empty()) add_clips(run, board);
  return board;
}

}  // namespace raingauge
