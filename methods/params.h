// SPDX-License-Identifier: Apache-2.0
// Components (methods, orders, selectors …) declare their parameters; YAML is validated against the
// declarations, and `raingauge explain` prints them. One list drives defaults, checks and help.
#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/error.h"

namespace raingauge {

enum class ParamType {
  boolean,
  integer,
  real,
  text,
  choice,     // one of `choices`
  integers,   // list of integers; `length` fixes its size when > 0
  reals,      // list of reals
  component,  // name, or one-entry map {name: {key: value}}, of the registry named in `choices[0]`
  path,       // resolved against the YAML file's folder (current folder for an inline arm)
};

struct ParamSpec {
  std::string name;
  ParamType type = ParamType::real;
  nlohmann::json default_value;  // null: no default (the key may stay away unless `required`)
  std::string help;
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_open = false;  // the range excludes min
  std::vector<std::string> choices = {};
  int length = 0;
  bool required = false;
};

// A wrong key or value. `path` leads to it ("/order/window3d/window"), so that the harness can add
// the file and the line.
class ParamError : public Error {
 public:
  ParamError(std::string path, const std::string& message)
      : Error(message), path_(std::move(path)) {}
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Looks up the declarations of a component: (registry, name) -> its parameters. Throws Error with the
// known names and the nearest when there is none.
using ComponentLookup = const std::vector<ParamSpec>& (*)(const std::string& registry,
                                                          const std::string& name);

// Checks `given` (a mapping) against `specs` and fills in defaults. Keys not in `specs` are errors
// with the nearest known name. Components become {"name": …, "params": {…}}. `path` prefixes errors.
nlohmann::json complete_params(const std::vector<ParamSpec>& specs, const nlohmann::json& given,
                               ComponentLookup lookup, const std::string& path = "");

// The known name closest to `name` by edit distance, or empty when none is near.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

// " (did you mean 'x'?) Known: a, b, c": the tail of every unknown-name error.
std::string known_names_hint(std::string_view name, const std::vector<std::string>& known);

// The key `density` of methods whose authors' knob is no density. Given, it is what is asked for, and the
// knob is solved for it, whatever `match` is; not given, the knob decides.
ParamSpec solved_density_param();

// Its value; nullopt: not given.
std::optional<double> asked_density(const nlohmann::json& params);

// "real in (0, 1]", "one of: none, rows, cols, both": for help and errors.
std::string describe_type(const ParamSpec& spec);

}  // namespace raingauge
