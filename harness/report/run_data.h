// SPDX-License-Identifier: Apache-2.0
// A run's folder, read once, and the sections of its report. Every section is one function in a file
// of its own; build.cpp calls them in the order of the report.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/report/contrasts.h"
#include "harness/report/document.h"
#include "harness/report/observations.h"

namespace raingauge {

struct RunData {
  std::filesystem::path folder;
  nlohmann::json manifest;
  Observations fidelity, frames;
  std::vector<nlohmann::json> conformance, latency;  // whole rows: few
  ContrastPlan plan;
  std::vector<Contrast> declared, exploratory;

  bool descriptive() const {
    return static_cast<int>(fidelity.generations().size()) < kMinGenerations;
  }
  // The metric that the declared contrasts are tested on: the first of the experiment's `metrics`.
  std::string primary_metric() const;
};

// Throws Error when the folder is no run's.
RunData load_run(const std::filesystem::path& run);
Document build_document(const RunData& data);

// Metric declarations, and those derived here (log_lost_mass, density_pairs …).
std::string formula_of(const std::string& metric);
enum class Direction { higher, lower, neither };
Direction direction_of(const std::string& metric);  // frame metrics too

// Ledger entries.
NumberId add_level(Document& document, Number number, const std::vector<double>& per_generation);
NumberId add_difference(Document& document, Number number, const std::vector<double>& differences,
                        Estimate* estimate = nullptr);
NumberId add_plain(Document& document, Number number, double value, int n);
// Values that are finite.
std::vector<double> finite(std::vector<double> values);

// Arms whose levels are the baseline's or declared ones: what figures show before the reader asks for
// more. Without `report.ablate` all arms.
bool highlighted(const RunData& data, const ObservedArm& arm);

// A number of a row, and the median of a timing in it; NaN where there is none.
double number_of(const nlohmann::json& row, const char* key);
double median_of(const nlohmann::json& row, const char* key);

// A row's capture as people call it: its file's name without folders.
std::string capture_name(const nlohmann::json& row);

// The command that reruns one arm of the run.
std::string rerun_command(const RunData& data, const std::string& arm);

// Sections in the report's order. Each adds nothing where the run has nothing to say.
void add_verdict(const RunData& data, Document& document);
void add_leaderboard(const RunData& data, Document& document);
void add_ablation(const RunData& data, Document& document);
void add_curves(const RunData& data, Document& document);
void add_pareto(const RunData& data, Document& document);
void add_sites(const RunData& data, Document& document);
void add_mechanism(const RunData& data, Document& document);
void add_masks(const RunData& data, Document& document);
void add_frames(const RunData& data, Document& document);
void add_latency(const RunData& data, Document& document);
void add_blocks(const RunData& data, Document& document);
void add_benchmarks(const RunData& data, Document& document);
void add_trust(const RunData& data, Document& document);  // conformance, floors, environment
void add_reproduce(const RunData& data, Document& document);

// What no reader may overlook: failed conformance, densities that are not what the label says,
// recalls that cannot be. Empty: nothing found.
std::vector<std::string> warnings_of(const RunData& data);

// Formats: html, md, csv, json, tex. Returns what was written.
std::vector<std::filesystem::path> write_reports(const Document& document,
                                                 const std::filesystem::path& run,
                                                 const std::vector<std::string>& formats);
const std::vector<std::string>& report_formats();

}  // namespace raingauge
