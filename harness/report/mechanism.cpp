// SPDX-License-Identifier: Apache-2.0
// Why: how alike the tokens of a block are under each order (what the permutation is for,
// RainFusion2.0 section 3.3), and how much attention frame 0 draws (what the sink is for, 3.4).
#include <algorithm>
#include <set>

#include "harness/report/run_data.h"

namespace raingauge {
namespace {

// One arm stands for an order: blocks do not depend on the other settings.
std::vector<std::pair<std::string, std::size_t>> arms_by_order(const RunData& data) {
  std::vector<std::pair<std::string, std::size_t>> found;
  std::set<std::string> known;
  for (std::size_t arm = 0; arm < data.fidelity.arms().size(); ++arm) {
    const auto& entry = data.fidelity.arms()[arm];
    const auto order = entry.level("order").empty() ? entry.name : entry.level("order");
    if (!entry.feasible() || !known.insert(order).second) continue;
    found.emplace_back(order, arm);
  }
  return found;
}

Number similarity_number(const std::string& order, const std::string& metric) {
  Number number;
  number.table = "similarity";
  number.arm = order;
  number.metric = metric;
  return number;
}

ReportTable similarity_table(const RunData& data, Document& document,
                             const std::vector<std::pair<std::string, std::size_t>>& orders) {
  const auto& seen = data.fidelity;
  ReportTable table;
  table.id = "similarity";
  table.title = "Within-block similarity by order";
  table.columns = {{"order", "token order of queries and keys", false},
                   {"queries", formula_of("block_similarity_q"), true},
                   {"keys", formula_of("block_similarity_k"), true},
                   {"keys less the first row", "paired within generations", true},
                   {"n", "generations", true}};
  const auto k = seen.metric("block_similarity_k");
  const auto first = seen.by_generation(orders.front().second, k, {});
  for (const auto& [order, arm] : orders) {
    const auto keys = seen.by_generation(arm, k, {});
    const auto queries = seen.by_generation(arm, seen.metric("block_similarity_q"), {});
    auto difference = keys;
    for (std::size_t g = 0; g < difference.size(); ++g) difference[g] -= first[g];
    const auto q_id = add_level(document, similarity_number(order, "block_similarity_q"), queries);
    const auto k_id = add_level(document, similarity_number(order, "block_similarity_k"), keys);
    auto number = similarity_number(order, "block_similarity_k");
    number.reference = orders.front().first;
    std::vector<Cell> row = {order, Cell::of(q_id), Cell::of(k_id)};
    row.push_back(order == orders.front().first
                      ? Cell("")
                      : Cell::of(add_difference(document, number, difference), 3));
    row.emplace_back(std::to_string(document.ledger[k_id].n));
    table.rows.push_back(std::move(row));
  }
  return table;
}

Figure similarity_figure(const RunData& data, Document& document,
                         const std::vector<std::pair<std::string, std::size_t>>& orders) {
  Figure figure;
  figure.id = "similarity_by_layer";
  figure.title = "Within-block similarity of keys by layer";
  figure.x_title = "layer";
  figure.y_title = "mean cosine of two keys of a block";
  figure.caption = "Mean over generations, steps, heads and blocks.";
  for (const auto& [order, arm] : orders) {
    Series series;
    series.name = series.group = order;
    for (const int layer : data.fidelity.layers()) {
      const Scope scope{.mode = "", .layer = layer};
      auto number = similarity_number(order, "block_similarity_k");
      number.scope = scope.text();
      const auto values =
          data.fidelity.by_generation(arm, data.fidelity.metric("block_similarity_k"), scope);
      series.x.push_back(layer);
      series.y.push_back(add_level(document, number, values));
    }
    figure.series.push_back(std::move(series));
  }
  return figure;
}

Figure first_frame_figure(const RunData& data, Document& document, std::size_t arm) {
  Figure figure;
  figure.id = "first_frame";
  figure.title = "Softmax mass on frame 0 by layer and step";
  figure.x_title = "layer";
  figure.y_title = "share of a row's dense softmax on frame 0";
  figure.caption =
      "A property of the records, the same for every arm. Mean over generations and heads. Dashed: "
      "the "
      "second mode.";
  auto modes = data.fidelity.modes();
  if (modes.empty()) modes = {""};
  for (const auto& mode : modes) {
    for (const int step : data.fidelity.steps()) {
      Series series;
      series.group = "step " + std::to_string(step);
      series.name = (mode.empty() ? "" : mode + ", ") + "step " + std::to_string(step);
      series.style = &mode == &modes.front() ? "solid" : "dash";
      for (const int layer : data.fidelity.layers()) {
        const Scope scope{.mode = mode, .layer = layer, .step = step};
        const auto values = finite(
            data.fidelity.by_generation(arm, data.fidelity.metric("mass_first_frame"), scope));
        if (values.empty()) continue;
        Number number;
        number.table = "first_frame";
        number.metric = "mass_first_frame";
        number.scope = scope.text();
        series.x.push_back(layer);
        series.y.push_back(add_level(document, number, values));
      }
      if (!series.y.empty()) figure.series.push_back(std::move(series));
    }
  }
  return figure;
}

}  // namespace

void add_mechanism(const RunData& data, Document& document) {
  const auto orders = arms_by_order(data);
  if (orders.empty()) return;
  if (data.fidelity.has("block_similarity_k") && data.fidelity.has("block_similarity_q")) {
    auto& section = document.section("similarity", "Why the permutation: similarity within blocks");
    section.blocks.emplace_back(similarity_table(data, document, orders));
    section.blocks.emplace_back(similarity_figure(data, document, orders));
  }
  if (data.fidelity.has("mass_first_frame")) {
    auto figure = first_frame_figure(data, document, orders.front().second);
    if (figure.series.empty()) return;
    auto& section = document.section("first_frame", "Why the sink: attention on the first frame");
    section.blocks.emplace_back(std::move(figure));
  }
}

}  // namespace raingauge
