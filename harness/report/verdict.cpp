// SPDX-License-Identifier: Apache-2.0
// The verdict: one sentence for every declared contrast, with its interval; the contrasts as tables;
// where (mode, density, layer, step) an effect stands.
#include <algorithm>
#include <cmath>

#include "harness/report/run_data.h"
#include "harness/table.h"

namespace raingauge {
namespace {

std::string signed_number(double value, int digits = 3) {
  return (value >= 0.0 ? "+" : "") + format_number(value, digits);
}

std::string p_text(double p) {
  if (!std::isfinite(p)) return "n/a";
  return p < 1e-4 ? "< 0.0001" : format_number(p, 2);
}

// Metrics that a contrast is printed for: those with a better side.
std::vector<std::string> judged_metrics(const RunData& data) {
  std::vector<std::string> names;
  for (const auto& name : data.fidelity.metrics()) {
    if (direction_of(name) != Direction::neither) names.push_back(name);
  }
  return names;
}

// Holds what one contrast came to.
struct Finding {
  const Contrast* contrast = nullptr;
  NumberId primary = 0;
  Estimate estimate = {};  // of the primary metric
  std::optional<NumberId> ratio = {};
  std::map<std::string, NumberId> others = {};
  double holm = std::nan("");
};

NumberId add_ratio(const RunData& data, Document& document, const Contrast& contrast,
                   const Number& base) {
  const auto metric = data.fidelity.metric("log_lost_mass");
  const auto log = estimate_mean(differences(data.fidelity, contrast, metric));
  Number number = base;
  number.metric = "lost_mass_ratio";
  number.formula = formula_of("lost_mass_ratio");
  number.value = std::exp(log.value);
  number.lo = std::exp(log.lo);
  number.hi = std::exp(log.hi);
  number.p = log.p;
  number.n = log.n;
  number.unit_of_n = "generations";
  return document.add(std::move(number));
}

std::string label_of(const RunData& data, const Contrast& contrast) {
  const bool several = bases_of(data.fidelity).size() > 1;
  return (several && contrast.kind != "pair" ? contrast.base + ", " : "") + contrast.name;
}

Finding find(const RunData& data, Document& document, const Contrast& contrast) {
  Finding finding{&contrast};
  Number number;
  number.table = contrast.declared ? "contrast" : "contrast_exploratory";
  number.arm = label_of(data, contrast);
  number.scope = contrast.over;
  for (const auto& name : judged_metrics(data)) {
    number.metric = name;
    number.formula = "";
    Estimate estimate;
    const auto id =
        add_difference(document, number,
                       differences(data.fidelity, contrast, data.fidelity.metric(name)), &estimate);
    if (name == data.primary_metric()) {
      finding.primary = id;
      finding.estimate = estimate;
    } else {
      finding.others[name] = id;
    }
  }
  number.metric = "density_pairs";
  number.formula = "";
  add_difference(document, number,  // what the match left over
                 differences(data.fidelity, contrast, data.fidelity.metric("density_pairs")));
  if (data.fidelity.has("log_lost_mass"))
    finding.ratio = add_ratio(data, document, contrast, number);
  return finding;
}

std::vector<Finding> find_all(const RunData& data, Document& document,
                              const std::vector<Contrast>& contrasts) {
  std::vector<Finding> findings;
  for (const auto& contrast : contrasts) {
    if (!contrast.weights.empty()) findings.push_back(find(data, document, contrast));
  }
  std::vector<double> p;
  for (const auto& finding : findings) p.push_back(finding.estimate.p);
  const auto adjusted = holm_adjusted(p);
  for (std::size_t i = 0; i < findings.size(); ++i) findings[i].holm = adjusted[i];
  return findings;
}

// helps, harms, no difference shown, descriptive.
std::string verdict_word(const RunData& data, const Finding& finding) {
  const auto& e = finding.estimate;
  if (!std::isfinite(e.p)) return "descriptive";
  const double p = finding.contrast->declared ? finding.holm : e.p;
  if (!(p <= 0.05)) return "no difference shown";
  const bool up = e.value > 0.0;
  const bool better = (direction_of(data.primary_metric()) == Direction::higher) == up;
  if (finding.contrast->kind == "interaction") return up ? "interact (+)" : "interact (-)";
  return better ? "helps" : "harms";
}

// The parts of a contrast that lie at one density each.
std::vector<std::pair<std::string, Contrast>> places_by_density(const RunData& data,
                                                                const Contrast& contrast) {
  std::vector<std::pair<std::string, Contrast>> parts;
  for (const char* factor : {"density", "sparsity"}) {
    for (const auto& level : levels_of(data.fidelity, contrast.base, factor)) {
      const auto part = restricted(data.fidelity, contrast, factor, level);
      if (!part.weights.empty()) parts.emplace_back(std::string(factor) + "=" + level, part);
    }
  }
  return parts;
}

// " By density: 0.1 -0.381, 0.5 -0.004." and the same by mode: a mean over unlike parts describes none.
std::string breakdown(const RunData& data, const Contrast& contrast) {
  const auto metric = data.fidelity.metric(data.primary_metric());
  std::string text;
  const auto list = [&](const std::string& by,
                        const std::vector<std::pair<std::string, std::vector<double>>>& parts) {
    if (parts.size() < 2) return;
    text += " By " + by + ":";
    for (const auto& [level, values] : parts) {
      text += (&level == &parts.front().first ? " " : ", ") + level + " " +
              signed_number(estimate_mean(values).value, 2);
    }
    text += ".";
  };
  std::vector<std::pair<std::string, std::vector<double>>> densities, modes;
  for (const auto& [where, part] : places_by_density(data, contrast))
    densities.emplace_back(where.substr(where.find('=') + 1),
                           differences(data.fidelity, part, metric));
  for (const auto& mode : data.fidelity.modes())
    modes.emplace_back(mode, differences(data.fidelity, contrast, metric, {.mode = mode}));
  list("density", densities);
  list("mode", modes);
  return text;
}

// What the arms were made equal in, and what that left unequal.
std::string matched_by(const RunData& data, const Contrast& contrast) {
  if (contrast.match != "nominal") return "at equal measured density";
  const auto metric = data.fidelity.metric("density_pairs");
  const auto left = estimate_mean(differences(data.fidelity, contrast, metric));
  return "at equal nominal density, measured density " + signed_number(left.value, 2);
}

std::string sentence(const RunData& data, const Document& document, const Finding& finding) {
  const auto& contrast = *finding.contrast;
  const auto& e = finding.estimate;
  std::string text = label_of(data, contrast) + " (" + matched_by(data, contrast) +
                     "): " + data.primary_metric() + " " + signed_number(e.value);
  if (std::isfinite(e.lo)) text += " [" + signed_number(e.lo) + ", " + signed_number(e.hi) + "]";
  if (finding.ratio) {
    const auto& ratio = document.ledger[*finding.ratio];
    text += ", lost mass x " + format_estimate(ratio.value, ratio.lo, ratio.hi, 3);
  }
  text += "; " + std::to_string(e.n) + " generations";
  if (std::isfinite(e.p)) {
    text += std::string(", ") + (e.exact ? "exact" : "Monte-Carlo") + " sign-flip p " + p_text(e.p);
    if (std::isfinite(finding.holm)) text += ", Holm p " + p_text(finding.holm);
  }
  return text + ": " + verdict_word(data, finding) + "." + breakdown(data, contrast);
}

ReportTable contrast_table(const RunData& data, const std::string& id, const std::string& title,
                           const std::vector<Finding>& findings) {
  ReportTable table;
  table.id = id;
  table.title = title;
  const auto primary = data.primary_metric();
  table.columns = {
      {"contrast", "weights are equal over the strata that it is a mean of", false},
      {"match", "what the arms were made equal in", false},
      {"difference of " + primary, "mean over generations of the paired difference", true}};
  const bool ratio = data.fidelity.has("log_lost_mass");
  if (ratio) table.columns.push_back({"lost mass x", formula_of("lost_mass_ratio"), true});
  std::vector<std::string> others;
  for (const auto& name : judged_metrics(data)) {
    if (name != primary && name != "log_lost_mass" && name != "lost_mass") others.push_back(name);
  }
  for (const auto& name : others)
    table.columns.push_back({"difference of " + name, "the same, of " + formula_of(name), true});
  table.columns.push_back({"p", "two-sided sign-flip test over generations, of " + primary, true});
  table.columns.push_back({"Holm p", "Holm over the declared contrasts", true});
  table.columns.push_back({"n", "generations that have every arm of the contrast", true});
  table.columns.push_back({"verdict", "at 5 %; declared ones by Holm p", false});
  table.columns.push_back({"mean over", "strata that are feasible at every level", false});
  table.columns.push_back({"dropped", "strata that are not", false});
  for (const auto& finding : findings) {
    std::vector<Cell> row = {label_of(data, *finding.contrast), finding.contrast->match,
                             Cell::of(finding.primary, 3)};
    if (ratio) row.push_back(Cell::of(*finding.ratio, 3));
    for (const auto& name : others) row.push_back(Cell::of(finding.others.at(name), 3));
    row.emplace_back(p_text(finding.estimate.p));
    row.emplace_back(finding.contrast->declared ? p_text(finding.holm) : "exploratory");
    row.emplace_back(std::to_string(finding.estimate.n));
    row.emplace_back(verdict_word(data, finding));
    row.emplace_back(finding.contrast->over);
    std::string dropped = std::to_string(finding.contrast->dropped.size());
    if (!finding.contrast->dropped.empty()) dropped += ": " + finding.contrast->dropped.front();
    if (finding.contrast->dropped.size() > 1) dropped += " …";
    row.emplace_back(dropped);
    table.rows.push_back(std::move(row));
  }
  return table;
}

// One row a place: modes, layers, steps.
std::vector<Scope> places(const RunData& data) {
  std::vector<Scope> scopes;
  for (const auto& mode : data.fidelity.modes()) scopes.push_back({.mode = mode});
  for (const int layer : data.fidelity.layers()) scopes.push_back({.layer = layer});
  for (const int step : data.fidelity.steps()) scopes.push_back({.step = step});
  for (const auto& mode : data.fidelity.modes()) {
    for (const int layer : data.fidelity.layers()) scopes.push_back({.mode = mode, .layer = layer});
  }
  return scopes;
}

ReportTable where_table(const RunData& data, Document& document, const Contrast& contrast,
                        std::size_t index) {
  const auto primary = data.primary_metric();
  ReportTable table;
  table.id = "where_" + std::to_string(index + 1);
  table.title = "Where: " + label_of(data, contrast);
  table.note = "Exploratory: not corrected for the number of rows.";
  table.wide_only = true;
  table.columns = {
      {"where", "the part of the records, or of the strata, that the row covers", false},
      {"difference of " + primary, "mean over generations of the paired difference", true},
      {"p", "two-sided sign-flip test over generations", true},
      {"n", "generations", true}};
  const auto metric = data.fidelity.metric(primary);
  const auto add = [&](const std::string& where, const std::vector<double>& values) {
    Number number;
    number.table = "where";
    number.arm = label_of(data, contrast);
    number.metric = primary;
    number.scope = where;
    Estimate estimate;
    const auto id = add_difference(document, number, values, &estimate);
    if (estimate.n == 0) return;
    table.rows.push_back({where, Cell::of(id, 3), p_text(estimate.p), std::to_string(estimate.n)});
  };
  for (const auto& [where, part] : places_by_density(data, contrast))
    add(where, differences(data.fidelity, part, metric));
  for (const auto& scope : places(data))
    add(scope.text(), differences(data.fidelity, contrast, metric, scope));
  return table;
}

void add_scope(const RunData& data, ReportSection& section) {
  const auto& generations = data.fidelity.generations();
  std::string text = std::to_string(generations.size()) + " generation" +
                     (generations.size() == 1 ? "" : "s") +
                     " (prompt x seed), the unit of every mean, "
                     "interval and test; records and heads are averaged within a generation first.";
  for (const auto& mode : data.fidelity.modes()) {
    const auto count = std::count_if(generations.begin(), generations.end(),
                                     [&](const Generation& g) { return g.mode == mode; });
    text += " " + std::to_string(count) + " of " + mode + ".";
  }
  section.say(text);
  if (!generations.empty() && data.descriptive()) {
    section.say("Fewer than " + std::to_string(kMinGenerations) +
                " generations: descriptive, no intervals over generations, no tests.");
  }
  if (data.fidelity.clipped() > 0) {
    section.say(std::to_string(data.fidelity.clipped()) +
                " rows have a lost mass below 1e-6, where fp32 cannot tell it from none; their "
                "logarithm is taken at 1e-6.");
  }
}

}  // namespace

void add_verdict(const RunData& data, Document& document) {
  auto& section = document.section("verdict", "Verdict");
  for (const auto& warning : warnings_of(data)) section.warn(warning);
  if (data.fidelity.arms().empty() || data.fidelity.generations().empty()) return;
  const auto declared = find_all(data, document, data.declared);
  for (const auto& finding : declared)
    section.blocks.emplace_back(Paragraph{sentence(data, document, finding), false, true});
  add_scope(data, section);
  if (!declared.empty()) {
    section.blocks.emplace_back(contrast_table(data, "contrasts", "Declared contrasts", declared));
  }
  const auto explored = find_all(data, document, data.exploratory);
  if (!explored.empty()) {
    auto table = contrast_table(data, "contrasts_exploratory",
                                "Exploratory contrasts: not declared before the run, not corrected",
                                explored);
    table.wide_only = true;
    section.blocks.emplace_back(std::move(table));
  }
  for (std::size_t i = 0; i < data.declared.size() && !data.descriptive(); ++i) {
    if (data.declared[i].weights.empty()) continue;
    auto table = where_table(data, document, data.declared[i], i);
    if (!table.rows.empty()) section.blocks.emplace_back(std::move(table));
  }
}

}  // namespace raingauge
