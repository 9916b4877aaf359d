// SPDX-License-Identifier: Apache-2.0
#include "methods/selectors/selector.h"

namespace raingauge {

#define RAINGAUGE_SELECTOR(name) SelectorEntry name##_selector();
#include "methods/selectors/selectors.def"
#undef RAINGAUGE_SELECTOR

const std::vector<SelectorEntry>& selector_registry() {
  static const std::vector<SelectorEntry> entries = {
#define RAINGAUGE_SELECTOR(name) name##_selector(),
#include "methods/selectors/selectors.def"
#undef RAINGAUGE_SELECTOR
  };
  return entries;
}

const SelectorEntry& find_selector(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& entry : selector_registry()) {
    if (entry.name == name) return entry;
    known.emplace_back(entry.name);
  }
  throw Error("unknown selector '" + name + "'" + known_names_hint(name, known));
}

}  // namespace raingauge
