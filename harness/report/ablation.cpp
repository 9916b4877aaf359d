// SPDX-License-Identifier: Apache-2.0
// The ablation table: every arm with what it spent, what it lost, its floors and ceilings, and its
// paired difference from the baseline arm of its family and density.
#include <algorithm>
#include <cmath>
#include <set>

#include "harness/report/run_data.h"
#include "harness/table.h"

namespace raingauge {
namespace {

std::string outcomes_text(const std::map<std::string, int>& outcomes) {
  std::string text;
  for (const auto& [name, count] : outcomes)
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + name;
  return text.empty() ? "no rows" : text;
}

// Columns of metrics; a property of the record is the same for every arm and stands elsewhere.
std::vector<std::string> columns_of(const Observations& seen) {
  std::vector<std::string> names;
  for (const auto& name : seen.metrics()) {
    if (name.starts_with("mass_") || name.starts_with("block_similarity") ||
        name == "density_blocks")
      continue;
    names.push_back(name);
  }
  return names;
}

std::string note_of(const Observations& seen, std::size_t arm) {
  const auto& entry = seen.arms()[arm];
  std::string note = entry.same_plans_as.empty() ? "" : "same plans as " + entry.same_plans_as;
  if (!entry.reason.empty()) note += (note.empty() ? "" : "; ") + entry.reason;
  if (entry.least_density >= 0.0)
    note += " (least density possible " + format_number(entry.least_density, 3) + ")";
  return note;
}

// Rows of one family at one density compete for "best".
std::map<std::string, std::vector<std::size_t>> peers(const Observations& seen,
                                                      const std::vector<std::size_t>& arms) {
  std::map<std::string, std::vector<std::size_t>> groups;
  for (std::size_t row = 0; row < arms.size(); ++row) {
    const auto& arm = seen.arms()[arms[row]];
    groups[arm.match + "/" + format_number(arm.nominal, 6)].push_back(row);
  }
  return groups;
}

class AblationTable {
 public:
  AblationTable(const RunData& data, Document& document)
      : data_(data), document_(document), metrics_(columns_of(data.fidelity)) {
    controls_ = data.fidelity.controls();
    std::erase(controls_, "second_rows");
    table_.id = "ablation";
    table_.title = "Arms";
    table_.note =
        "Mean over generations with 95 % cluster-t interval (from 8 generations on). Best of the "
        "arms of one match and density in bold. Recalls of controls: same counts, other blocks.";
    columns();
  }

  ReportTable build() {
    std::vector<std::size_t> arms;
    for (std::size_t arm = 0; arm < data_.fidelity.arms().size(); ++arm) {
      if (data_.fidelity.arms()[arm].outcomes.empty()) continue;
      arms.push_back(arm);
      add_row(arm);
    }
    for (const auto& [group, rows] : peers(data_.fidelity, arms)) {
      for (std::size_t i = 0; i < metrics_.size(); ++i) {
        const auto direction = direction_of(metrics_[i]);
        if (direction != Direction::neither)
          mark_best(document_, table_, column_of_.at(metrics_[i]), direction == Direction::higher,
                    rows);
      }
    }
    return std::move(table_);
  }

 private:
  void columns() {
    auto& columns = table_.columns;
    columns = {{"arm", "name in the experiment", false},
               {"match", "what was made equal: measured density, or the nominal knob", false},
               {"asked", "the density asked for", true}};
    for (const auto& name : metrics_) {
      column_of_[name] = columns.size();
      columns.push_back({name == "density_pairs" ? "density" : name, formula_of(name), true});
      if (name != "recall") continue;
      for (const auto& control : controls_)
        columns.push_back(
            {"recall of " + control, "recall of that control with the arm's counts", true});
    }
    const auto primary = data_.primary_metric();
    columns.push_back({primary + " less baseline",
                       "paired within generations; baseline arm of the same family and density",
                       true});
    columns.push_back({"p", "two-sided sign-flip test over generations, not corrected", true});
    columns.push_back({"n", "generations", true});
    columns.push_back({"rows", "judged (record, head) rows by outcome", false});
    columns.push_back({"note", "", false});
  }

  void add_row(std::size_t arm) {
    const auto& seen = data_.fidelity;
    const auto& entry = seen.arms()[arm];
    std::vector<Cell> row = {entry.name, entry.match,
                             entry.nominal >= 0.0 ? format_number(entry.nominal, 3) : "n/a"};
    Number number;
    number.table = "fidelity";
    number.arm = entry.name;
    for (const auto& name : metrics_) {
      number.metric = name;
      number.control = "";
      row.push_back(level_cell(number, seen.by_generation(arm, seen.metric(name), {})));
      if (name != "recall") continue;
      for (const auto& control : controls_) {
        number.control = control;
        row.push_back(level_cell(number, seen.by_generation(arm, seen.metric(name), {}, control)));
      }
    }
    add_baseline(arm, number, row);
    const auto per_generation = seen.by_generation(arm, seen.metric("density_pairs"), {});
    row.emplace_back(std::to_string(finite(per_generation).size()));
    row.emplace_back(outcomes_text(entry.outcomes));
    row.back().warning = entry.outcomes.contains("failed") ||
                         entry.outcomes.contains("not_finite") ||
                         entry.outcomes.contains("invalid_plan");
    row.emplace_back(note_of(seen, arm));
    table_.rows.push_back(std::move(row));
    table_.commands.push_back(rerun_command(data_, entry.name));
  }

  // A control that only some heads have is no floor of the arm's mean: its own rows are named by n.
  Cell level_cell(const Number& number, const std::vector<double>& values) {
    if (finite(values).empty()) return "";
    return Cell::of(add_level(document_, number, values));
  }

  void add_baseline(std::size_t arm, Number number, std::vector<Cell>& row) {
    const auto contrast = against_baseline(data_.fidelity, data_.plan, arm);
    if (contrast.weights.empty()) {
      row.emplace_back("");
      row.emplace_back("");
      return;
    }
    number.control = "";
    number.table = "against_baseline";
    number.metric = data_.primary_metric();
    number.reference = contrast.name.substr(contrast.name.find(" vs ") + 4);
    Estimate estimate;
    row.push_back(Cell::of(
        add_difference(document_, number,
                       differences(data_.fidelity, contrast, data_.fidelity.metric(number.metric)),
                       &estimate),
        3));
    row.emplace_back(std::isfinite(estimate.p) ? format_number(estimate.p, 2) : "n/a");
  }

  const RunData& data_;
  Document& document_;
  std::vector<std::string> metrics_, controls_;
  std::map<std::string, std::size_t> column_of_;
  ReportTable table_;
};

}  // namespace

void add_ablation(const RunData& data, Document& document) {
  if (data.fidelity.generations().empty() && data.fidelity.arms().empty()) return;
  auto table = AblationTable(data, document).build();
  if (table.rows.empty()) return;
  auto& section =
      document.section("ablation", "Fidelity: attention under the arm's plan against dense");
  section.blocks.emplace_back(std::move(table));
}

}  // namespace raingauge
