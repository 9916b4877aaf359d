// SPDX-License-Identifier: Apache-2.0
// What does a YAML text say, and on which line? Values become JSON; a path such as
// "/arms/rf2/density" leads from a value back to its line, so that every later check can name it.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/error.h"

namespace raingauge {

// A wrong experiment, arm or override: "FILE:LINE: dotted.key: what was got, what is allowed".
class ConfigError : public Error {
 public:
  using Error::Error;
};

// Scalars follow the YAML 1.2 core schema (quoted = text; `yes` and `on` are text; NaN and infinity
// are refused). Anchors, aliases and merge keys (`<<`) work; a key that stands twice is an error.
class YamlDocument {
 public:
  // A file whose root is a mapping, at most 1 MiB of UTF-8. Throws ConfigError.
  static YamlDocument load(const std::filesystem::path& path);
  // Any text; `label` stands for the file name in messages. The root may be of any kind.
  static YamlDocument parse(const std::string& text, const std::string& label);

  const nlohmann::json& root() const { return root_; }
  const std::string& label() const { return label_; }
  const nlohmann::json* find(const std::string& path) const;  // null when absent
  // The keys of a mapping in the order of the text (JSON objects sort theirs).
  std::vector<std::string> keys(const std::string& path) const;
  // The line of `path`, or of its nearest ancestor that has one.
  int line(const std::string& path) const;
  // "experiments/x.yaml:12", or "experiments/x.yaml (--set rows.sample=0)" for an overridden value.
  std::string where(const std::string& path) const;
  // True when `path` or something above or below it was put there by set().
  bool overridden(const std::string& path) const;
  [[noreturn]] void fail(const std::string& path, const std::string& message) const;

  // Puts `value` (a parsed document) at `path`; missing parents become mappings, scalar parents are
  // replaced by mappings. `origin` is what where() names for it.
  void set(const std::string& path, const YamlDocument& value, const std::string& origin);
  void erase(const std::string& path);
  YamlDocument wrapped() const;  // the list of one entry: this document

 private:
  friend class DocumentWriter;

  void forget(const std::string& path);
  nlohmann::json& make(const std::string& path);

  std::string label_;
  nlohmann::json root_;
  std::map<std::string, int> lines_;
  std::map<std::string, std::vector<std::string>> keys_;
  std::map<std::string, std::string> origins_;
};

// "arms.rf2.density" of "/arms/rf2/density"; "" of the root.
std::string dotted_path(const std::string& path);

// "0..39" (both ends included) as numbers; nothing when `text` is no range. Throws Error for a
// range that falls or has more than 100,000 numbers.
std::optional<std::vector<int>> parse_range(std::string_view text);

// A plain scalar of the YAML 1.2 core schema. Throws Error for NaN and infinity.
nlohmann::json typed_scalar(const std::string& text);

}  // namespace raingauge
