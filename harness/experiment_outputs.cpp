// SPDX-License-Identifier: Apache-2.0
// `latency`, `generate` and `report`: sections that name arms, kernels and matrix keys.
#include <algorithm>
#include <limits>

#include "harness/experiment_parts.h"
#include "harness/experiment_section.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool absent(const YamlDocument& document, const std::string& path) {
  const json* value = document.find(path);
  return value == nullptr || value->is_null();
}

std::vector<const Arm*> arms_at(const YamlDocument& document, const std::string& path,
                                const ArmSet& set, const std::string& name) {
  const auto matches = match_arms(set.arms, name);
  if (!matches.empty()) return matches;
  std::vector<std::string> known;
  for (const auto& arm : set.arms) {
    for (const auto& text : {arm.stem, arm.name}) {
      if (std::find(known.begin(), known.end(), text) == known.end()) known.push_back(text);
    }
  }
  check_name(document, path, "arm", name, known);
  return {};
}

void add_once(std::vector<std::string>& names, const std::string& name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

// A peer's file may stand beside the experiment, or be named from the current folder.
std::string checked_kernel(const YamlDocument& document, const std::string& path,
                           const std::filesystem::path& folder, const std::string& kernel,
                           const KnownNames& known) {
  const std::string prefix = "python:";
  if (kernel.compare(0, prefix.size(), prefix) != 0) {
    check_name(document, path, "kernel", kernel, known.kernels);
    return kernel;
  }
  const std::filesystem::path file = kernel.substr(prefix.size());
  if (std::filesystem::is_regular_file(file)) return kernel;
  if (!file.empty() && std::filesystem::is_regular_file(folder / file)) {
    return prefix + (folder / file).lexically_normal().string();
  }
  document.fail(path, "no file '" + file.string() + "', neither in the current folder nor in '" +
                          folder.string() + "'");
}

std::vector<std::string> factor_keys(const ArmSet& set) {
  std::vector<std::string> keys;
  for (const auto& factor : set.factors) add_once(keys, factor.key);
  keys.emplace_back("arm");
  return keys;
}

json baseline_value(const YamlDocument& document, const std::string& path, const ArmSet& set,
                    const std::string& key, const json& value) {
  std::vector<std::string> known;
  if (key == "arm") {
    for (const auto& arm : set.arms) {
      if (value == arm.base) return value;
      add_once(known, arm.base);
    }
  }
  for (const auto& factor : set.factors) {
    if (factor.key != key) continue;
    for (const auto& level : factor.levels) {
      if (level.matches(value)) return level.shown();
      add_once(known, level.label);
    }
  }
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  document.fail(path,
                "'" + text + "' is no value of '" + key + "'" + known_names_hint(text, known));
}

json read_baseline(const Section& section, const ArmSet& set) {
  json baseline = json::object();
  const json* given = section.find("baseline");
  if (given == nullptr) return baseline;
  if (!given->is_object()) section.wrong("baseline", "a mapping {MATRIX KEY: value}");
  for (const auto& [key, value] : given->items()) {
    const std::string path = section.path("baseline") + "/" + key;
    check_name(section.document(), path, "matrix key", key, factor_keys(set));
    baseline[key] = baseline_value(section.document(), path, set, key, value);
  }
  return baseline;
}

// "order", or one level of it: "order=window3d".
void check_part(const YamlDocument& document, const std::string& path, const ArmSet& set,
                const std::string& part) {
  const std::size_t equal = part.find('=');
  const std::string key = part.substr(0, equal);
  check_name(document, path, "matrix key", key, factor_keys(set));
  if (equal == std::string::npos) return;
  std::vector<std::string> known;
  for (const auto& factor : set.factors) {
    for (const auto& level : factor.levels) {
      if (factor.key == key) add_once(known, level.label);
    }
  }
  check_name(document, path, "level of " + key, part.substr(equal + 1), known);
}

// "order", "order*sink", "order=window3d*sink=both", or [ARM, ARM].
json read_contrast(const YamlDocument& document, const std::string& path, const ArmSet& set,
                   const json& value) {
  if (value.is_string()) {
    const std::string text = value.get<std::string>();
    for (std::size_t start = 0; start != std::string::npos;) {
      const std::size_t star = text.find('*', start);
      const std::size_t length = star == std::string::npos ? star : star - start;
      check_part(document, path, set, text.substr(start, length));
      start = star == std::string::npos ? star : star + 1;
    }
    return value;
  }
  if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_string()) {
    document.fail(
        path, "got " + value.dump() + ", allowed: a matrix key, KEY=LEVEL, KEY*KEY, or [ARM, ARM]");
  }
  json pair = json::array();
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string name = value[i].get<std::string>();
    const auto arms = arms_at(document, path + "/" + std::to_string(i), set, name);
    if (arms.size() != 1) {
      document.fail(
          path + "/" + std::to_string(i),
          "'" + name + "' means " + std::to_string(arms.size()) + " arms; give one full name");
    }
    pair.push_back(arms.front()->name);
  }
  return pair;
}

