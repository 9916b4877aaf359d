// SPDX-License-Identifier: Apache-2.0
// An experiment as the YAML says it, resolved and checked: which records, which arms, what to
// judge.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/site.h"

namespace raingauge {

enum class Match { density, nominal };

// One method with one setting. `params` is complete: every key of the method, defaults filled in.
struct Arm {
  std::string name;  // "rf2", or "rf2.frame_window.both.0.2" once a matrix expanded it
  std::string base;  // the YAML's name of the arm: "rf2"
  std::string stem;  // `name` without its density factor: "rf2.frame_window.both"
  std::string method;
  nlohmann::json params;
  // Matrix keys of this arm -> value, for reports: the scalar, or a component's label ("window3d").
  nlohmann::json factors = nlohmann::json::object();
  std::string base_folder;  // paths in `params` are relative to it; empty: current folder
  // Steps and layers at which the arm attends densely, in a clip and in a replay. In YAML a list, a
  // range, or a number n = the first n.
  std::vector<int> dense_steps, dense_layers;
  bool dense_at(const Site& site) const;
  double density = -1.0;             // the density asked for; -1 when the method has no such knob
  Match match = Match::density;      // the experiment's, unless the arm has a `match` of its own
  nlohmann::json canonical() const;  // {method, …params}: hashed, stored as `params`, reproducible
};

// Which records of the captures take part; empty lists mean all.
struct Selection {
  std::vector<int> layers, steps, heads;
  std::vector<std::string> branches;
  std::vector<std::string> experts;
};

// Where records come from.
struct CaptureSource {
  enum class Kind { files, demo, synthetic, dit_block } kind = Kind::files;
  std::vector<std::filesystem::path> files;           // globs expanded, sorted
  nlohmann::json options = nlohmann::json::object();  // others: complete
};

struct RowPlan {
  bool all = false;
  int sample = 512;
  std::uint64_t seed = 0;
};

struct Controls {
  std::vector<std::string> arms;  // random, random_bare, oracle_row, oracle_head
  int oracle_heads = -1;          // oracles on the first n heads of a record; -1 = all
  int random_seeds = 1;
  // Floors of the judge itself, for every arm on the first `floor_records` records of the replay:
  // `floor_seeds` seeds of `random`, and a second sample of rows.
  int floor_records = 0;
  int floor_seeds = 20;
};

struct LatencyPlan {
  bool enabled = false;
  std::vector<std::string> kernels;
  std::vector<std::string> arms;  // full names; empty = all
  int warmup = 3;
  int min_samples = 10;
  double max_noise = 0.02;
  double max_seconds = 60.0;
  bool interleave = true;
  int host_samples = -1;  // of plan and prepare where the host does them, -1 = in every round
  int heads = -1;         // -1 = all heads of the record
  int records = 1;        // how many of the selected records are timed, -1 = all
};

struct GeneratePlan {
  bool enabled = false;
  std::vector<std::string> arms;  // stems, or full names where the YAML gives one with its density
  int clips = 1;
  double density = -1.0;  // overrides the arms' own when >= 0
  int steps = 8;
  std::uint64_t seed = 1;
  std::string mode = "image_to_video";
  std::vector<int> grid = {21, 16, 24};
  std::vector<int> dense_steps, dense_layers;
  std::vector<std::string> references = {"dense", "truth"};
  std::vector<std::string> metrics = {"psnr", "ssim_gauss11"};
  int floor_runs = 1;  // numerically different dense runs for the dense-against-dense floor
};

struct ReportPlan {
  std::vector<std::string> formats = {"html", "md", "csv"};
  nlohmann::json baseline =
      nlohmann::json::object();     // matrix key (or `arm`) -> value as in factors
  std::vector<std::string> ablate;  // matrix keys, or `arm`
  // null, "primary" (main effects and interactions of `ablate`), or a list of keys, "key=level",
  // "key*key", and pairs of arm names.
  nlohmann::json contrasts;
};

struct Experiment {
  std::string name;
  std::string description;
  std::filesystem::path path;  // the YAML file; empty for inline ones
  std::vector<CaptureSource> captures;
  Selection select;
  std::vector<Arm> arms;
  Match match = Match::density;
  Controls controls;
  RowPlan rows;
  std::vector<std::string> metrics;
  LatencyPlan latency;
  GeneratePlan generate;
  ReportPlan report;
  nlohmann::json resolved;  // everything above as JSON: manifest, --dry-run
};

// Names that an experiment may use, beside the methods.
struct KnownNames {
  std::vector<std::string> metrics;        // of rows
  std::vector<std::string> frame_metrics;  // of `generate`
  std::vector<std::string> kernels;        // `python:FILE` is always allowed
};

// Reads and checks an experiment. `overrides` are "--set" texts, "rf2.density=0.3"; they replace
// the levels of a matrix key of that name too. Throws ConfigError with "FILE:LINE: key: what was got,
// what is allowed".
Experiment load_experiment(const std::filesystem::path& path,
                           const std::vector<std::string>& overrides, const KnownNames& known);
// … with the names of this build's registries.
Experiment load_experiment(const std::filesystem::path& path,
                           const std::vector<std::string>& overrides = {});
KnownNames registered_names();

// ARM of the command line: an inline YAML mapping, or "EXPERIMENT.yaml:NAME", NAME an expanded name
// or the only one that begins with it. Captures of the experiment need not exist.
Arm parse_arm(const std::string& text);

// The arms that `name` means: that name alone, else all whose name or stem begins with it at a dot.
std::vector<const Arm*> match_arms(const std::vector<Arm>& arms, const std::string& name);

}  // namespace raingauge
