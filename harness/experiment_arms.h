// SPDX-License-Identifier: Apache-2.0
// The arms of an experiment: `arms` crossed with `matrix` and `zip`, less `exclude`.
#pragma once

#include <string>
#include <vector>

#include "harness/experiment.h"
#include "harness/yaml_document.h"

namespace raingauge {

// One value of a matrix key.
struct Level {
  nlohmann::json value;
  std::string label;  // in arm names
  std::string path;   // in the document
  // What reports show: the scalar itself, or the label of a component or list.
  nlohmann::json shown() const { return value.is_structured() ? nlohmann::json(label) : value; }
  // True when `other` is this value, or the bare name of this component.
  bool matches(const nlohmann::json& other) const;
};

// One key of `matrix` or `zip`: "rf2.order" is base "rf2", key "order".
struct Factor {
  std::string base, key, path;
  std::vector<Level> levels;
};

struct ArmSet {
  std::vector<Arm> arms;
  std::vector<Factor> factors;
};

// `base_folder` is where paths in the parameters start.
ArmSet read_arms(const YamlDocument& document, Match match, const std::string& base_folder);

// The arm of a document that is nothing but an arm: {method: …, key: value}.
Arm read_inline_arm(const YamlDocument& document);

// Fails unless `path` holds {base.key: [levels]}. `zipped`: repeated levels are allowed.
std::vector<Factor> read_factors(const YamlDocument& document, const std::string& path,
                                 const std::vector<std::string>& bases, bool zipped);

// True when `exclude` removes the combination `chosen` (a level index per factor) of `base`.
class Exclusions {
 public:
  Exclusions(const YamlDocument& document, const std::vector<Factor>& factors);
  bool cover(const std::string& base,
             const std::vector<std::pair<std::string, const Level*>>& chosen) const;

 private:
  struct Entry {
    std::string base;
    std::vector<std::pair<std::string, nlohmann::json>> values;  // key -> value
  };
  std::vector<Entry> entries_;
};

}  // namespace raingauge
