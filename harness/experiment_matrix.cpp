// SPDX-License-Identifier: Apache-2.0
// Reads `matrix`, `zip` and `exclude`: which keys vary, over which levels, and what each level is
// called in the name of an arm.
#include <algorithm>
#include <map>
#include <set>

#include "harness/experiment_arms.h"
#include "harness/experiment_section.h"

namespace raingauge {
namespace {

using nlohmann::json;

// Letters, digits and . _ + - stay; anything else could not stand in a shell word or file name.
std::string safe(std::string text) {
  for (char& c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '.' || c == '_' || c == '+' || c == '-';
    if (!plain) c = '_';
  }
  return text;
}

// "0.2", "both", "4x4x8", "window3d".
std::string short_label(const json& value) {
  if (value.is_string()) return safe(value.get<std::string>());
  if (value.is_object()) return value.empty() ? "none" : safe(value.begin().key());
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const auto& item : value) text += (text.empty() ? "" : "x") + short_label(item);
  return text.empty() ? "none" : text;
}

// A component with its keys: "window3d-4x4x8", or "window3d-window4x4x8" when `named`.
std::string long_label(const json& value, bool named) {
  std::string text = short_label(value);
  if (!value.is_object() || value.empty() || !value.begin().value().is_object()) return text;
  for (const auto& [key, given] : value.begin().value().items()) {
    text += "-" + (named ? safe(key) : "") + short_label(given);
  }
  return text;
}

// Replaces labels that several different levels share by those of `make`.
template <typename Make>
void tell_apart(std::vector<Level>& levels, Make make) {
  std::map<std::string, std::set<json>> users;
  for (const auto& level : levels) users[level.label].insert(level.value);
  for (auto& level : levels) {
    if (users[level.label].size() > 1) level.label = make(level);
  }
}

void assign_labels(std::vector<Level>& levels) {
  for (auto& level : levels) level.label = short_label(level.value);
  tell_apart(levels, [](const Level& level) { return long_label(level.value, false); });
  tell_apart(levels, [](const Level& level) { return long_label(level.value, true); });
  tell_apart(levels, [&](const Level& level) {
    return level.label + "-" + std::to_string(&level - levels.data() + 1);
  });
}

Factor named_factor(const YamlDocument& document, const std::string& parent,
                    const std::string& name, const std::vector<std::string>& bases) {
  Factor factor;
  factor.path = parent + "/" + name;
  const std::size_t dot = name.find('.');
  factor.base = name.substr(0, dot);
  if (dot == std::string::npos || dot + 1 == name.size()) {
    document.fail(factor.path, "expected ARM.KEY, for example '" + bases.front() + ".density'");
  }
  check_name(document, factor.path, "arm", factor.base, bases);
  factor.key = name.substr(dot + 1);
  if (factor.key.find('.') != std::string::npos) {
    document.fail(factor.path,
                  "only keys of the arm itself can vary; give a component with keys of "
                  "its own as a one-entry map: [{window3d: {window: [4, 4, 8]}}]");
  }
  return factor;
}

void read_levels(const YamlDocument& document, Factor& factor, bool zipped) {
  const json& value = *document.find(factor.path);
  if (!value.is_array() || value.empty()) {
    document.fail(factor.path, "got " + value.dump() + ", allowed: a list of values");
  }
  for (const auto& item : value) {
    const std::string at = factor.path + "/" + std::to_string(factor.levels.size());
    if (item.is_object() && item.size() != 1) {
      document.fail(at, "got " + item.dump() +
                            ", allowed: a scalar, a list or a one-entry map {name: {key: value}}");
    }
    const auto same = [&](const Level& level) { return level.value == item; };
    if (!zipped && std::any_of(factor.levels.begin(), factor.levels.end(), same)) {
      document.fail(at, item.dump() + " stands twice in the list");
    }
    factor.levels.push_back({item, "", at});
  }
  assign_labels(factor.levels);
}

// An entry of `exclude` may name several values of a key at once.
bool matches_any(const Level& level, const json& wanted) {
  if (level.matches(wanted)) return true;
  return wanted.is_array() && std::any_of(wanted.begin(), wanted.end(),
                                          [&](const json& one) { return level.matches(one); });
}

// A value, or every value of a list, is one of the factor's levels.
bool names_levels(const Factor& factor, const json& wanted) {
  const auto known = [&](const json& value) {
    return std::any_of(factor.levels.begin(), factor.levels.end(),
                       [&](const Level& level) { return level.matches(value); });
  };
  return known(wanted) ||
         (wanted.is_array() && !wanted.empty() && std::all_of(wanted.begin(), wanted.end(), known));
}

}  // namespace

bool Level::matches(const json& other) const {
  if (value == other) return true;
  if (!other.is_string()) return false;
  return other == label || (value.is_object() && value.begin().key() == other.get<std::string>());
}

std::vector<Factor> read_factors(const YamlDocument& document, const std::string& path,
                                 const std::vector<std::string>& bases, bool zipped) {
  const json* value = document.find(path);
  if (value == nullptr || value->is_null()) return {};
  if (!value->is_object()) {
    document.fail(path, "got " + value->dump() + ", allowed: a mapping {ARM.KEY: [values]}");
  }
  std::vector<Factor> factors;
  for (const auto& name : document.keys(path)) {
    factors.push_back(named_factor(document, path, name, bases));
    read_levels(document, factors.back(), zipped);
  }
  return factors;
}

Exclusions::Exclusions(const YamlDocument& document, const std::vector<Factor>& factors) {
  const json* list = document.find("/exclude");
  if (list == nullptr || list->is_null()) return;
  const std::string allowed = "a list of mappings {ARM.KEY: value}";
  if (!list->is_array()) document.fail("/exclude", "got " + list->dump() + ", allowed: " + allowed);
  std::vector<std::string> known;
  for (const auto& factor : factors) known.push_back(factor.base + "." + factor.key);
  for (std::size_t i = 0; i < list->size(); ++i) {
    const std::string path = "/exclude/" + std::to_string(i);
    if (!(*list)[i].is_object() || (*list)[i].empty()) {
      document.fail(path, "got " + (*list)[i].dump() + ", allowed: a mapping {ARM.KEY: value}");
    }
    Entry entry;
    for (const auto& [name, value] : (*list)[i].items()) {
      const std::string at = path + "/" + name;
      check_name(document, at, "matrix key", name, known);
      const Factor& factor =
          factors[std::size_t(std::find(known.begin(), known.end(), name) - known.begin())];
      if (!names_levels(factor, value) && !document.overridden(factor.path)) {
        document.fail(at, "got " + value.dump() + ", allowed: one of the values of " + name +
                              ", or a list of them");
      }
      if (!entry.base.empty() && entry.base != factor.base) {
        document.fail(at, "an entry of exclude may name keys of one arm only; got '" + entry.base +
                              "' and '" + factor.base + "'");
      }
      entry.base = factor.base;
      entry.values.emplace_back(factor.key, value);
    }
    entries_.push_back(std::move(entry));
  }
}

bool Exclusions::cover(const std::string& base,
                       const std::vector<std::pair<std::string, const Level*>>& chosen) const {
  const auto holds = [&](const std::pair<std::string, json>& wanted) {
    return std::any_of(chosen.begin(), chosen.end(), [&](const auto& choice) {
      return choice.first == wanted.first && matches_any(*choice.second, wanted.second);
    });
  };
  return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.base == base && std::all_of(entry.values.begin(), entry.values.end(), holds);
  });
}

}  // namespace raingauge
