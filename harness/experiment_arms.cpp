// SPDX-License-Identifier: Apache-2.0
// Turns the YAML's arms into checked ones: every combination of the matrix, every key of a method.
#include "harness/experiment_arms.h"

#include <algorithm>
#include <map>
#include <set>

#include "harness/experiment_section.h"
#include "methods/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;
using Choice = std::vector<std::pair<const Factor*, const Level*>>;

constexpr std::size_t kMaxCombinations = 10000;  // of one arm

const std::vector<std::string>& arm_keys() {
  static const std::vector<std::string> keys = {"method", "match", "dense_steps", "dense_layers"};
  return keys;
}

// An arm as given, and where in the document each of its keys stands.
struct ArmText {
  const YamlDocument& document;
  json given;
  std::string prefix;                        // "/arms/rf2"
  std::map<std::string, std::string> moved;  // key -> its path, for keys set by the matrix
  std::string base_folder;
  Match match = Match::density;  // of the experiment

  // "/order/window3d" of the arm -> path in the document.
  std::string path_of(const std::string& path) const {
    const std::size_t end = path.find('/', 1);
    const auto found = path.empty() ? moved.end() : moved.find(path.substr(1, end - 1));
    if (found == moved.end()) return prefix + path;
    return found->second + (end == std::string::npos ? "" : path.substr(end));
  }
  [[noreturn]] void fail(const std::string& path, const std::string& message) const {
    document.fail(path_of(path), message);
  }
};

std::string method_of(const ArmText& text) {
  const auto found = text.given.find("method");
  std::vector<std::string> known;
  for (const auto& entry : method_registry()) known.emplace_back(entry.spec.name);
  if (found == text.given.end()) {
    text.fail("", "missing key 'method'. " + listed(known));
  }
  const std::string allowed = "a name of `raingauge list methods`";
  if (!found->is_string()) text.fail("/method", "got " + found->dump() + ", allowed: " + allowed);
  check_name(text.document, text.path_of("/method"), "method", found->get<std::string>(), known);
  return found->get<std::string>();
}

// A misspelt `dense_steps` is no key of the method; its nearest name is not either.
void check_arm_keys(const ArmText& text, const MethodSpec& spec) {
  std::vector<std::string> known = arm_keys();
  for (const auto& param : spec.params) known.push_back(param.name);
  for (const auto* extra : {"preset", "sparsity", "perm"}) {
    if (std::find(known.begin(), known.end(), extra) == known.end()) known.emplace_back(extra);
  }
  for (const auto& [key, value] : text.given.items()) {
    const std::string nearest = nearest_name(key, known);
    const auto& own = arm_keys();
    if (nearest != key && std::find(own.begin(), own.end(), nearest) != own.end()) {
      text.fail("/" + key, "unknown key '" + key + "'" + known_names_hint(key, known));
    }
  }
}

std::vector<int> take_indices(ArmText& text, const std::string& key) {
  const auto found = text.given.find(key);
  if (found == text.given.end()) return {};
  const json value = *found;
  text.given.erase(found);
  if (value.is_null()) return {};
  if (value == "all") {
    text.fail("/" + key, "got \"all\", allowed: a number n (the first n), a range, or a list");
  }
  return read_indices(text.document, text.path_of("/" + key), value, true);
}

// Ranges `0..9` where the method expects a list of integers.
void expand_ranges(ArmText& text, const MethodSpec& spec) {
  for (const auto& param : spec.params) {
    const auto found = text.given.find(param.name);
    if (param.type != ParamType::integers || found == text.given.end() || !found->is_string()) {
      continue;
    }
    try {
      if (const auto range = parse_range(found->get<std::string>())) *found = *range;
    } catch (const Error& error) {
      text.fail("/" + param.name, error.what());
    }
  }
}

// Completes the parameters, and builds the method once: keys that do not go together and files that
// are missing come out here, before anything is computed.
json checked_params(const ArmText& text, const std::string& method) {
  try {
    const json params = complete_method_params(method, text.given);
    MethodOptions options;
    options.base_folder = text.base_folder;
    make_method(method, params, options);
    return params;
  } catch (const ParamError& error) {
    text.fail(error.path(), error.what());
  } catch (const Unsupported&) {
    return complete_method_params(method, text.given);  // an outcome of its rows
  } catch (const Error& error) {
    text.fail("", error.what());
  }
}

// An arm may be matched otherwise than the experiment: a block of its own under nominal matching.
Match take_match(ArmText& text) {
  const auto found = text.given.find("match");
  if (found == text.given.end()) return text.match;
  const json value = *found;
  if (value != "density" && value != "nominal") {
    text.fail("/match", "got " + value.dump() + ", allowed: density, nominal");
  }
  text.given.erase(found);
  return value == "density" ? Match::density : Match::nominal;
}

Arm make_arm(ArmText text) {
  if (!text.given.is_object()) {
    text.fail("", "got " + text.given.dump() + ", allowed: a mapping {method: NAME, key: value}");
  }
  Arm arm;
  arm.method = method_of(text);
  arm.base_folder = text.base_folder;
  const MethodSpec& spec = find_method(arm.method).spec;
  check_arm_keys(text, spec);
  arm.match = take_match(text);
  arm.dense_steps = take_indices(text, "dense_steps");
  arm.dense_layers = take_indices(text, "dense_layers");
  text.given.erase("method");
  expand_ranges(text, spec);
  arm.params = checked_params(text, arm.method);
  const auto density = arm.params.find("density");
  if (density != arm.params.end() && density->is_number()) arm.density = density->get<double>();
  return arm;
}

