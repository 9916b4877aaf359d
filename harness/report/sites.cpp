// SPDX-License-Identifier: Apache-2.0
// Where an arm loses: heat maps over layer x step x head.
#include <algorithm>

#include "harness/report/run_data.h"

namespace raingauge {
namespace {

constexpr std::size_t kMaxPanels = 24;

HeatPanel panel_of(const RunData& data, Document& document, std::size_t arm,
                   const std::string& metric) {
  const auto& seen = data.fidelity;
  HeatPanel panel;
  panel.name = seen.arms()[arm].name;
  const auto steps = seen.steps();
  const auto heads = seen.heads();
  for (const int step : steps) {
    for (const int head : heads)
      panel.columns.push_back("step " + std::to_string(step) + " head " + std::to_string(head));
  }
  for (const int layer : seen.layers()) {
    panel.rows.push_back("layer " + std::to_string(layer));
    for (const int step : steps) {
      for (const int head : heads) {
        const Scope scope{.mode = "", .layer = layer, .step = step, .head = head};
        const auto values = finite(seen.by_generation(arm, seen.metric(metric), scope));
        if (values.empty()) {
          panel.cells.emplace_back();
          continue;
        }
        Number number;
        number.table = "site";
        number.arm = panel.name;
        number.metric = metric;
        number.scope = scope.text();
        panel.cells.emplace_back(add_level(document, number, values));
      }
    }
  }
  return panel;
}

}  // namespace

void add_sites(const RunData& data, Document& document) {
  const auto metric = data.primary_metric();
  if (!data.fidelity.has(metric)) return;
  Figure figure;
  figure.id = "sites_" + metric;
  figure.kind = FigureKind::heat;
  figure.title = metric + " by layer, step and head";
  figure.x_title = "step and head";
  figure.y_title = "layer";
  figure.caption =
      "Mean over generations. All panels share one colour scale; choose the arm above.";
  for (std::size_t arm = 0; arm < data.fidelity.arms().size(); ++arm) {
    const auto& entry = data.fidelity.arms()[arm];
    if (!entry.outcomes.contains("ok") || !highlighted(data, entry)) continue;
    if (figure.panels.size() == kMaxPanels) break;
    figure.panels.push_back(panel_of(data, document, arm, metric));
  }
  if (figure.panels.empty()) return;
  document.section("sites", "Layer x step x head").blocks.emplace_back(std::move(figure));
}

}  // namespace raingauge
