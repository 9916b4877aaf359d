// SPDX-License-Identifier: Apache-2.0
#include "harness/experiment_section.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace raingauge {
namespace {

using nlohmann::json;

constexpr const char* kIndicesAllowed =
    "all, a number >= 0, a range 0..39, or a list of numbers and ranges";

bool is_index(const json& value) {
  return value.is_number_integer() && value >= 0 && value <= std::numeric_limits<int>::max();
}

std::vector<int> range_at(const YamlDocument& document, const std::string& path,
                          const std::string& text) {
  try {
    if (auto numbers = parse_range(text)) return *numbers;
  } catch (const Error& error) {
    document.fail(path, error.what());
  }
  document.fail(path, "got \"" + text + "\", allowed: " + kIndicesAllowed);
}

// The wording of a range error, as for the parameters of methods.
std::string allowed_numbers(ParamType type, double min, double max, bool min_open = false) {
  ParamSpec spec;
  spec.type = type;
  spec.min = min;
  spec.max = max;
  spec.min_open = min_open;
  return describe_type(spec);
}

}  // namespace

std::string listed(const std::vector<std::string>& known) {
  std::string text;
  for (const auto& name : known) text += (text.empty() ? "Known: " : ", ") + name;
  return text;
}

void check_name(const YamlDocument& document, const std::string& path, const std::string& what,
                const std::string& name, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  document.fail(path, "unknown " + what + " '" + name + "'" + known_names_hint(name, known));
}

std::vector<int> read_indices(const YamlDocument& document, const std::string& path,
                              const json& value, bool number_is_count) {
  if (value == "all") return {};
  std::set<int> numbers;
  const auto add = [&](const json& item, const std::string& at) {
    if (is_index(item)) {
      numbers.insert(item.get<int>());
    } else if (item.is_string()) {
      const auto range = range_at(document, at, item.get<std::string>());
      numbers.insert(range.begin(), range.end());
    } else {
      document.fail(at, "got " + item.dump() + ", allowed: " + kIndicesAllowed);
    }
  };
  if (value.is_array()) {
    std::size_t index = 0;
    for (const auto& item : value) add(item, path + "/" + std::to_string(index++));
    if (value.empty() && !number_is_count)
      document.fail(path, "empty list; write `all`, or leave the key out");
  } else if (number_is_count && is_index(value)) {
    if (value > 100000) document.fail(path, "got " + value.dump() + ", allowed: at most 100000");
    for (int number = 0; number < value.get<int>(); ++number) numbers.insert(number);
  } else {
    add(value, path);
  }
  return {numbers.begin(), numbers.end()};
}

Section::Section(const YamlDocument& document, std::string path, std::vector<std::string> known)
    : document_(document), path_(std::move(path)), known_(std::move(known)) {
  const json* value = document_.find(path_);
  if (value == nullptr || value->is_null()) return;
  if (!value->is_object()) {
    document_.fail(path_, "got " + value->dump() + ", allowed: a mapping. " + listed(known_));
  }
  for (const auto& key : document_.keys(path_)) {
    check_name(document_, path_ + "/" + key, "key", key, known_);
  }
}

const json* Section::find(const std::string& key) const {
  if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
    throw std::logic_error("Section: key '" + key + "' is read but not declared");
  }
  const json* value = document_.find(path_ + "/" + key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const json& Section::require(const std::string& key, const std::string& allowed) const {
  const json* value = find(key);
  if (value == nullptr) document_.fail(path_, "missing key '" + key + "' (" + allowed + ")");
  return *value;
}

void Section::fail(const std::string& key, const std::string& message) const {
  document_.fail(path_ + "/" + key, message);
}

void Section::wrong(const std::string& key, const std::string& allowed) const {
  fail(key, "got " + find(key)->dump() + ", allowed: " + allowed);
}

int Section::integer(const std::string& key, int fallback, int min, int max) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_number_integer() || *value < min || *value > max) {
    const bool bounded = max != std::numeric_limits<int>::max();
    wrong(key, allowed_numbers(ParamType::integer, min,
                               bounded ? max : std::numeric_limits<double>::infinity()));
  }
  return value->get<int>();
}

