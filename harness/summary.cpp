// SPDX-License-Identifier: Apache-2.0
#include "harness/summary.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "harness/results.h"
#include "harness/rows.h"

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

double number(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_number() ? found->get<double>() : std::nan("");
}

double median_of(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_object() ? number(*found, "median") : std::nan("");
}

std::string text(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_string() ? found->get<std::string>() : "";
}

template <typename T>
T& entry_for(std::vector<T>& entries, const std::vector<std::string>& key,
             std::vector<std::vector<std::string>>& keys) {
  const auto found = std::find(keys.begin(), keys.end(), key);
  if (found != keys.end()) return entries[static_cast<std::size_t>(found - keys.begin())];
  keys.push_back(key);
  entries.emplace_back();
  return entries.back();
}

void add_metrics(const json& row, const std::string& suffix, std::map<std::string, Mean>& metrics) {
  if (!row.contains("metrics")) return;
  for (const auto& [name, value] : row["metrics"].items())
    metrics[name + suffix].add(number(value, "value"));
}

void add_fidelity(const std::vector<json>& rows, Summary& summary) {
  std::vector<std::vector<std::string>> keys;
  std::map<std::string, std::map<std::string, std::string>> plans;  // arm -> record -> fingerprint
  std::set<std::string> generations;
  for (const auto& row : rows) {
    const bool control = row.contains("control");
    const auto arm = control ? text(row, "control_of") : text(row, "arm");
    auto& entry = entry_for(summary.fidelity, {arm}, keys);
    if (control) {
      const auto suffix = ":" + text(row, "control");
      add_metrics(row, suffix, entry.metrics);
      entry.metrics["density_pairs" + suffix].add(number(row, "density_pairs"));
      continue;
    }
    entry.arm = arm;
    entry.method = text(row, "method");
    entry.params = row.value("params", json::object());
    entry.factors = row.value("factors", json::object());
    const auto outcome = text(row, "outcome");
    ++entry.outcomes[outcome];
    generations.insert(text(row, "generation"));
    if (outcome != "ok") {
      if (entry.reason.empty()) entry.reason = text(row, "reason");
      continue;
    }
    if (std::find(entry.generations.begin(), entry.generations.end(), text(row, "generation")) ==
        entry.generations.end()) {
      entry.generations.push_back(text(row, "generation"));
    }
    entry.nominal_density = number(row, "nominal_density");
    entry.density_pairs.add(number(row, "density_pairs"));
    entry.density_blocks.add(number(row, "density_blocks"));
    add_metrics(row, "", entry.metrics);
    plans[arm][text(row, "capture") + "/" + std::to_string(row.value("record", 0))] =
        text(row, "plan");
  }
  for (std::size_t i = 0; i < summary.fidelity.size(); ++i) {
    for (std::size_t j = 0; j < i && summary.fidelity[i].same_plans_as.empty(); ++j) {
      const auto& mine = plans[summary.fidelity[i].arm];
      if (!mine.empty() && mine == plans[summary.fidelity[j].arm]) {
        summary.fidelity[i].same_plans_as = summary.fidelity[j].arm;
      }
    }
  }
  summary.generations = static_cast<int>(generations.size());
}

void add_latency(const std::vector<json>& rows, Summary& summary) {
  for (const auto& row : rows) {
    LatencyEntry entry;
    entry.arm = text(row, "arm");
    entry.kernel = text(row, "kernel");
    entry.device = text(row, "device");
    entry.outcome = text(row, "outcome");
    entry.reason = text(row, "reason");
    entry.dense_kernel = text(row, "dense_kernel");
    entry.kernel_detail = text(row, "kernel_detail");
    entry.record = "layer " + std::to_string(row.value("layer", 0)) + ", step " +
                   std::to_string(row.value("step", 0));
    entry.heads = row.value("heads", std::int64_t{0});
    entry.tokens = row.value("tokens", std::int64_t{0});
    entry.head_dim = row.value("head_dim", std::int64_t{0});
    entry.density_pairs = number(row, "density_pairs");
    entry.density_tiles = number(row, "density_tiles");
    entry.plan_ms = median_of(row, "plan_ms");
    entry.prepare_ms = median_of(row, "prepare_ms");
    entry.attend_ms = median_of(row, "attend_ms");
    entry.total_ms = median_of(row, "total_ms");
    entry.total_iqr = row.contains("total_ms") ? number(row["total_ms"], "iqr") : std::nan("");
    entry.samples = row.contains("total_ms") ? row["total_ms"].value("n", 0) : 0;
    entry.tflops = number(row, "tflops_effective");
    entry.speedup = number(row, "speedup_vs_dense");
    entry.noisy = row.value("noisy", false);
    summary.latency.push_back(std::move(entry));
  }
}

void add_frames(const std::vector<json>& rows, Summary& summary) {
  std::vector<std::vector<std::string>> keys;
  for (const auto& row : rows) {
    auto& entry = entry_for(summary.frames, {text(row, "arm"), text(row, "reference")}, keys);
    entry.arm = text(row, "arm");
    entry.reference = text(row, "reference");
    const auto outcome = text(row, "outcome");
    ++entry.outcomes[outcome];
    if (outcome != "ok") {
      if (entry.reason.empty()) entry.reason = text(row, "reason");
      continue;
    }
    ++entry.clips;
    entry.density_pairs.add(number(row, "density_pairs"));
    entry.attention_ms.add(number(row, "attention_ms"));
    entry.total_ms.add(number(row, "total_ms"));
    for (const auto& [name, value] : row["metrics"].items()) {
      entry.metrics[name].add(number(value, "mean"));
      entry.infinite[name] += value.value("infinite", 0);
    }
  }
}

}  // namespace

void Mean::add(double value) {
  if (!std::isfinite(value)) return;
  sum += value;
  ++n;
}

double Mean::value() const { return n == 0 ? std::nan("") : sum / n; }

Summary summarise(const fs::path& run) {
  Summary summary;
  summary.manifest = load_manifest(run);
  add_fidelity(load_rows(run, "fidelity"), summary);
  for (const auto& row : load_rows(run, "conformance")) {
    const auto outcome = text(row, "outcome");
    ++summary.conformance[outcome];
    if (outcome == "ok" || outcome == "unsupported") continue;
    summary.conformance_failures.push_back(text(row, "arm") + " on " + text(row, "kernel") + ": " +
                                           outcome + ": " + text(row, "reason"));
  }
  add_latency(load_rows(run, "latency"), summary);
  add_frames(load_rows(run, "generate"), summary);
  return summary;
}

}  // namespace raingauge