// Every combination of the axes; the last axis moves fastest. An axis is one matrix key, or all zip
// keys of the arm walking together.
std::vector<Choice> combinations(const YamlDocument& document,
                                 const std::vector<std::vector<const Factor*>>& axes) {
  std::vector<Choice> choices{{}};
  for (const auto& axis : axes) {
    const std::size_t length = axis.front()->levels.size();
    for (const auto* factor : axis) {
      if (factor->levels.size() != length) {
        document.fail(factor->path, "got a list of " + std::to_string(factor->levels.size()) +
                                        ", allowed: " + std::to_string(length) + " values, as '" +
                                        axis.front()->base + "." + axis.front()->key + "' has");
      }
    }
    if (choices.size() * length > kMaxCombinations) {
      document.fail(axis.front()->path, "more than " + std::to_string(kMaxCombinations) +
                                            " combinations of arm '" + axis.front()->base + "'");
    }
    std::vector<Choice> longer;
    for (const auto& choice : choices) {
      for (std::size_t level = 0; level < length; ++level) {
        longer.push_back(choice);
        for (const auto* factor : axis) longer.back().emplace_back(factor, &factor->levels[level]);
      }
    }
    choices = std::move(longer);
  }
  return choices;
}

Arm expanded_arm(ArmText text, const std::string& base, const Choice& choice) {
  json factors = json::object();
  std::string name = base;
  std::string stem = base;
  for (const auto& [factor, level] : choice) {
    const bool is_density = factor->key == "density" || factor->key == "sparsity";
    if (is_density) {  // the matrix decides, whichever of the two the arm itself has
      text.given.erase("density");
      text.given.erase("sparsity");
    }
    text.given[factor->key] = level->value;
    text.moved[factor->key] = level->path;
    factors[factor->key] = level->shown();
    name += "." + level->label;
    if (!is_density) stem += "." + level->label;
  }
  Arm arm = make_arm(std::move(text));
  arm.name = name;
  arm.base = base;
  arm.stem = stem;
  arm.factors = std::move(factors);
  return arm;
}

void check_base_name(const YamlDocument& document, const std::string& name) {
  const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-';
  });
  if (!plain) {
    document.fail("/arms/" + name,
                  "got arm name '" + name + "', allowed: letters, digits, _ and -");
  }
}

// Axes of one arm: its matrix keys one by one, then its zip keys together.
std::vector<std::vector<const Factor*>> axes_of(const std::string& base,
                                                const std::vector<Factor>& factors,
                                                std::size_t zip_start) {
  std::vector<std::vector<const Factor*>> axes;
  std::vector<const Factor*> together;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    if (factors[i].base != base) continue;
    if (i < zip_start)
      axes.push_back({&factors[i]});
    else
      together.push_back(&factors[i]);
  }
  if (!together.empty()) axes.push_back(together);
  return axes;
}

void check_factors(const YamlDocument& document, const std::vector<Factor>& factors, Match match) {
  const auto match_of = [&](const std::string& base) {
    const json* own = document.find("/arms/" + base + "/match");
    if (own == nullptr) return match;
    return *own == "nominal" ? Match::nominal : Match::density;
  };
  std::set<std::string> seen;
  for (const auto& factor : factors) {
    if (!seen.insert(factor.base + "." + factor.key).second) {
      document.fail(factor.path, "stands in both matrix and zip");
    }
    if (factor.key == "density" && seen.count(factor.base + ".sparsity") != 0) {
      document.fail(factor.path, "vary either density or sparsity, not both");
    }
    if (factor.key == "sparsity" && seen.count(factor.base + ".density") != 0) {
      document.fail(factor.path, "vary either density or sparsity, not both");
    }
    if (factor.key == "budget" && match_of(factor.base) == Match::density) {
      document.fail(factor.path,
                    "budget may be ablated under `match: nominal` only (of the experiment or of "
                    "the arm): at the same "
                    "measured density both budgets keep equally much");
    }
  }
}

}  // namespace

ArmSet read_arms(const YamlDocument& document, Match match, const std::string& base_folder) {
  const json* arms = document.find("/arms");
  if (arms == nullptr || !arms->is_object() || arms->empty()) {
    document.fail(arms == nullptr ? "" : "/arms",
                  "key 'arms': expected a mapping {NAME: {method: …}} with at least one arm");
  }
  const auto bases = document.keys("/arms");
  for (const auto& base : bases) check_base_name(document, base);
  ArmSet set;
  set.factors = read_factors(document, "/matrix", bases, false);
  const std::size_t zip_start = set.factors.size();
  for (auto& factor : read_factors(document, "/zip", bases, true)) set.factors.push_back(factor);
  check_factors(document, set.factors, match);
  const Exclusions exclusions(document, set.factors);
  std::set<std::string> names;
  for (const auto& base : bases) {
    const std::size_t before = set.arms.size();
    for (const auto& choice : combinations(document, axes_of(base, set.factors, zip_start))) {
      std::vector<std::pair<std::string, const Level*>> chosen;
      for (const auto& [factor, level] : choice) chosen.emplace_back(factor->key, level);
      if (exclusions.cover(base, chosen)) continue;
      const ArmText text{document, (*arms)[base], "/arms/" + base, {}, base_folder, match};
      set.arms.push_back(expanded_arm(text, base, choice));
      if (!names.insert(set.arms.back().name).second) {
        document.fail("/arms/" + base, "two arms would be called '" + set.arms.back().name +
                                           "'; give the values of the matrix different names");
      }
    }
    if (set.arms.size() == before)
      document.fail("/exclude", "nothing is left of arm '" + base + "'");
  }
  return set;
}

Arm read_inline_arm(const YamlDocument& document) {
  Arm arm = make_arm({document, document.root(), "", {}, "", Match::density});
  arm.name = arm.base = arm.stem = arm.method;
  return arm;
}

}  // namespace raingauge
