// SPDX-License-Identifier: Apache-2.0
// Typed reading of one mapping of an experiment. Every getter checks type and range and fails with
// file, line, the value got and the values allowed.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "harness/yaml_document.h"
#include "methods/params.h"

namespace raingauge {

class Section {
 public:
  // Fails unless `path` is a mapping (or null: an empty one) whose keys are all in `known`.
  Section(const YamlDocument& document, std::string path, std::vector<std::string> known);

  const YamlDocument& document() const { return document_; }
  std::string path(const std::string& key) const { return path_ + "/" + key; }
  // The value; null pointer when the key is absent or its value is null.
  const nlohmann::json* find(const std::string& key) const;
  const nlohmann::json& require(const std::string& key, const std::string& allowed) const;
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;
  // "got VALUE, allowed: ALLOWED".
  [[noreturn]] void wrong(const std::string& key, const std::string& allowed) const;

  int integer(const std::string& key, int fallback, int min,
              int max = std::numeric_limits<int>::max()) const;
  double real(const std::string& key, double fallback, double min, double max,
              bool min_open = false) const;
  std::uint64_t seed(const std::string& key, std::uint64_t fallback) const;
  bool boolean(const std::string& key, bool fallback) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  std::string choice(const std::string& key, const std::string& fallback,
                     const std::vector<std::string>& allowed) const;
  // A number >= `min`, or `all`, which is -1.
  int count_or_all(const std::string& key, int fallback, int min) const;
  // `all` (empty), a number, a range `0..39`, or a list of numbers and ranges: sorted, each once.
  std::vector<int> indices(const std::string& key) const;
  // The same, except that a number n stands for the first n.
  std::vector<int> first_or_indices(const std::string& key) const;
  // Exactly `length` integers >= 1.
  std::vector<int> sizes(const std::string& key, const std::vector<int>& fallback) const;
  // One text or a list of texts, none twice. `all` is the empty list where `all_allowed`.
  std::vector<std::string> texts(const std::string& key, const std::vector<std::string>& fallback,
                                 bool all_allowed = false) const;
  // texts() that are all in `allowed`.
  std::vector<std::string> names(const std::string& key, const std::vector<std::string>& fallback,
                                 const std::vector<std::string>& allowed,
                                 const std::string& what) const;
  // The path of entry `index` of the list at `key`; of the key itself when it is a single value.
  std::string entry(const std::string& key, std::size_t index) const;

 private:
  const YamlDocument& document_;
  std::string path_;
  std::vector<std::string> known_;
};

// Fails with the nearest name when `name` is not in `known`: "unknown metric 'recal' (did you …".
void check_name(const YamlDocument& document, const std::string& path, const std::string& what,
                const std::string& name, const std::vector<std::string>& known);

// "Known: a, b, c".
std::string listed(const std::vector<std::string>& known);

// `all` (empty), a number, a range, or a list of both; `number_is_count`: n means 0..n-1.
std::vector<int> read_indices(const YamlDocument& document, const std::string& path,
                              const nlohmann::json& value, bool number_is_count);

}  // namespace raingauge
