// SPDX-License-Identifier: Apache-2.0
#include "methods/params.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>

namespace raingauge {
namespace {

using nlohmann::json;

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const auto& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string number_text(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string range_text(const ParamSpec& spec) {
  const bool low = std::isfinite(spec.min);
  const bool high = std::isfinite(spec.max);
  if (!low && !high) return "";
  if (low && high) {
    return std::string(" in ") + (spec.min_open ? "(" : "[") + number_text(spec.min) + ", " +
           number_text(spec.max) + "]";
  }
  if (low) return (spec.min_open ? " > " : " >= ") + number_text(spec.min);
  return " <= " + number_text(spec.max);
}

[[noreturn]] void wrong(const ParamSpec& spec, const json& value, const std::string& path) {
  throw ParamError(
      path, "key '" + spec.name + "': got " + value.dump() + ", allowed: " + describe_type(spec));
}

void check_range(const ParamSpec& spec, double value, const json& given, const std::string& path) {
  const bool inside = value <= spec.max && (spec.min_open ? value > spec.min : value >= spec.min);
  if (!inside) wrong(spec, given, path);
}

// A single number stands for a list of one where any length will do.
json checked_list(const ParamSpec& spec, const json& given, const std::string& path) {
  const json value = given.is_number() && spec.length == 0 ? json::array({given}) : given;
  if (!value.is_array() || (spec.length > 0 && value.size() != std::size_t(spec.length))) {
    wrong(spec, value, path);
  }
  for (const auto& item : value) {
    const bool fits =
        spec.type == ParamType::integers ? item.is_number_integer() : item.is_number();
    if (!fits) wrong(spec, value, path);
    check_range(spec, item.get<double>(), value, path);
  }
  return value;
}

json checked_component(const ParamSpec& spec, const json& value, ComponentLookup lookup,
                       const std::string& path) {
  std::string name;
  json params = json::object();
  if (value.is_string()) {
    name = value.get<std::string>();
  } else if (value.is_object() && value.size() == 2 && value.contains("name") &&
             value.contains("params")) {  // already completed
    name = value["name"].get<std::string>();
    params = value["params"];
  } else if (value.is_object() && value.size() == 1) {
    name = value.begin().key();
    params = value.begin().value();
    if (params.is_null()) params = json::object();
  } else {
    wrong(spec, value, path);
  }
  try {
    const auto& specs = lookup(spec.choices.at(0), name);
    return {{"name", name}, {"params", complete_params(specs, params, lookup, path + "/" + name)}};
  } catch (const ParamError&) {
    throw;
  } catch (const Error& error) {
    throw ParamError(path, "key '" + spec.name + "': " + error.what());
  }
}

json checked_value(const ParamSpec& spec, const json& value, ComponentLookup lookup,
                   const std::string& path) {
  switch (spec.type) {
    case ParamType::boolean:
      if (!value.is_boolean()) wrong(spec, value, path);
      return value;
    case ParamType::integer:
      if (!value.is_number_integer()) wrong(spec, value, path);
      check_range(spec, value.get<double>(), value, path);
      return value;
    case ParamType::real:
      if (!value.is_number() || !std::isfinite(value.get<double>())) wrong(spec, value, path);
      check_range(spec, value.get<double>(), value, path);
      return value.get<double>();
    case ParamType::text:
    case ParamType::path:
      if (!value.is_string()) wrong(spec, value, path);
      return value;
    case ParamType::choice:
      if (!value.is_string() || std::find(spec.choices.begin(), spec.choices.end(),
                                          value.get<std::string>()) == spec.choices.end()) {
        wrong(spec, value, path);
      }
      return value;
    case ParamType::integers:
    case ParamType::reals:
      return checked_list(spec, value, path);
    case ParamType::component:
      return checked_component(spec, value, lookup, path);
  }
  wrong(spec, value, path);
}

}  // namespace

json complete_params(const std::vector<ParamSpec>& specs, const json& given, ComponentLookup lookup,
                     const std::string& path) {
  if (!given.is_object()) {
    throw ParamError(path, "expected a mapping of keys to values, got " + given.dump());
  }
  std::vector<std::string> known;
  for (const auto& spec : specs) known.push_back(spec.name);
  for (const auto& [key, value] : given.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw ParamError(path + "/" + key,
                       "unknown key '" + key + "'" + known_names_hint(key, known));
    }
  }
  json complete = json::object();
  for (const auto& spec : specs) {
    const auto found = given.find(spec.name);
    if (found != given.end() && !(found->is_null() && spec.default_value.is_null())) {
      complete[spec.name] = checked_value(spec, *found, lookup, path + "/" + spec.name);
    } else if (!spec.default_value.is_null()) {
      complete[spec.name] = checked_value(spec, spec.default_value, lookup, path + "/" + spec.name);
    } else if (spec.required) {
      throw ParamError(
          path, "missing key '" + spec.name + "' (" + describe_type(spec) + "): " + spec.help);
    }
  }
  return complete;
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 2) + 1;
  for (const auto& candidate : known) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string known_names_hint(std::string_view name, const std::vector<std::string>& known) {
  const std::string nearest = nearest_name(name, known);
  std::string text = nearest.empty() ? "" : " (did you mean '" + nearest + "'?)";
  return text + ". Known: " + join(known);
}

ParamSpec solved_density_param() {
  return {.name = "density",
          .type = ParamType::real,
          .default_value = nullptr,
          .help =
              "kept (q,k) pairs / all pairs: the authors' knob is solved for it in every head; "
              "without it their knob decides",
          .min = 0.0,
          .max = 1.0,
          .min_open = true};
}

std::optional<double> asked_density(const json& params) {
  const auto found = params.find("density");
  if (found == params.end() || found->is_null()) return std::nullopt;
  return found->get<double>();
}

std::string describe_type(const ParamSpec& spec) {
  switch (spec.type) {
    case ParamType::boolean:
      return "true or false";
    case ParamType::integer:
      return "an integer" + range_text(spec);
    case ParamType::real:
      return "a number" + range_text(spec);
    case ParamType::text:
      return "text";
    case ParamType::path:
      return "a file path";
    case ParamType::choice:
      return "one of: " + join(spec.choices);
    case ParamType::integers:
      return "a list of " + (spec.length > 0 ? std::to_string(spec.length) + " " : "") +
             "integers" + range_text(spec);
    case ParamType::reals:
      return "a list of numbers" + range_text(spec);
    case ParamType::component:
      return "a name of `raingauge list " + spec.choices.at(0) + "`, or {name: {key: value}}";
  }
  return "";
}

}  // namespace raingauge
