// SPDX-License-Identifier: Apache-2.0
#include "harness/report/contrasts.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/report/strata.h"

namespace raingauge {
namespace {

using nlohmann::json;
using Levels = std::map<std::string, std::string>;  // factor -> level

std::string level_text(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// The levels that one part of a declaration means: "order=window3d" one, "order" all but the baseline.
std::vector<Term> terms_of(const Observations& seen, const ContrastPlan& plan,
                           const std::string& base, const std::string& part) {
  const auto equal = part.find('=');
  const std::string factor = part.substr(0, equal);
  const auto against = baseline_level(seen, plan, base, factor);
  std::vector<Term> terms;
  for (const auto& level : levels_of(seen, base, factor)) {
    if (level == against) continue;
    if (equal != std::string::npos && part.substr(equal + 1) != level) continue;
    terms.push_back({factor, level, against});
  }
  return terms;
}

void add_products(const Observations& seen, const ContrastPlan& plan, const std::string& base,
                  const std::string& item, bool declared, std::vector<Contrast>& contrasts) {
  std::vector<std::vector<Term>> products = {{}};
  for (const auto& part : split(item, '*')) {
    std::vector<std::vector<Term>> longer;
    for (const auto& product : products) {
      for (const auto& term : terms_of(seen, plan, base, part)) {
        longer.push_back(product);
        longer.back().push_back(term);
      }
    }
    products = std::move(longer);
  }
  for (const auto& terms : products) {
    auto contrast = make_contrast(seen, plan, base, terms);
    contrast.declared = declared;
    const bool known = std::any_of(contrasts.begin(), contrasts.end(), [&](const Contrast& other) {
      return other.base == contrast.base && other.name == contrast.name;
    });
    if (!known) contrasts.push_back(std::move(contrast));
  }
}

std::vector<std::string> products_of(const std::vector<std::string>& factors) {
  std::vector<std::string> items = factors;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    for (std::size_t j = i + 1; j < factors.size(); ++j)
      items.push_back(factors[i] + "*" + factors[j]);
  }
  return items;
}

Contrast pair_contrast(const Observations& seen, const std::string& first,
                       const std::string& second) {
  Contrast contrast;
  contrast.name = first + " vs " + second;
  contrast.kind = "pair";
  contrast.strata = 1;
  for (const auto& [name, weight] : {std::pair{first, 1.0}, std::pair{second, -1.0}}) {
    const auto arm = seen.arm(name);
    if (!arm || !seen.arms()[*arm].feasible()) {
      contrast.dropped.push_back(name + (arm ? " is not feasible" : ": no such arm"));
      contrast.weights.clear();
      return contrast;
    }
    contrast.base = seen.arms()[*arm].base;
    contrast.match = seen.arms()[*arm].match;
    contrast.weights.emplace_back(*arm, weight);
  }
  return contrast;
}

}  // namespace

ContrastPlan ContrastPlan::of_manifest(const json& manifest) {
  const auto report = manifest.value("experiment", json::object()).value("report", json::object());
  ContrastPlan plan;
  plan.baseline = report.value("baseline", json::object());
  plan.ablate = report.value("ablate", std::vector<std::string>{});
  plan.declared = report.value("contrasts", json());
  return plan;
}

std::vector<std::string> bases_of(const Observations& seen) {
  std::vector<std::string> bases;
  for (const auto& arm : seen.arms()) add_once(bases, arm.base);
  return bases;
}

std::vector<std::string> levels_of(const Observations& seen, const std::string& base,
                                   const std::string& factor) {
  std::vector<std::string> levels;
  for (const auto& arm : seen.arms()) {
    const auto level = arm.level(factor);
    if (arm.base == base && !level.empty()) add_once(levels, level);
  }
  return levels;
}

std::string baseline_level(const Observations& seen, const ContrastPlan& plan,
                           const std::string& base, const std::string& factor) {
  const auto levels = levels_of(seen, base, factor);
  if (plan.baseline.contains(factor)) {
    const auto wanted = level_text(plan.baseline[factor]);
    if (std::find(levels.begin(), levels.end(), wanted) != levels.end()) return wanted;
  }
  return levels.empty() ? "" : levels.front();
}

std::vector<Contrast> declared_contrasts(const Observations& seen, const ContrastPlan& plan) {
  std::vector<Contrast> contrasts;
  json items = plan.declared;
  if (items == "primary") items = products_of(plan.ablate);
  if (!items.is_array()) return contrasts;
  for (const auto& item : items) {
    if (item.is_array() && item.size() == 2) {
      contrasts.push_back(
          pair_contrast(seen, item[0].get<std::string>(), item[1].get<std::string>()));
      contrasts.back().declared = true;
      continue;
    }
    if (!item.is_string()) continue;
    for (const auto& base : bases_of(seen))
      add_products(seen, plan, base, item.get<std::string>(), true, contrasts);
  }
  return contrasts;
}

std::vector<Contrast> exploratory_contrasts(const Observations& seen, const ContrastPlan& plan,
                                            const std::vector<Contrast>& declared) {
  std::vector<Contrast> contrasts = declared;
  for (const auto& base : bases_of(seen)) {
    std::vector<std::string> factors = plan.ablate;
    for (const auto& factor : factors_of(seen, base)) {  // a block of its own may vary more
      if (factor != "density" && factor != "sparsity") add_once(factors, factor);
    }
    std::erase_if(factors, [&](const std::string& factor) {
      return levels_of(seen, base, factor).size() < 2;
    });
    for (const auto& item : products_of(factors))
      add_products(seen, plan, base, item, false, contrasts);
  }
  std::erase_if(contrasts, [](const Contrast& contrast) { return contrast.declared; });
  return contrasts;
}

Contrast against_baseline(const Observations& seen, const ContrastPlan& plan, std::size_t arm) {
  const auto& entry = seen.arms()[arm];
  Levels levels;
  bool is_baseline = true;
  for (const auto& [factor, value] : entry.factors.items()) {
    const bool free = factor == "density" || factor == "sparsity";
    levels[factor] = free ? entry.level(factor) : baseline_level(seen, plan, entry.base, factor);
    is_baseline = is_baseline && levels[factor] == entry.level(factor);
  }
  const auto other = arm_at(seen, entry.base, levels);
  if (is_baseline || !other) return {};
  auto contrast = pair_contrast(seen, entry.name, seen.arms()[*other].name);
  contrast.kind = "baseline";
  return contrast;
}

Contrast restricted(const Observations& seen, const Contrast& contrast, const std::string& factor,
                    const std::string& level) {
  Contrast part = contrast;
  part.weights.clear();
  double total = 0.0;
  double kept = 0.0;
  for (const auto& [arm, weight] : contrast.weights) {
    total += std::fabs(weight);
    if (seen.arms()[arm].level(factor) != level) continue;
    kept += std::fabs(weight);
    part.weights.emplace_back(arm, weight);
  }
  for (auto& [arm, weight] : part.weights) weight *= total / kept;
  return part;
}

std::vector<double> differences(const Observations& seen, const Contrast& contrast,
                                std::size_t metric, const Scope& scope) {
  if (contrast.weights.empty()) return {};
  std::vector<double> sums(seen.generations().size(), 0.0);
  for (const auto& [arm, weight] : contrast.weights) {
    const auto values = seen.by_generation(arm, metric, scope);
    for (std::size_t g = 0; g < sums.size(); ++g) sums[g] += weight * values[g];
  }
  std::erase_if(sums, [](double value) { return !std::isfinite(value); });
  return sums;
}

}  // namespace raingauge
