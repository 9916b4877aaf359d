// SPDX-License-Identifier: Apache-2.0
#include "harness/report/strata.h"

#include <algorithm>
#include <map>

namespace raingauge {
namespace {

using Levels = std::map<std::string, std::string>;  // factor -> level

// Levels of each ablated factor that a declared contrast names, with the baseline's; a factor that
// is declared as a whole, or not at all, has all its levels.
std::map<std::string, std::vector<std::string>> declared_levels(const Observations& seen,
                                                                const ContrastPlan& plan,
                                                                const std::string& base) {
  std::map<std::string, std::vector<std::string>> levels;
  if (plan.declared.is_array()) {
    for (const auto& item : plan.declared) {
      if (!item.is_string()) continue;
      for (const auto& part : split(item.get<std::string>(), '*')) {
        const auto equal = part.find('=');
        if (equal == std::string::npos) continue;
        add_once(levels[part.substr(0, equal)], part.substr(equal + 1));
      }
    }
  }
  for (const auto& factor : plan.ablate) {
    if (levels[factor].empty()) levels[factor] = levels_of(seen, base, factor);
  }
  for (auto& [factor, named] : levels) {
    const auto known = levels_of(seen, base, factor);  // another family's levels are not this one's
    std::erase_if(named, [&](const std::string& level) {
      return std::find(known.begin(), known.end(), level) == known.end();
    });
    add_once(named, baseline_level(seen, plan, base, factor));
  }
  return levels;
}

// All combinations of the factors that are not varied by `terms`.
std::vector<Levels> strata_of(const Observations& seen, const ContrastPlan& plan,
                              const std::string& base, const std::vector<Term>& terms) {
  const auto declared = declared_levels(seen, plan, base);
  std::vector<Levels> strata = {{}};
  for (const auto& factor : factors_of(seen, base)) {
    if (std::any_of(terms.begin(), terms.end(),
                    [&](const Term& term) { return term.factor == factor; }))
      continue;
    const auto known = declared.find(factor);
    std::vector<std::string> levels = levels_of(seen, base, factor);
    if (known != declared.end()) {
      std::erase_if(levels, [&](const std::string& level) {
        return std::find(known->second.begin(), known->second.end(), level) == known->second.end();
      });
    }
    std::vector<Levels> longer;
    for (const auto& stratum : strata) {
      for (const auto& level : levels) {
        longer.push_back(stratum);
        longer.back()[factor] = level;
      }
    }
    strata = std::move(longer);
  }
  return strata;
}

std::string text_of(const Levels& levels) {
  std::string text;
  for (const auto& [factor, level] : levels)
    text += (text.empty() ? "" : ", ") + factor + " " + level;
  return text.empty() ? "the only cell" : text;
}

std::string over_text(const std::vector<Levels>& strata) {
  std::map<std::string, std::vector<std::string>> levels;
  for (const auto& stratum : strata) {
    for (const auto& [factor, level] : stratum) add_once(levels[factor], level);
  }
  std::string text;
  for (const auto& [factor, values] : levels) {
    text += (text.empty() ? "mean over " : "; ") + factor;
    for (std::size_t i = 0; i < values.size(); ++i) text += (i == 0 ? " " : ", ") + values[i];
  }
  return text;
}

// +1 and -1 over the corners: two for a main effect, four for an interaction.
std::vector<std::pair<Levels, double>> corners_of(const Levels& stratum,
                                                  const std::vector<Term>& terms) {
  std::vector<std::pair<Levels, double>> corners = {{stratum, 1.0}};
  for (const auto& term : terms) {
    std::vector<std::pair<Levels, double>> doubled;
    for (const auto& [levels, weight] : corners) {
      doubled.emplace_back(levels, weight);
      doubled.back().first[term.factor] = term.level;
      doubled.emplace_back(levels, -weight);
      doubled.back().first[term.factor] = term.against;
    }
    corners = std::move(doubled);
  }
  return corners;
}

std::string missing_reason(const Observations& seen, const std::string& base,
                           const Levels& levels) {
  const auto arm = arm_at(seen, base, levels);
  if (!arm) return text_of(levels) + ": no such arm";
  const auto& entry = seen.arms()[*arm];
  if (entry.feasible()) return "";
  std::string text = entry.name + ": ";
  if (entry.outcomes.empty()) return text + "no rows";
  for (const auto& [outcome, count] : entry.outcomes)
    text += std::to_string(count) + " " + outcome + " ";
  text.pop_back();
  return text;
}

// Every level of a factor must be feasible in a stratum that takes part, so that all levels are
// averaged over the same strata.
std::string stratum_problem(const Observations& seen, const ContrastPlan& plan,
                            const std::string& base, const Levels& stratum,
                            const std::vector<Term>& terms) {
  const auto declared = declared_levels(seen, plan, base);
  std::vector<Levels> cells = {stratum};
  for (const auto& term : terms) {
    std::vector<std::string> levels = {term.level, term.against};
    const auto known = declared.find(term.factor);
    if (known != declared.end() &&
        std::find(known->second.begin(), known->second.end(), term.level) != known->second.end()) {
      for (const auto& level : known->second) add_once(levels, level);
    }
    std::vector<Levels> longer;
    for (const auto& cell : cells) {
      for (const auto& level : levels) {
        longer.push_back(cell);
        longer.back()[term.factor] = level;
      }
    }
    cells = std::move(longer);
  }
  for (const auto& cell : cells) {
    const auto reason = missing_reason(seen, base, cell);
    if (!reason.empty()) return reason;
  }
  return "";
}

}  // namespace

void add_once(std::vector<std::string>& items, const std::string& item) {
  if (std::find(items.begin(), items.end(), item) == items.end()) items.push_back(item);
}

std::vector<std::string> split(const std::string& text, char mark) {
  std::vector<std::string> parts;
  for (std::size_t start = 0; start <= text.size();) {
    const auto end = std::min(text.find(mark, start), text.size());
    parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

std::vector<std::string> factors_of(const Observations& seen, const std::string& base) {
  std::vector<std::string> keys;
  for (const auto& arm : seen.arms()) {
    if (arm.base != base) continue;
    for (const auto& [key, value] : arm.factors.items()) add_once(keys, key);
  }
  return keys;
}

std::optional<std::size_t> arm_at(const Observations& seen, const std::string& base,
                                  const Levels& levels) {
  for (std::size_t i = 0; i < seen.arms().size(); ++i) {
    const auto& arm = seen.arms()[i];
    if (arm.base != base) continue;
    if (std::all_of(levels.begin(), levels.end(),
                    [&](const auto& pair) { return arm.level(pair.first) == pair.second; }))
      return i;
  }
  return std::nullopt;
}

Contrast make_contrast(const Observations& seen, const ContrastPlan& plan, const std::string& base,
                       const std::vector<Term>& terms) {
  Contrast contrast;
  contrast.base = base;
  contrast.kind = terms.size() == 1 ? "main" : "interaction";
  for (const auto& term : terms) {
    contrast.name += (contrast.name.empty() ? "" : " x ") + term.factor + ": " + term.level +
                     " vs " + term.against;
  }
  std::vector<Levels> used;
  std::map<std::size_t, double> weights;
  for (const auto& stratum : strata_of(seen, plan, base, terms)) {
    const auto problem = stratum_problem(seen, plan, base, stratum, terms);
    if (!problem.empty()) {
      contrast.dropped.push_back(text_of(stratum) + " (" + problem + ")");
      continue;
    }
    used.push_back(stratum);
    for (const auto& [levels, weight] : corners_of(stratum, terms))
      weights[*arm_at(seen, base, levels)] += weight;
  }
  contrast.strata = static_cast<int>(used.size());
  contrast.over = over_text(used);
  for (const auto& [arm, weight] : weights) {
    contrast.weights.emplace_back(arm, weight / static_cast<double>(used.size()));
    contrast.match = seen.arms()[arm].match;
  }
  return contrast;
}

}  // namespace raingauge
