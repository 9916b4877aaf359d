// SPDX-License-Identifier: Apache-2.0
// The report from top to bottom.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "data/error.h"
#include "harness/manifest.h"
#include "harness/report/run_data.h"
#include "harness/results.h"
#include "metrics/frames/registry.h"
#include "metrics/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json load_manifest(const fs::path& run) {
  std::ifstream file(run / "manifest.json");
  if (!file)
    throw Error((run / "manifest.json").string() + ": missing; is this the folder of a run?");
  const json manifest = json::parse(file, nullptr, false);
  if (manifest.is_discarded()) throw Error((run / "manifest.json").string() + ": not JSON");
  return manifest;
}

std::string machine_text(const json& manifest) {
  const auto machine = manifest.value("machine", json::object());
  std::string text = machine.value("cpu", std::string("unknown CPU"));
  const auto gpu = manifest.find("gpu");
  if (gpu != manifest.end() && gpu->is_object())
    text += ", " + gpu->value("name", std::string("GPU"));
  return text;
}

// "psnr:dense" -> "psnr"; "recall" stays.
std::string plain_name(const std::string& metric) { return metric.substr(0, metric.find(':')); }

}  // namespace

std::string formula_of(const std::string& metric) {
  const auto name = plain_name(metric);
  if (name == "density_pairs") return "kept (q, k) pairs / valid pairs, counted from the lists";
  if (name == "density_blocks") return "kept block pairs / all block pairs";
  if (name == "log_lost_mass") return "mean over heads of ln(max(1 - recall, 1e-6))";
  if (name == "lost_mass_ratio") return "exp(mean difference of log_lost_mass)";
  for (const auto& entry : metric_registry()) {
    if (entry.spec.name == name) return std::string(entry.spec.formula);
  }
  for (const auto& entry : frame_metric_registry()) {
    if (entry.spec.name == name) return std::string(entry.spec.help);
  }
  return "";
}

Direction direction_of(const std::string& metric) {
  const auto name = plain_name(metric);
  if (name == "log_lost_mass" || name == "lost_mass_ratio" || name == "total_ms")
    return Direction::lower;
  Better better = Better::neither;
  for (const auto& entry : metric_registry()) {
    if (entry.spec.name == name) better = entry.spec.better;
  }
  for (const auto& entry : frame_metric_registry()) {
    if (entry.spec.name == name) better = entry.spec.better;
  }
  return better == Better::higher  ? Direction::higher
         : better == Better::lower ? Direction::lower
                                   : Direction::neither;
}

std::vector<double> finite(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  return values;
}

NumberId add_level(Document& document, Number number, const std::vector<double>& per_generation) {
  const auto estimate = estimate_level(finite(per_generation));
  number.value = estimate.value;
  number.lo = estimate.lo;
  number.hi = estimate.hi;
  number.n = estimate.n;
  if (number.unit_of_n.empty()) number.unit_of_n = "generations";
  if (number.formula.empty()) number.formula = formula_of(number.metric);
  return document.add(std::move(number));
}

NumberId add_difference(Document& document, Number number, const std::vector<double>& differences,
                        Estimate* estimate) {
  const auto found = estimate_mean(finite(differences));
  if (estimate != nullptr) *estimate = found;
  number.value = found.value;
  number.lo = found.lo;
  number.hi = found.hi;
  number.p = found.p;
  number.n = found.n;
  number.unit_of_n = "generations";
  if (number.formula.empty())
    number.formula = "paired difference within generations of " + number.metric;
  return document.add(std::move(number));
}

NumberId add_plain(Document& document, Number number, double value, int n) {
  number.value = value;
  number.n = n;
  if (number.formula.empty()) number.formula = formula_of(number.metric);
  return document.add(std::move(number));
}

std::string RunData::primary_metric() const {
  const auto metrics =
      manifest.value("experiment", json::object()).value("metrics", std::vector<std::string>{});
  for (const auto& name : metrics) {
    if (direction_of(name) != Direction::neither) return name;
  }
  return "recall";
}

RunData load_run(const fs::path& run) {
  RunData data;
  data.folder = run;
  data.manifest = load_manifest(run);
  data.fidelity = Observations::of_fidelity(run, data.manifest);
  data.frames = Observations::of_frames(run, data.manifest);
  data.conformance = load_rows(run, "conformance");
  data.latency = load_rows(run, "latency");
  data.plan = ContrastPlan::of_manifest(data.manifest);
  data.declared = declared_contrasts(data.fidelity, data.plan);
  data.exploratory = exploratory_contrasts(data.fidelity, data.plan, data.declared);
  return data;
}

bool highlighted(const RunData& data, const ObservedArm& arm) {
  return std::all_of(data.plan.ablate.begin(), data.plan.ablate.end(), [&](const auto& factor) {
    const auto level = arm.level(factor);
    if (level.empty() || level == baseline_level(data.fidelity, data.plan, arm.base, factor))
      return true;
    const auto term = factor + ": " + level + " vs";
    return std::any_of(data.declared.begin(), data.declared.end(), [&](const Contrast& contrast) {
      return contrast.base == arm.base && contrast.name.find(term) != std::string::npos;
    });
  });
}

std::string rerun_command(const RunData& data, const std::string& arm) {
  const auto command =
      data.manifest.value("reproduce", std::string("raingauge run EXPERIMENT.yaml"));
  return command + " --only " + shell_line({arm}) + " --out runs/" + shell_line({arm});
}

Document build_document(const RunData& data) {
  Document document;
  document.manifest = data.manifest;
  const auto experiment = data.manifest.value("experiment", json::object());
  document.title = experiment.value("name", std::string("run"));
  document.reproduce = data.manifest.value("reproduce", std::string(""));
  document.subtitle = "Machine: " + machine_text(data.manifest) +
                      ". Device: " + data.manifest.value("device", std::string("cpu")) +
                      ". Commit " + data.manifest.value("git_commit", std::string("unknown")) + ".";
  add_verdict(data, document);
  add_leaderboard(data, document);
  add_ablation(data, document);
  add_curves(data, document);
  add_pareto(data, document);
  add_sites(data, document);
  add_mechanism(data, document);
  add_masks(data, document);
  add_frames(data, document);
  add_latency(data, document);
  add_blocks(data, document);
  add_benchmarks(data, document);
  add_trust(data, document);
  add_reproduce(data, document);
  return document;
}

const std::vector<std::string>& report_formats() {
  static const std::vector<std::string> formats = {"html", "md", "csv", "json", "tex"};
  return formats;
}

std::vector<fs::path> write_reports(const Document& document, const fs::path& run,
                                    const std::vector<std::string>& formats) {
  std::vector<fs::path> written;
  const auto write = [&](const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    write_text_file(path, text);
    written.push_back(path);
  };
  for (const auto& format : formats) {
    if (format == "html") write(run / "report.html", write_html(document));
    if (format == "md") write(run / "report.md", write_markdown(document));
    if (format == "csv") write(run / "summary.csv", write_csv(document));
    if (format == "json") write(run / "summary.json", write_json(document).dump(1) + "\n");
    for (const auto& section : document.sections) {
      for (const auto& block : section.blocks) {
        const auto* table = std::get_if<ReportTable>(&block);
        if (format == "tex" && table != nullptr)
          write(run / "tables" / (table->id + ".tex"), write_tex(document, *table));
        const auto* figure = std::get_if<Figure>(&block);
        if (format == "html" && figure != nullptr)
          write(run / "figures" / (figure->id + ".svg"), write_svg(document, *figure));
      }
    }
  }
  return written;
}

}  // namespace raingauge