double Section::real(const std::string& key, double fallback, double min, double max,
                     bool min_open) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(min_open ? number > min : number >= min) || !(number <= max)) {
    wrong(key, allowed_numbers(ParamType::real, min, max, min_open));
  }
  return number;
}

std::uint64_t Section::seed(const std::string& key, std::uint64_t fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  const bool fits = value->is_number_unsigned() ||
                    (value->is_number_integer() && value->get<std::int64_t>() >= 0);
  if (!fits) wrong(key, "an integer >= 0");
  return value->get<std::uint64_t>();
}

bool Section::boolean(const std::string& key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) wrong(key, "true or false");
  return value->get<bool>();
}

std::string Section::text(const std::string& key, const std::string& fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string() || value->get<std::string>().empty()) wrong(key, "text");
  return value->get<std::string>();
}

std::string Section::choice(const std::string& key, const std::string& fallback,
                            const std::vector<std::string>& allowed) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string() ||
      std::find(allowed.begin(), allowed.end(), value->get<std::string>()) == allowed.end()) {
    ParamSpec spec;
    spec.type = ParamType::choice;
    spec.choices = allowed;
    wrong(key, describe_type(spec));
  }
  return value->get<std::string>();
}

int Section::count_or_all(const std::string& key, int fallback, int min) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (*value == "all") return -1;
  if (!is_index(*value) || *value < min) wrong(key, "all, or an integer >= " + std::to_string(min));
  return value->get<int>();
}

std::vector<int> Section::indices(const std::string& key) const {
  const json* value = find(key);
  return value == nullptr ? std::vector<int>{}
                          : read_indices(document_, path_ + "/" + key, *value, false);
}

std::vector<int> Section::first_or_indices(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) return {};
  if (*value == "all") wrong(key, "a number n (the first n), a range, or a list");
  return read_indices(document_, path_ + "/" + key, *value, true);
}

std::vector<int> Section::sizes(const std::string& key, const std::vector<int>& fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  bool fits = value->is_array() && value->size() == fallback.size();
  for (std::size_t i = 0; fits && i < value->size(); ++i) {
    fits = is_index((*value)[i]) && (*value)[i] >= 1;
  }
  if (!fits) wrong(key, "a list of " + std::to_string(fallback.size()) + " integers >= 1");
  return value->get<std::vector<int>>();
}

std::vector<std::string> Section::texts(const std::string& key,
                                        const std::vector<std::string>& fallback,
                                        bool all_allowed) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (all_allowed && *value == "all") return {};
  const json list = value->is_array() ? *value : json::array({*value});
  std::vector<std::string> texts;
  for (const auto& item : list) {
    const std::string at = entry(key, texts.size());
    if (!item.is_string() || item == "")
      document_.fail(at, "got " + item.dump() + ", allowed: text");
    if (std::find(texts.begin(), texts.end(), item.get<std::string>()) != texts.end()) {
      document_.fail(at, item.dump() + " stands twice in the list");
    }
    texts.push_back(item.get<std::string>());
  }
  if (texts.empty()) fail(key, "empty list; leave the key out for its default");
  return texts;
}

std::vector<std::string> Section::names(const std::string& key,
                                        const std::vector<std::string>& fallback,
                                        const std::vector<std::string>& allowed,
                                        const std::string& what) const {
  const auto chosen = texts(key, fallback);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    check_name(document_, entry(key, i), what, chosen[i], allowed);
  }
  return chosen;
}

std::string Section::entry(const std::string& key, std::size_t index) const {
  const json* value = find(key);
  const bool list = value != nullptr && value->is_array();
  return path_ + "/" + key + (list ? "/" + std::to_string(index) : "");
}

}  // namespace raingauge