json read_contrasts(const Section& section, const ArmSet& set) {
  const json* value = section.find("contrasts");
  if (value == nullptr || *value == "primary") return value == nullptr ? json(nullptr) : *value;
  if (!value->is_array()) {
    section.wrong("contrasts", "primary, or a list of matrix keys, KEY*KEY and pairs [ARM, ARM]");
  }
  json contrasts = json::array();
  for (const auto& item : *value) {
    const std::string path = section.path("contrasts") + "/" + std::to_string(contrasts.size());
    contrasts.push_back(read_contrast(section.document(), path, set, item));
  }
  return contrasts;
}

}  // namespace

LatencyPlan read_latency(const YamlDocument& document, const ArmSet& set, const KnownNames& known) {
  LatencyPlan plan;
  if (absent(document, "/latency")) return plan;
  const Section section(document, "/latency",
                        {"kernels", "arms", "warmup", "min_samples", "max_noise", "max_seconds",
                         "interleave", "host_samples", "heads", "records"});
  plan.enabled = true;
  section.require("kernels", "a list of names of `raingauge list kernels`");
  const auto folder = std::filesystem::path(document.label()).parent_path();
  for (const auto& kernel : section.texts("kernels", {})) {
    const std::string at = section.entry("kernels", plan.kernels.size());
    plan.kernels.push_back(checked_kernel(document, at, folder, kernel, known));
  }
  const auto names = section.texts("arms", {}, true);
  for (std::size_t i = 0; i < names.size(); ++i) {
    for (const auto* arm : arms_at(document, section.entry("arms", i), set, names[i])) {
      add_once(plan.arms, arm->name);
    }
  }
  plan.warmup = section.integer("warmup", plan.warmup, 0);
  plan.min_samples = section.integer("min_samples", plan.min_samples, 1);
  plan.max_noise = section.real("max_noise", plan.max_noise, 0.0, kInfinity, true);
  plan.max_seconds = section.real("max_seconds", plan.max_seconds, 0.0, kInfinity, true);
  plan.interleave = section.boolean("interleave", plan.interleave);
  plan.host_samples = section.count_or_all("host_samples", plan.host_samples, 1);
  plan.heads = section.count_or_all("heads", plan.heads, 1);
  plan.records = section.count_or_all("records", plan.records, 1);
  return plan;
}

GeneratePlan read_generate(const YamlDocument& document, const ArmSet& set,
                           const KnownNames& known) {
  GeneratePlan plan;
  if (absent(document, "/generate")) return plan;
  const Section section(document, "/generate",
                        {"arms", "clips", "density", "steps", "seed", "mode", "grid", "dense_steps",
                         "dense_layers", "references", "metrics", "floor_runs"});
  plan.enabled = true;
  const auto names = section.texts("arms", {}, true);
  for (std::size_t i = 0; i < names.size(); ++i) {
    for (const auto* arm : arms_at(document, section.entry("arms", i), set, names[i])) {
      add_once(plan.arms, arm->name == names[i] ? arm->name : arm->stem);
    }
  }
  for (const auto& arm : set.arms) {
    if (names.empty()) add_once(plan.arms, arm.stem);
  }
  plan.clips = section.integer("clips", plan.clips, 1);
  plan.density = section.real("density", plan.density, 0.0, 1.0, true);
  plan.steps = section.integer("steps", plan.steps, 1);
  plan.seed = section.seed("seed", plan.seed);
  plan.mode = section.choice("mode", plan.mode, {"image_to_video", "text_to_video"});
  plan.grid = section.sizes("grid", plan.grid);
  plan.dense_steps = section.first_or_indices("dense_steps");
  plan.dense_layers = section.first_or_indices("dense_layers");
  plan.references = section.names("references", plan.references, {"dense", "truth"}, "reference");
  plan.metrics = section.names("metrics", plan.metrics, known.frame_metrics, "frame metric");
  plan.floor_runs = section.integer("floor_runs", plan.floor_runs, 0);
  return plan;
}

ReportPlan read_report(const YamlDocument& document, const ArmSet& set) {
  ReportPlan plan;
  const Section section(document, "/report", {"formats", "baseline", "ablate", "contrasts"});
  plan.formats =
      section.names("formats", plan.formats, {"html", "md", "csv", "tex", "json"}, "format");
  plan.baseline = read_baseline(section, set);
  plan.ablate = section.names("ablate", {}, factor_keys(set), "matrix key");
  plan.contrasts = read_contrasts(section, set);
  return plan;
}

}  // namespace raingauge
