// SPDX-License-Identifier: Apache-2.0
#include "harness/rows.h"

#include <array>
#include <filesystem>

#include "data/error.h"
#include "data/sha256.h"
#include "harness/results.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 8> kOutcomeNames = {"ok",         "incorrect",    "unsupported",
                                                      "infeasible", "invalid_plan", "not_finite",
                                                      "failed",     "skipped"};

// Hashes of the files that settings name under `key`, at any depth (an order has settings too).
void add_hashes(const json& settings, const std::string& key, const std::string& base_folder,
                json& hashes) {
  if (!settings.is_structured()) return;
  for (const auto& [name, value] : settings.items()) {
    if (name == key && value.is_string()) {
      const std::filesystem::path path = value.get<std::string>();
      hashes.push_back(sha256_file(
          (path.is_absolute() ? path : std::filesystem::path(base_folder) / path).string()));
    } else {
      add_hashes(value, key, base_folder, hashes);
    }
  }
}

json hashes_of(const Arm& arm, const std::string& key) {
  json hashes = json::array();
  add_hashes(arm.params, key, arm.base_folder, hashes);
  return hashes;
}

const char* match_name(Match match) { return match == Match::density ? "density" : "nominal"; }

json plain_row(const std::string& cell, const RecordInfo& record, const Arm& arm) {
  return {{"schema", kRowSchema},
          {"cell", cell},
          {"capture", record.capture},
          {"record", record.number},
          {"generation", record.generation},
          {"tokens", record.tokens},
          {"step", record.site.step},
          {"layer", record.site.layer},
          {"branch", record.site.branch},
          {"expert", record.site.expert},
          {"batch_item", record.site.batch_item},
          {"arm", arm.name},
          {"base_arm", arm.base},
          {"method", arm.method},
          {"params", arm.canonical()},
          {"factors", arm.factors},
          {"match", match_name(arm.match)},
          {"outcome", "ok"},
          {"reason", ""}};
}

}  // namespace

const char* name_of(Outcome outcome) { return kOutcomeNames[static_cast<std::size_t>(outcome)]; }

Outcome outcome_of(const std::exception& error) {
  if (dynamic_cast<const Infeasible*>(&error) != nullptr) return Outcome::infeasible;
  if (dynamic_cast<const Unsupported*>(&error) != nullptr) return Outcome::unsupported;
  if (dynamic_cast<const InvalidPlan*>(&error) != nullptr) return Outcome::invalid_plan;
  if (dynamic_cast<const NotFinite*>(&error) != nullptr) return Outcome::not_finite;
  return Outcome::failed;
}

bool is_bad(const std::string& outcome, bool strict) {
  if (outcome == "ok") return false;
  const bool tolerable =
      outcome == "unsupported" || outcome == "infeasible" || outcome == "skipped";
  return strict || !tolerable;
}

json number_or_null(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

json arm_identity(const Arm& arm) {
  json value = arm.canonical();
  const json files = hashes_of(arm, "path");
  if (!files.empty()) value["file"] = files[0];
  add_calibration(value, arm);
  return value;
}

void add_calibration(json& row, const Arm& arm) {
  const json calibrations = hashes_of(arm, "calibration");
  if (!calibrations.empty()) row["calibration_sha256"] = calibrations[0];
}

json base_row(const std::string& cell, const RecordInfo& record, const Arm& arm) {
  json row = plain_row(cell, record, arm);
  add_calibration(row, arm);
  return row;
}

json failed_row(json base, Outcome outcome, const std::string& reason, double least_density) {
  base["outcome"] = name_of(outcome);
  base["reason"] = reason;
  if (std::isfinite(least_density)) base["least_density"] = least_density;
  return base;
}

std::string record_label(const RecordInfo& record) {
  std::string text = record.generation + ", layer " + std::to_string(record.site.layer) +
                     ", step " + std::to_string(record.site.step) + ", " + record.site.branch;
  if (!record.site.expert.empty()) text += ", " + record.site.expert;
  return text;
}

std::string fidelity_cell(const Experiment& experiment, const Arm& arm, const std::string& content,
                          const std::vector<int>& heads, bool floors) {
  const auto& controls = experiment.controls;
  return cell_hash({{"floors", floors ? controls.floor_seeds : 0},
                    {"stage", "fidelity"},
                    {"content", content},
                    {"heads", heads},
                    {"arm", arm_identity(arm)},
                    {"name", arm.name},
                    {"match", match_name(arm.match)},
                    {"rows", {experiment.rows.all, experiment.rows.sample, experiment.rows.seed}},
                    {"controls", {controls.arms, controls.oracle_heads, controls.random_seeds}},
                    {"metrics", experiment.metrics}});
}

std::string conformance_cell(const Arm& arm, const std::string& content, const std::string& kernel,
                             const std::string& device, std::int64_t heads, Match match) {
  return cell_hash({{"stage", "conformance"},
                    {"content", content},
                    {"heads", heads},
                    {"arm", arm_identity(arm)},
                    {"kernel", kernel},
                    {"device", device},
                    {"match", match_name(match)}});
}

std::string latency_cell(const Experiment& experiment, const std::string& content,
                         const std::string& device, int threads) {
  json arms = json::array();
  for (const auto& arm : experiment.arms) arms.push_back({arm.name, arm_identity(arm)});
  const auto& latency = experiment.latency;
  return cell_hash({{"stage", "latency"},
                    {"content", content},
                    {"arms", arms},
                    {"kernels", latency.kernels},
                    {"timed", latency.arms},
                    {"device", device},
                    {"threads", threads},
                    {"settings",
                     {latency.warmup, latency.min_samples, latency.max_noise, latency.max_seconds,
                      latency.interleave, latency.host_samples, latency.heads}}});
}

}  // namespace raingauge
