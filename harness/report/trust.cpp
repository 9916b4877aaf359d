// SPDX-License-Identifier: Apache-2.0
// How far the numbers can be trusted: what must not be overlooked, conformance, floors, the machine.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "harness/report/run_data.h"
#include "harness/table.h"

namespace raingauge {
namespace {

using nlohmann::json;

double mean(const Observations& seen, std::size_t arm, const std::string& metric,
            const std::string& control = "") {
  return estimate_level(finite(seen.by_generation(arm, seen.metric(metric), {}, control))).value;
}

void warn_of_conformance(const RunData& data, std::vector<std::string>& warnings) {
  for (const auto& row : data.conformance) {
    const auto outcome = row.value("outcome", std::string("failed"));
    if (outcome == "ok" || outcome == "unsupported") continue;
    warnings.push_back("FAILED conformance: " + row.value("arm", "") + " on kernel " +
                       row.value("kernel", "") + ": " + outcome + ": " + row.value("reason", "") +
                       ". Its latency is not shown.");
  }
}

void warn_of_outcomes(const Observations& seen, std::vector<std::string>& warnings) {
  for (const auto& arm : seen.arms()) {
    for (const char* outcome : {"failed", "invalid_plan", "not_finite", "incorrect"}) {
      const auto found = arm.outcomes.find(outcome);
      if (found == arm.outcomes.end()) continue;
      warnings.push_back(arm.name + ": " + std::to_string(found->second) + " rows " + outcome +
                         ": " + arm.reason);
    }
  }
}

void warn_of_density(const Observations& seen, std::vector<std::string>& warnings) {
  for (const auto& arm : seen.arms()) {
    if (arm.density_excess <= 0.0) continue;
    warnings.push_back("Budget: " + arm.name + " asked for density " +
                       format_number(arm.density_asked, 4) + " and keeps " +
                       format_number(arm.density_seen, 4) +
                       " of the pairs: more than rounding to whole blocks explains; its label does "
                       "not say what it spends.");
  }
}

// A recall above 1, above its ceiling or below its floor is a bug of the mask or of the judge. The
// ceilings are filled by means over whole blocks, recall is judged on rows: hence the allowance.
void warn_of_recall(const Observations& seen, std::vector<std::string>& warnings) {
  if (!seen.has("recall")) return;
  constexpr double kAllowance = 0.01;
  for (std::size_t arm = 0; arm < seen.arms().size(); ++arm) {
    const double recall = mean(seen, arm, "recall");
    const auto warn = [&](const std::string& what, double bound) {
      warnings.push_back("Recall: " + seen.arms()[arm].name + " has " + format_number(recall, 4) +
                         what + format_number(bound, 4));
    };
    if (recall > 1.0 + 1e-4) warn(", more than all of the mass: ", 1.0);
    const double ceiling = mean(seen, arm, "recall", "oracle_row");
    if (recall > ceiling + kAllowance) warn(", above its ceiling oracle_row: ", ceiling);
    const double floor = mean(seen, arm, "recall", "random");
    if (recall < floor - kAllowance)
      warn(
          ", below random blocks with the same forced ones and counts: the mask selects worse than "
          "chance. ",
          floor);
  }
}

void warn_of_captures(const json& manifest, std::vector<std::string>& warnings) {
  std::set<std::string> commits;
  for (const auto& run : manifest.value("runs", json::array()))
    commits.insert(run.value("git_commit", std::string("unknown")));
  if (commits.size() > 1)
    warnings.push_back("The rows come from " + std::to_string(commits.size()) +
                       " commits: the run was continued by another version.");
  for (const auto& capture : manifest.value("captures", json::array())) {
    for (const auto& warning : capture.value("warnings", json::array())) {
      if (warning.is_string()) warnings.push_back("Capture: " + warning.get<std::string>());
    }
  }
}

ReportTable conformance_table(const RunData& data, Document& document) {
  ReportTable table;
  table.id = "conformance";
  table.title = "Conformance of kernels";
  table.note =
      "Each kernel against the fp32 reference on the same plan, on whole query blocks; a gate: "
      "what "
      "fails is not timed. For bf16 kernels the errors are the floor of their arithmetic.";
  table.columns = {{"kernel", "", false},
                   {"plans", "plans by outcome", false},
                   {"largest row error", "max over rows of |o - o_ref| / |o_ref|", true},
                   {"tolerance", "derived from dtype and head_dim; the largest allowed", true},
                   {"largest LSE error", "max over rows of |lse - lse_ref|", true}};
  struct Sum {
    std::map<std::string, int> outcomes;
    double error = 0.0, tolerance = 0.0, lse = std::nan("");
    int n = 0;
  };
  std::map<std::string, Sum> kernels;
  const auto number = [](const json& row, const char* key) {
    return row.contains(key) && row[key].is_number() ? row[key].get<double>() : std::nan("");
  };
  for (const auto& row : data.conformance) {
    auto& sum = kernels[row.value("kernel", "")];
    ++sum.outcomes[row.value("outcome", std::string("failed"))];
    const double error = number(row, "max_row_error");
    if (!std::isfinite(error)) continue;
    ++sum.n;
    sum.error = std::max(sum.error, error);
    sum.tolerance = std::max(sum.tolerance, number(row, "tolerance"));
    sum.lse = std::fmax(sum.lse, number(row, "max_lse_error"));
  }
  for (const auto& [kernel, sum] : kernels) {
    std::string outcomes;
    bool bad = false;
    for (const auto& [name, count] : sum.outcomes) {
      outcomes += (outcomes.empty() ? "" : ", ") + std::to_string(count) + " " + name;
      bad = bad || (name != "ok" && name != "unsupported");
    }
    Number entry;
    entry.table = "conformance";
    entry.kernel = kernel;
    entry.unit_of_n = "plans";
    const auto cell = [&](const char* metric, double value) -> Cell {
      if (!std::isfinite(value) || sum.n == 0) return "n/a";
      entry.metric = metric;
      return Cell::of(add_plain(document, entry, value, sum.n), 3);
    };
    Cell plans(outcomes);
    plans.warning = bad;
    table.rows.push_back({kernel, plans, cell("max_row_error", sum.error),
                          cell("tolerance", sum.tolerance), cell("max_lse_error", sum.lse)});
  }
  return table;
}

// Standard deviation over seeds of the mean over the records that have every seed.
double sd_over_seeds(const Observations& seen, std::size_t arm, std::size_t metric, int& seeds) {
  std::map<std::uint64_t, std::pair<double, int>> by_seed;
  std::map<std::tuple<int, int, int, int>, int> sites;
  for (const auto& row : seen.of_arm(arm)) {
    if (row.control == "random") ++sites[{row.generation, row.layer, row.step, row.head}];
  }
  for (const auto& row : seen.of_arm(arm)) {
    if (row.control != "random" || sites[{row.generation, row.layer, row.step, row.head}] < 2)
      continue;
    auto& [sum, n] = by_seed[row.control_seed];
    sum += seen.value(row, metric);
    ++n;
  }
  seeds = static_cast<int>(by_seed.size());
  if (seeds < 2) return std::nan("");
  std::vector<double> means;
  for (const auto& [seed, sum] : by_seed) means.push_back(sum.first / sum.second);
  const double centre = estimate_level(means).value;
  double squares = 0.0;
  for (const double value : means) squares += (value - centre) * (value - centre);
  return std::sqrt(squares / (seeds - 1));
}

// Mean |second sample - first| over heads that were judged twice.
double second_rows(const Observations& seen, std::size_t arm, std::size_t metric, int& n) {
  std::map<std::tuple<int, int, int, int>, double> first;
  for (const auto& row : seen.of_arm(arm)) {
    if (row.control.empty())
      first[{row.generation, row.layer, row.step, row.head}] = seen.value(row, metric);
  }
  double sum = 0.0;
  n = 0;
  for (const auto& row : seen.of_arm(arm)) {
    if (row.control != "second_rows") continue;
    sum +=
        std::fabs(seen.value(row, metric) - first[{row.generation, row.layer, row.step, row.head}]);
    ++n;
  }
  return n == 0 ? std::nan("") : sum / n;
}

ReportTable floor_table(const RunData& data, Document& document) {
  const auto& seen = data.fidelity;
  const auto metric_name = data.primary_metric();
  ReportTable table;
  table.id = "floors";
  table.title = "Floors: how much " + metric_name + " moves when nothing does";
  table.columns = {{"arm", "", false},
                   {"sd over random seeds", "of the control `random`, over its seeds", true},
                   {"seeds", "", true},
                   {"second rows", "mean |difference| to another sample of rows, a head", true},
                   {"heads", "judged twice", true}};
  if (!seen.has(metric_name)) return table;
  const auto metric = seen.metric(metric_name);
  for (std::size_t arm = 0; arm < seen.arms().size(); ++arm) {
    int seeds = 0;
    int heads = 0;
    const double sd = sd_over_seeds(seen, arm, metric, seeds);
    const double second = second_rows(seen, arm, metric, heads);
    if (!std::isfinite(sd) && !std::isfinite(second)) continue;
    if (!highlighted(data, seen.arms()[arm])) continue;
    Number number;
    number.table = "floor";
    number.arm = seen.arms()[arm].name;
    const auto cell = [&](const std::string& metric_label, double value, int n,
                          const char* unit) -> Cell {
      if (!std::isfinite(value)) return "n/a";
      number.metric = metric_label;
      number.unit_of_n = unit;
      return Cell::of(add_plain(document, number, value, n), 3);
    };
    table.rows.push_back({number.arm, cell(metric_name + "_sd_over_seeds", sd, seeds, "seeds"),
                          std::to_string(seeds),
                          cell(metric_name + "_second_rows", second, heads, "heads"),
                          std::to_string(heads)});
  }
  return table;
}

std::string plain(const json& value) {
  if (value.is_null()) return "not known";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

ReportTable environment_table(const json& manifest, const Observations& fidelity) {
  ReportTable table;
  table.id = "environment";
  table.title = "Environment";
  table.columns = {{"what", "", false}, {"value", "", false}};
  const auto add = [&](const std::string& what, const json& value) {
    table.rows.push_back({what, plain(value)});
  };
  const auto machine = manifest.value("machine", json::object());
  for (const char* key : {"cpu", "architecture", "system", "logical", "usable", "mhz", "governor",
                          "load", "memory_bytes"})
    add(key, machine.value(key, json()));
  const auto gpu = manifest.value("gpu", json());
  if (gpu.is_object()) {
    for (const auto& [key, value] : gpu.items()) add("gpu " + key, value);
  }
  const auto build = manifest.value("build", json::object());
  for (const char* key : {"version", "compiler", "mode"}) add(key, build.value(key, json()));
  const auto libraries = build.value("libraries", json::object());
  for (const auto& [name, version] : libraries.items()) add("library " + name, version);
  for (const char* key : {"git_commit", "device", "threads", "seed", "started", "experiment_hash"})
    add(key, manifest.value(key, json()));
  for (const auto& [where, heads] : fidelity.judged_on()) {
    add("fidelity judged on " + (where.empty() ? "a machine that the rows do not name" : where),
        std::to_string(heads) + " heads");
  }
  for (const auto& capture : manifest.value("captures", json::array())) {
    std::string text = capture.value("generation", std::string("synthetic")) + ", " +
                       capture.value("pipeline", std::string("")) + ", content " +
                       capture.value("identity", std::string("by its specification"));
    add("capture " + std::to_string(table.rows.size()), text);
  }
  return table;
}

}  // namespace

std::vector<std::string> warnings_of(const RunData& data) {
  std::vector<std::string> warnings;
  warn_of_conformance(data, warnings);
  warn_of_outcomes(data.fidelity, warnings);
  warn_of_density(data.fidelity, warnings);
  warn_of_recall(data.fidelity, warnings);
  warn_of_captures(data.manifest, warnings);
  return warnings;
}

void add_trust(const RunData& data, Document& document) {
  if (!data.conformance.empty()) {
    auto table = conformance_table(data, document);
    document.section("conformance", "Conformance").blocks.emplace_back(std::move(table));
  }
  auto floors = floor_table(data, document);
  if (!floors.rows.empty())
    document.section("floors", "Floors").blocks.emplace_back(std::move(floors));
  auto table = environment_table(data.manifest, data.fidelity);
  table.wide_only = true;
  document.section("environment", "Environment").blocks.emplace_back(std::move(table));
}

void add_reproduce(const RunData& data, Document& document) {
  auto& section = document.section("reproduce", "Reproduce");
  section.say("The whole run: " + document.reproduce);
  ReportTable table;
  table.id = "reproduce";
  table.title = "Each row";
  table.wide_only = true;
  table.columns = {{"arm", "", false},
                   {"command", "reruns this arm alone, into a folder of its own", false}};
  for (const auto& arm : data.fidelity.arms()) {
    if (!arm.outcomes.empty()) table.rows.push_back({arm.name, rerun_command(data, arm.name)});
  }
  if (!table.rows.empty()) section.blocks.emplace_back(std::move(table));
}

}  // namespace raingauge
