// SPDX-License-Identifier: Apache-2.0
// Reads an experiment top to bottom: overrides, then every section, then the names that sections
// use of each other. Nothing is computed here; whatever is wrong with the text is found here.
#include "harness/experiment.h"

#include <algorithm>

#include "harness/experiment_arms.h"
#include "harness/experiment_overrides.h"
#include "harness/experiment_parts.h"
#include "harness/experiment_section.h"

namespace raingauge {
namespace {

using nlohmann::json;

const std::vector<std::string>& top_keys() {
  static const std::vector<std::string> keys = {
      "schema",  "name",  "description", "captures", "select",  "arms",    "matrix",   "zip",
      "exclude", "match", "controls",    "rows",     "metrics", "latency", "generate", "report"};
  return keys;
}

// The document with overrides applied; schema, top-level keys and arm names are checked.
YamlDocument open_document(const std::filesystem::path& path,
                           const std::vector<std::string>& overrides) {
  YamlDocument document = YamlDocument::load(path);
  for (const auto& text : overrides) apply_override(document, text, top_keys());
  const Section top(document, "", top_keys());
  if (top.require("schema", "allowed: raingauge/1") != "raingauge/1") {
    top.wrong("schema", "raingauge/1");
  }
  for (const auto& arm : document.keys("/arms")) {
    if (std::find(top_keys().begin(), top_keys().end(), arm) != top_keys().end()) {
      document.fail("/arms/" + arm, "an arm cannot be called like a key of the experiment");
    }
  }
  return document;
}

std::string read_name(const Section& top) {
  const std::string allowed = "letters, digits, . _ and -, not starting with a dot";
  if (!top.require("name", allowed).is_string()) top.wrong("name", allowed);
  const std::string name = top.text("name", "");
  const bool plain = name.front() != '.' && std::all_of(name.begin(), name.end(), [](char c) {
                       return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                              (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '.';
                     });
  if (!plain) top.wrong("name", allowed);
  return name;
}

Match read_match(const Section& top) {
  return top.choice("match", "density", {"density", "nominal"}) == "density" ? Match::density
                                                                             : Match::nominal;
}

Selection read_select(const YamlDocument& document) {
  const Section section(document, "/select", {"layers", "steps", "heads", "branches", "experts"});
  return {section.indices("layers"), section.indices("steps"), section.indices("heads"),
          section.texts("branches", {}, true), section.texts("experts", {}, true)};
}

RowPlan read_rows(const YamlDocument& document) {
  RowPlan rows;
  const json* value = document.find("/rows");
  if (value != nullptr && *value == "all") {
    rows.all = true;
    rows.sample = 0;
    return rows;
  }
  if (value != nullptr && !value->is_object()) {
    document.fail("/rows", "got " + value->dump() + ", allowed: all, or {sample: n, seed: n}");
  }
  const Section section(document, "/rows", {"sample", "seed"});
  rows.sample = section.integer("sample", rows.sample, 1);
  rows.seed = section.seed("seed", rows.seed);
  return rows;
}

Controls read_controls(const YamlDocument& document) {
  const Section section(document, "/controls",
                        {"arms", "heads", "random_seeds", "floor_records", "floor_seeds"});
  Controls controls;
  controls.arms =
      section.names("arms", {}, {"random", "random_bare", "oracle_row", "oracle_head"}, "control");
  controls.oracle_heads = section.count_or_all("heads", -1, 1);
  controls.random_seeds = section.integer("random_seeds", controls.random_seeds, 1);
  controls.floor_records = section.integer("floor_records", controls.floor_records, 0);
  controls.floor_seeds = section.integer("floor_seeds", controls.floor_seeds, 2);
  return controls;
}

}  // namespace

std::vector<const Arm*> match_arms(const std::vector<Arm>& arms, const std::string& name) {
  const auto begins = [&](const std::string& text) {
    return text.compare(0, name.size(), name) == 0 &&
           (text.size() == name.size() || text[name.size()] == '.');
  };
  std::vector<const Arm*> matches;
  for (const auto& arm : arms) {
    if (arm.name == name) return {&arm};
    if (begins(arm.name) || begins(arm.stem)) matches.push_back(&arm);
  }
  return matches;
}

Experiment load_experiment(const std::filesystem::path& path,
                           const std::vector<std::string>& overrides, const KnownNames& known) {
  const YamlDocument document = open_document(path, overrides);
  const Section top(document, "", top_keys());
  Experiment experiment;
  experiment.path = path;
  experiment.name = read_name(top);
  experiment.description = top.text("description", "");
  experiment.match = read_match(top);
  const ArmSet set = read_arms(document, experiment.match, path.parent_path().string());
  experiment.arms = set.arms;
  experiment.select = read_select(document);
  experiment.controls = read_controls(document);
  experiment.rows = read_rows(document);
  experiment.metrics =
      top.names("metrics", {"recall", "rel_l1", "rel_l2", "cosine"}, known.metrics, "metric");
  experiment.latency = read_latency(document, set, known);
  experiment.generate = read_generate(document, set, known);
  experiment.report = read_report(document, set);
  experiment.captures = read_captures(document, path.parent_path());
  experiment.resolved = resolved_json(experiment);
  return experiment;
}

Arm parse_arm(const std::string& text) {
  const YamlDocument document = YamlDocument::parse(text, "arm");
  if (document.root().is_object()) return read_inline_arm(document);
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) {
    throw ConfigError("arm:1: got '" + text +
                      "', allowed: an inline YAML mapping such as '{method: "
                      "dense}', or EXPERIMENT.yaml:NAME");
  }
  const std::filesystem::path path = text.substr(0, colon);
  const std::string name = text.substr(colon + 1);
  const YamlDocument experiment = open_document(path, {});
  const Section top(experiment, "", top_keys());
  const ArmSet set = read_arms(experiment, read_match(top), path.parent_path().string());
  const auto matches = match_arms(set.arms, name);
  if (matches.size() == 1) return *matches.front();
  std::vector<std::string> names;
  for (const auto& arm : set.arms) names.push_back(arm.name);
  if (matches.empty()) check_name(experiment, "/arms", "arm", name, names);
  experiment.fail("/arms", "'" + name + "' means " + std::to_string(matches.size()) +
                               " arms; give one full name. " + listed(names));
}

}  // namespace raingauge
