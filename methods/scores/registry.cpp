// SPDX-License-Identifier: Apache-2.0
#include "methods/scores/score.h"

namespace raingauge {

#define RAINGAUGE_SCORE(name) ScoreEntry name##_score();
#include "methods/scores/scores.def"
#undef RAINGAUGE_SCORE

const std::vector<ScoreEntry>& score_registry() {
  static const std::vector<ScoreEntry> entries = {
#define RAINGAUGE_SCORE(name) name##_score(),
#include "methods/scores/scores.def"
#undef RAINGAUGE_SCORE
  };
  return entries;
}

const ScoreEntry& find_score(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& entry : score_registry()) {
    if (entry.name == name) return entry;
    known.emplace_back(entry.name);
  }
  throw Error("unknown score '" + name + "'" + known_names_hint(name, known));
}

}  // namespace raingauge
