// SPDX-License-Identifier: Apache-2.0
// Recall and error against measured density, between floor and ceiling; error against speed.
#include <algorithm>
#include <cmath>
#include <map>

#include "harness/report/run_data.h"
#include "harness/table.h"

namespace raingauge {
namespace {

// Arms that differ in density alone: one curve.
struct Curve {
  std::string stem;
  std::vector<std::size_t> arms;  // density ascending
  bool shown = true;
};

double mean_of(const Observations& seen, std::size_t arm, const char* metric) {
  return estimate_level(finite(seen.by_generation(arm, seen.metric(metric), {}))).value;
}

std::vector<Curve> curves_of(const RunData& data) {
  std::vector<Curve> curves;
  const auto& arms = data.fidelity.arms();
  for (std::size_t i = 0; i < arms.size(); ++i) {
    if (!arms[i].outcomes.contains("ok")) continue;
    auto found = std::find_if(curves.begin(), curves.end(),
                              [&](const Curve& curve) { return curve.stem == arms[i].stem; });
    if (found == curves.end()) {
      curves.push_back({arms[i].stem, {}, highlighted(data, arms[i])});
      found = curves.end() - 1;
    }
    found->arms.push_back(i);
  }
  for (auto& curve : curves) {
    std::sort(curve.arms.begin(), curve.arms.end(), [&](std::size_t a, std::size_t b) {
      return mean_of(data.fidelity, a, "density_pairs") <
             mean_of(data.fidelity, b, "density_pairs");
    });
  }
  return curves;
}

void add_series(const RunData& data, Document& document, Figure& figure, const Curve& curve,
                const std::string& metric, const std::string& control) {
  const auto& seen = data.fidelity;
  Series series;
  series.name = curve.stem + (control.empty() ? "" : " (" + control + ")");
  series.group = curve.stem;
  series.style = control.empty() ? "solid" : control.starts_with("oracle") ? "dash" : "dot";
  series.hidden = !curve.shown || (!control.empty() && !figure.series.empty() &&
                                   figure.series.front().group != curve.stem);
  for (const auto arm : curve.arms) {
    Number number;
    number.table = "curve";
    number.arm = seen.arms()[arm].name;
    number.control = control;
    const auto values = finite(seen.by_generation(arm, seen.metric(metric), {}, control));
    if (values.empty()) continue;
    number.metric = metric;
    series.y.push_back(add_level(document, number, values));
    number.metric = "density_pairs";
    series.x_ids.push_back(add_level(
        document, number, seen.by_generation(arm, seen.metric("density_pairs"), {}, control)));
    series.x.push_back(document.ledger[series.x_ids.back()].value);
    series.labels.push_back(seen.arms()[arm].name);
  }
  if (!series.y.empty()) figure.series.push_back(std::move(series));
}

Figure curve_figure(const RunData& data, Document& document, const std::vector<Curve>& curves,
                    const std::string& metric) {
  Figure figure;
  figure.id = "curve_" + metric;
  figure.title = metric + " against measured density";
  figure.x_title = "density (kept pairs / valid pairs)";
  figure.y_title = metric;
  figure.log_y = metric != "recall" && metric != "cosine" && metric != "log_lost_mass";
  figure.caption =
      "Points: arms, mean over generations, 95 % interval from 8 generations on. Dashed: "
      "ceilings (oracle_row, oracle_head); dotted: floors (random with the same forced "
      "blocks, random_bare). Every curve can be switched in the legend.";
  for (const auto& curve : curves) add_series(data, document, figure, curve, metric, "");
  for (const auto& control : data.fidelity.controls()) {
    if (control == "second_rows") continue;
    for (const auto& curve : curves) add_series(data, document, figure, curve, metric, control);
  }
  return figure;
}

const nlohmann::json* find_latency(const RunData& data, const std::string& arm) {
  const nlohmann::json* best = nullptr;
  for (const auto& row : data.latency) {
    if (row.value("arm", "") != arm || row.value("outcome", "") != "ok") continue;
    if (!row.contains("speedup_vs_dense") || !row["speedup_vs_dense"].is_number()) continue;
    if (best == nullptr || row["speedup_vs_dense"] > (*best)["speedup_vs_dense"]) best = &row;
  }
  return best;
}

}  // namespace

void add_curves(const RunData& data, Document& document) {
  const auto curves = curves_of(data);
  const bool several = std::any_of(curves.begin(), curves.end(),
                                   [](const Curve& curve) { return curve.arms.size() > 1; });
  if (!several) return;
  auto& section = document.section("curves", "Recall and error against density");
  for (const char* metric : {"recall", "log_lost_mass", "rel_l2"}) {
    if (data.fidelity.has(metric))
      section.blocks.emplace_back(curve_figure(data, document, curves, metric));
  }
}

void add_pareto(const RunData& data, Document& document) {
  const char* metric = data.fidelity.has("rel_l2") ? "rel_l2" : "recall";
  if (!data.fidelity.has(metric)) return;
  Figure figure;
  figure.id = "pareto";
  figure.kind = FigureKind::scatter;
  figure.title = std::string(metric) + " against speed-up";
  figure.x_title = "speed-up over the fastest dense kernel";
  figure.y_title = metric;
  figure.caption =
      "One point an arm, by its fastest conformant kernel, plan included. Better lies to the right "
      "and ";
  figure.caption += direction_of(metric) == Direction::lower ? "below." : "above.";
  std::map<std::string, Series> families;
  for (std::size_t arm = 0; arm < data.fidelity.arms().size(); ++arm) {
    const auto& entry = data.fidelity.arms()[arm];
    const auto* row = find_latency(data, entry.name);
    const auto values = finite(data.fidelity.by_generation(arm, data.fidelity.metric(metric), {}));
    if (row == nullptr || values.empty()) continue;
    Number number;
    number.table = "pareto";
    number.arm = entry.name;
    number.kernel = row->value("kernel", "");
    auto& series = families[entry.stem];
    series.name = series.group = entry.stem;
    number.metric = metric;
    series.y.push_back(add_level(document, number, values));
    number.metric = "speedup_vs_dense";
    number.formula = "median attend of the fastest dense kernel / median total of the row";
    number.unit_of_n = "samples";
    series.x_ids.push_back(
        add_plain(document, number, (*row)["speedup_vs_dense"].get<double>(),
                  row->contains("total_ms") ? (*row)["total_ms"].value("n", 0) : 0));
    series.x.push_back(document.ledger[series.x_ids.back()].value);
    series.labels.push_back(entry.name);
  }
  if (families.empty()) return;
  for (auto& [stem, series] : families) figure.series.push_back(std::move(series));
  document.section("pareto", "Error against speed").blocks.emplace_back(std::move(figure));
}

}  // namespace raingauge
