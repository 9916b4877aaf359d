// SPDX-License-Identifier: Apache-2.0
// What a run found, arm by arm: means over the rows of its folder, with how many rows stand behind
// each number and what did not work. Reports print nothing that is not in here.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace raingauge {

struct Mean {
  double sum = 0.0;
  int n = 0;
  void add(double value);
  double value() const;  // NaN when n = 0
};

// Fidelity of one arm over all its records and heads. Controls are folded into their arm: their
// metrics are called "<metric>:<control>".
struct ArmFidelity {
  std::string arm, method;
  nlohmann::json params, factors;
  double nominal_density = 0.0;  // NaN without that knob
  Mean density_pairs, density_blocks;
  std::map<std::string, Mean> metrics;
  std::map<std::string, int> outcomes;  // rows by outcome
  std::vector<std::string> generations;
  std::string reason;         // of the first row that is not ok
  std::string same_plans_as;  // another arm whose plans are identical on every record
};

struct LatencyEntry {
  std::string arm, kernel, device, outcome, reason, dense_kernel, kernel_detail;
  std::string record;  // "layer 2, step 5": what was timed
  std::int64_t heads = 0, tokens = 0, head_dim = 0;
  double density_pairs = 0, density_tiles = 0, plan_ms = 0, prepare_ms = 0, attend_ms = 0;
  double total_ms = 0, total_iqr = 0, tflops = 0, speedup = 0;
  int samples = 0;
  bool noisy = false;
};

// Decoded frames of one arm against one reference, over clips.
struct FrameEntry {
  std::string arm, reference;
  std::map<std::string, Mean> metrics;
  std::map<std::string, int> infinite;  // frames identical to the reference, by metric
  Mean density_pairs, attention_ms, total_ms;
  int clips = 0;
  std::map<std::string, int> outcomes;
  std::string reason;
};

struct Summary {
  nlohmann::json manifest;
  std::vector<ArmFidelity> fidelity;       // in the experiment's order
  std::map<std::string, int> conformance;  // rows by outcome
  std::vector<std::string> conformance_failures;
  std::vector<LatencyEntry> latency;
  std::vector<FrameEntry> frames;
  int generations = 0;
};

Summary summarise(const std::filesystem::path& run);

// Console text: the verdict tables.
std::string render_console(const Summary& summary);
std::string render_markdown(const Summary& summary);
// Tidy: one number a line.
std::string render_csv(const Summary& summary);
nlohmann::json render_json(const Summary& summary);

// Writes report.md, summary.csv, summary.json into the run's folder, as `formats` ask.
std::vector<std::filesystem::path> write_reports(const Summary& summary,
                                                 const std::filesystem::path& run,
                                                 const std::vector<std::string>& formats);

}  // namespace raingauge
