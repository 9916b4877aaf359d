// SPDX-License-Identifier: Apache-2.0
// `--set KEY=VALUE`: where in an experiment does KEY stand?
#include "harness/experiment_overrides.h"

#include <algorithm>

namespace raingauge {
namespace {

std::string slashed(std::string key) {
  std::replace(key.begin(), key.end(), '.', '/');
  return "/" + key;
}

YamlDocument parse_value(const std::string& text, const std::string& label) {
  try {
    return YamlDocument::parse(text, label);
  } catch (const ConfigError& error) {
    throw ConfigError(std::string(error.what()) + " (expected KEY=VALUE with VALUE in YAML)");
  }
}

// "rf2.density": the levels of that matrix key when it has any, else the key of the arm.
void set_arm_key(YamlDocument& document, const std::string& key, const YamlDocument& value,
                 const std::string& origin) {
  const std::string base = key.substr(0, key.find('.'));
  const std::string rest = key.substr(key.find('.') + 1);
  const std::string twin = rest == "density" ? "sparsity" : rest == "sparsity" ? "density" : "";
  for (const auto* varied : {"/matrix/", "/zip/"}) {
    if (!twin.empty() && document.find(varied + base + "." + twin) != nullptr) {
      throw ConfigError(document.label() + " (" + origin + "): the experiment varies " + base +
                        "." + twin + "; set that key");
    }
  }
  if (document.find("/zip/" + key) != nullptr) {
    document.set("/zip/" + key, value, origin);
  } else if (document.find("/matrix/" + key) != nullptr) {
    const bool list = value.root().is_array();
    document.set("/matrix/" + key, list ? value : value.wrapped(), origin);
  } else {
    if (!twin.empty()) document.erase("/arms/" + base + "/" + twin);
    document.set("/arms" + slashed(key), value, origin);
  }
}

[[noreturn]] void unknown_key(const YamlDocument& document, const std::string& origin,
                              const std::string& head, const std::vector<std::string>& sections) {
  std::vector<std::string> known = sections;
  for (const auto& arm : document.keys("/arms")) known.push_back(arm);
  throw ConfigError(document.label() + " (" + origin + "): '" + head +
                    "' is neither a key of the experiment nor an arm" +
                    known_names_hint(head, known));
}

}  // namespace

void apply_override(YamlDocument& document, const std::string& text,
                    const std::vector<std::string>& sections) {
  const std::string origin = "--set " + text;
  const std::size_t equals = text.find('=');
  const std::string key = text.substr(0, equals);
  const bool empty_part = key.empty() || key.front() == '.' || key.back() == '.' ||
                          key.find("..") != std::string::npos || key.find('/') != std::string::npos;
  if (equals == std::string::npos || empty_part) {
    throw ConfigError(document.label() + " (" + origin +
                      "): expected KEY=VALUE, for example rows.sample=64");
  }
  const YamlDocument value = parse_value(text.substr(equals + 1), origin);
  const std::string head = key.substr(0, key.find('.'));
  const bool section = std::find(sections.begin(), sections.end(), head) != sections.end();
  const auto arms = document.keys("/arms");
  const bool nested = key.size() > head.size();
  if (nested && (head == "matrix" || head == "zip")) {
    document.set("/" + head + "/" + key.substr(head.size() + 1), value, origin);
  } else if (nested && head == "arms") {
    document.set(slashed(key), value, origin);
  } else if (section) {
    const auto* parent = document.find("/" + head);
    if (nested && parent != nullptr && parent->is_array()) {
      throw ConfigError(document.label() + " (" + origin + "): '" + head +
                        "' is a list; set it as a whole: --set '" + head + "=[…]'");
    }
    document.set(slashed(key), value, origin);
  } else if (!nested && std::find(arms.begin(), arms.end(), head) != arms.end()) {
    document.set("/arms/" + head, value, origin);
  } else if (nested && std::find(arms.begin(), arms.end(), head) != arms.end()) {
    set_arm_key(document, key, value, origin);
  } else {
    unknown_key(document, origin, head, sections);
  }
}

}  // namespace raingauge
