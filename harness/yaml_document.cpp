// SPDX-License-Identifier: Apache-2.0
// Paths, lines and overrides of a loaded YAML document; the text itself is read in yaml_reader.cpp.
#include "harness/yaml_document.h"

#include <algorithm>

namespace raingauge {
namespace {

using nlohmann::json;

std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> parts;
  for (std::size_t start = path.empty() ? std::string::npos : 0; start != std::string::npos;) {
    const std::size_t next = path.find('/', start + 1);
    parts.push_back(path.substr(start + 1, next == std::string::npos ? next : next - start - 1));
    start = next;
  }
  return parts;
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

bool starts_with_path(const std::string& path, const std::string& prefix) {
  return path.compare(0, prefix.size(), prefix) == 0 &&
         (path.size() == prefix.size() || path[prefix.size()] == '/');
}

template <typename Value>
void erase_below(std::map<std::string, Value>& entries, const std::string& path) {
  for (auto entry = entries.lower_bound(path); entry != entries.end();) {
    if (entry->first.compare(0, path.size(), path) != 0) break;
    entry = starts_with_path(entry->first, path) ? entries.erase(entry) : std::next(entry);
  }
}

const json* child_of(const json& value, const std::string& part) {
  if (value.is_object()) {
    const auto found = value.find(part);
    return found == value.end() ? nullptr : &*found;
  }
  if (value.is_array() && !part.empty() && part.size() < 9 &&
      std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    const std::size_t index = std::stoul(part);
    return index < value.size() ? &value[index] : nullptr;
  }
  return nullptr;
}

}  // namespace

std::string dotted_path(const std::string& path) {
  std::string text;
  for (const auto& part : parts_of(path)) text += (text.empty() ? "" : ".") + part;
  return text;
}

const json* YamlDocument::find(const std::string& path) const {
  const json* value = &root_;
  for (const auto& part : parts_of(path)) {
    value = child_of(*value, part);
    if (value == nullptr) return nullptr;
  }
  return value;
}

std::vector<std::string> YamlDocument::keys(const std::string& path) const {
  const auto found = keys_.find(path);
  return found == keys_.end() ? std::vector<std::string>{} : found->second;
}

int YamlDocument::line(const std::string& path) const {
  for (std::string at = path;; at = parent_of(at)) {
    const auto found = lines_.find(at);
    if (found != lines_.end()) return found->second;
    if (at.empty()) return 1;
  }
}

std::string YamlDocument::where(const std::string& path) const {
  for (std::string at = path;; at = parent_of(at)) {
    const auto origin = origins_.find(at);
    if (origin != origins_.end()) return label_ + " (" + origin->second + ")";
    if (at.empty()) break;
  }
  return label_ + ":" + std::to_string(line(path));
}

bool YamlDocument::overridden(const std::string& path) const {
  return std::any_of(origins_.begin(), origins_.end(), [&](const auto& origin) {
    return starts_with_path(origin.first, path) || starts_with_path(path, origin.first);
  });
}

void YamlDocument::fail(const std::string& path, const std::string& message) const {
  const std::string key = dotted_path(path);
  throw ConfigError(where(path) + ": " + (key.empty() ? "" : key + ": ") + message);
}

void YamlDocument::forget(const std::string& path) {
  erase_below(lines_, path);
  erase_below(keys_, path);
  erase_below(origins_, path);
}

json& YamlDocument::make(const std::string& path) {
  json* value = &root_;
  std::string at;
  for (const auto& part : parts_of(path)) {
    if (!value->is_object()) {
      *value = json::object();
      keys_[at].clear();
    }
    if (!value->contains(part)) keys_[at].push_back(part);
    value = &(*value)[part];
    at += "/" + part;
  }
  return *value;
}

void YamlDocument::set(const std::string& path, const YamlDocument& value,
                       const std::string& origin) {
  forget(path);
  make(path) = value.root_;
  for (const auto& [below, keys] : value.keys_) keys_[path + below] = keys;
  origins_[path] = origin;
}

YamlDocument YamlDocument::wrapped() const {
  YamlDocument list;
  list.label_ = label_;
  list.root_ = json::array({root_});
  for (const auto& [path, line] : lines_) list.lines_["/0" + path] = line;
  for (const auto& [path, keys] : keys_) list.keys_["/0" + path] = keys;
  return list;
}

void YamlDocument::erase(const std::string& path) {
  const std::string parent = parent_of(path);
  const std::string key = path.substr(parent.size() + 1);
  if (find(path) == nullptr || find(parent) == nullptr || !find(parent)->is_object()) return;
  make(parent).erase(key);
  auto& siblings = keys_[parent];
  siblings.erase(std::remove(siblings.begin(), siblings.end(), key), siblings.end());
  forget(path);
}

}  // namespace raingauge
