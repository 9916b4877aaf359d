// SPDX-License-Identifier: Apache-2.0
#include "harness/report/schedule.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "data/error.h"
#include "harness/rows.h"

namespace raingauge {
namespace {

using nlohmann::json;
using Place = std::tuple<int, int, int>;  // layer, step, head

// Error and density of one arm at one place, by generation.
struct Seen {
  std::vector<double> error, density;  // NaN where there is no row
};

struct Choice {
  int arm = -1;  // -1: dense
  double error = 0.0, density = 1.0;
};

class Chooser {
 public:
  Chooser(const RunData& data, const ScheduleBound& bound) : seen_(data.fidelity), bound_(bound) {
    const auto metric = seen_.metric(bound.metric);
    const auto density = seen_.metric("density_pairs");
    const bool higher = direction_of(bound.metric) == Direction::higher;
    for (std::size_t arm = 0; arm < seen_.arms().size(); ++arm) {
      if (!seen_.arms()[arm].feasible()) continue;
      arms_.push_back(arm);
      for (const auto& row : seen_.of_arm(arm)) {
        if (!row.control.empty()) continue;
        auto& place = places_[{row.layer, row.step, row.head}];
        auto& at = place[static_cast<int>(arms_.size()) - 1];
        at.error.resize(seen_.generations().size(), std::nan(""));
        at.density.resize(seen_.generations().size(), std::nan(""));
        const double value = seen_.value(row, metric);
        const auto g = static_cast<std::size_t>(row.generation);
        at.error[g] = higher ? 1.0 - value : value;
        at.density[g] = seen_.value(row, density);
      }
    }
    if (arms_.empty()) throw Error("schedule: the run has no arm that is feasible on every record");
  }

  const std::map<Place, std::map<int, Seen>>& places() const { return places_; }
  const ObservedArm& arm(int index) const {
    return seen_.arms()[arms_[static_cast<std::size_t>(index)]];
  }
  std::size_t generations() const { return seen_.generations().size(); }
  std::size_t arms() const { return arms_.size(); }

  // The cheapest arm within the bound, by means over the generations other than `left_out`; of two
  // equally cheap ones the more exact.
  Choice choose(const std::map<int, Seen>& arms, std::size_t left_out) const {
    Choice best;
    for (const auto& [arm, seen] : arms) {
      const double error = mean_without(seen.error, left_out);
      const double density = mean_without(seen.density, left_out);
      if (!(error <= bound_.error)) continue;  // NaN fails
      if (density < best.density ||
          (density == best.density && best.arm >= 0 && error < best.error))
        best = {arm, error, density};
    }
    return best;
  }

 private:
  static double mean_without(const std::vector<double>& values, std::size_t left_out) {
    double sum = 0.0;
    int n = 0;
    for (std::size_t g = 0; g < values.size(); ++g) {
      if (g == left_out || std::isnan(values[g])) continue;
      sum += values[g];
      ++n;
    }
    return n == 0 ? std::nan("") : sum / n;
  }

  const Observations& seen_;
  ScheduleBound bound_;
  std::vector<std::size_t> arms_;
  std::map<Place, std::map<int, Seen>> places_;
};

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

struct Total {
  double error = 0.0, density = 0.0, worst = 0.0;
  int n = 0, beyond = 0;
  void add(double e, double d, double bound) {
    error += e;
    density += d;
    worst = std::max(worst, e);
    beyond += e > bound ? 1 : 0;
    ++n;
  }
  json to_json() const {
    return {{"error_mean", number_or_null(error / n)},
            {"error_worst_head", number_or_null(worst)},
            {"density_pairs", number_or_null(density / n)},
            {"heads", n},
            {"heads_beyond_bound", beyond}};
  }
};

json achieved(const Chooser& chooser, double bound) {
  if (chooser.generations() < 2) return nullptr;
  Total total;
  for (std::size_t g = 0; g < chooser.generations(); ++g) {
    for (const auto& [place, arms] : chooser.places()) {
      const auto choice = chooser.choose(arms, g);
      const double error = choice.arm < 0 ? 0.0 : arms.at(choice.arm).error[g];
      const double density = choice.arm < 0 ? 1.0 : arms.at(choice.arm).density[g];
      if (std::isfinite(error)) total.add(error, density, bound);
    }
  }
  json out = total.to_json();
  out["how"] = "each generation left out in turn: chosen on the others, read on it";
  return out;
}

}  // namespace

json make_schedule(const RunData& data, const ScheduleBound& bound) {
  const Chooser chooser(data, bound);
  json settings = json::array();
  for (std::size_t i = 0; i < chooser.arms(); ++i) {
    const auto& arm = chooser.arm(static_cast<int>(i));
    settings.push_back({{"arm", arm.name}, {"match", arm.match}, {"params", arm.params}});
  }
  Total predicted;
  json sites = json::array();
  for (const auto& [place, arms] : chooser.places()) {
    const auto choice = chooser.choose(arms, kNone);
    predicted.add(choice.error, choice.density, bound.error);
    sites.push_back({{"layer", std::get<0>(place)},
                     {"step", std::get<1>(place)},
                     {"head", std::get<2>(place)},
                     {"setting", choice.arm},
                     {"error", choice.error},
                     {"density", choice.density}});
  }
  return {{"format", "raingauge-schedule"},
          {"version", 1},
          {"metric", bound.metric},
          {"error_is",
           direction_of(bound.metric) == Direction::higher ? "1 - " + bound.metric : bound.metric},
          {"bound", bound.error},
          {"experiment", data.manifest.value("experiment", json::object()).value("name", "")},
          {"git_commit", data.manifest.value("git_commit", "")},
          {"generations", chooser.generations()},
          {"settings", settings},
          {"sites", sites},
          {"predicted", predicted.to_json()},
          {"achieved", achieved(chooser, bound.error)}};
}

}  // namespace raingauge
