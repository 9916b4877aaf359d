// SPDX-License-Identifier: Apache-2.0
// The rows of a run as numbers: value of every metric by arm, control, generation and site. Fidelity
// rows and frames of `generate` are read into the same form, so that one set of contrasts serves both.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace raingauge {

struct ObservedArm {
  std::string name, base, stem, method;
  nlohmann::json params = nlohmann::json::object();
  nlohmann::json factors = nlohmann::json::object();  // matrix key -> level
  std::string match;                                  // density, nominal
  double nominal = -1.0;                              // density asked for; -1: no such knob
  std::map<std::string, int> outcomes;
  std::string reason;  // of the first row that is not ok
  double least_density = -1.0;
  // The row whose density lies farthest from the one asked for, beyond what rounding to whole blocks
  // explains; 0 excess: none does.
  double density_excess = 0.0, density_seen = 0.0, density_asked = 0.0;
  std::string same_plans_as;
  // Every row of it ended ok: only such arms enter contrasts.
  bool feasible() const { return outcomes.size() == 1 && outcomes.contains("ok"); }
  std::string level(const std::string& factor) const;  // "" when the arm has no such factor
};

struct Generation {
  std::string name, mode;  // mode: the capture's pipeline ("image_to_video" …), or ""
};

struct Observation {
  int generation = 0, layer = 0, step = 0, head = 0;
  std::string control;  // "" = the arm itself
  std::uint64_t control_seed = 0;
  std::size_t values = 0;  // first of metrics().size() values
};

// Which observations a number covers; -1 and "" = all.
struct Scope {
  std::string mode = {};
  int layer = -1, step = -1, head = -1;
  std::string text() const;  // "mode=… layer=…"
};

class Observations {
 public:
  // Metrics of a run's fidelity rows: density_pairs, density_blocks, those asked for, and
  // log_lost_mass = ln(max(1 - recall, 1e-6)). Reads the stream once, cell by cell.
  static Observations of_fidelity(const std::filesystem::path& run, const nlohmann::json& manifest);
  // Frames: metric "psnr:dense" is psnr against `dense`. Arms carry the factors of their stems.
  static Observations of_frames(const std::filesystem::path& run, const nlohmann::json& manifest);

  const std::vector<std::string>& metrics() const { return metrics_; }
  const std::vector<ObservedArm>& arms() const { return arms_; }
  const std::vector<Generation>& generations() const { return generations_; }
  const std::vector<Observation>& of_arm(std::size_t arm) const {
    return rows_.at(arm);
  }  // by control
  double value(const Observation& row, std::size_t metric) const {
    return values_[row.values + metric];
  }
  bool has(const std::string& metric) const;
  std::size_t metric(const std::string& name) const;  // throws Error
  std::optional<std::size_t> arm(const std::string& name) const;
  std::vector<std::string> modes() const;  // those present, "" left out
  std::vector<int> layers() const;
  std::vector<int> steps() const;
  std::vector<int> heads() const;
  std::vector<std::string> controls() const;
  int clipped() const { return clipped_; }  // heads whose lost mass lay below 1e-6
  // Heads (controls apart) by where their rows were judged: "cpu", "cuda:0", "" = the row does not say.
  const std::map<std::string, int>& judged_on() const { return judged_on_; }

  // Mean over the observations of a generation in `scope`; NaN for a generation without any, or
  // with a value that is missing. `control`: of that control instead of the arm.
  std::vector<double> by_generation(std::size_t arm, std::size_t metric, const Scope& scope,
                                    const std::string& control = "") const;

 private:
  std::size_t arm_index(const nlohmann::json& row);
  int generation_index(const std::string& name, const std::string& mode);
  void check_density(const nlohmann::json& row, ObservedArm& arm) const;
  std::size_t metric_index(const std::string& name);
  void add_fidelity_row(const nlohmann::json& row);
  void add_frame_row(const nlohmann::json& row);
  void declare_arms(const nlohmann::json& manifest);
  void group_by_control();
  std::size_t add_values();

  std::vector<std::string> metrics_;
  std::vector<ObservedArm> arms_;
  std::vector<Generation> generations_;
  std::vector<std::vector<Observation>> rows_;  // by arm; of each, by control
  struct Span {
    std::size_t first = 0, last = 0;
  };
  std::vector<std::map<std::string, Span>> spans_;  // by arm: where a control's rows are
  std::vector<double> values_;
  std::map<std::string, std::map<std::string, std::string>> plans_;  // arm -> record -> fingerprint
  std::map<std::string, std::string> pipelines_;                     // capture -> pipeline
  std::map<std::string, int> judged_on_;
  int clipped_ = 0;
};

}  // namespace raingauge
