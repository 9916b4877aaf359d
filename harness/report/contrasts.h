// SPDX-License-Identifier: Apache-2.0
// Which arms are set against which: main effects and interactions over feasible cells, declared
// pairs, every arm against the baseline. A contrast is a weighted sum of arms, taken within each
// generation.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "harness/report/observations.h"
#include "harness/report/statistics.h"

namespace raingauge {

struct Contrast {
  std::string name;   // "order: window3d vs raster", "order x sink: …"
  std::string base;   // the arm family it stands in
  std::string match;  // density, nominal
  std::string over;   // "mean over sink none, both; density 0.2, 0.35"
  std::string kind;   // main, interaction, pair, baseline
  // An arm may stand in several strata; its weights are then added.
  std::vector<std::pair<std::size_t, double>> weights;
  int strata = 0;
  std::vector<std::string> dropped;  // strata that are not feasible at every level, with the reason
  bool declared = false;
};

// What the experiment's `report` section asks for.
struct ContrastPlan {
  nlohmann::json baseline = nlohmann::json::object();  // factor -> level
  std::vector<std::string> ablate;
  nlohmann::json declared;  // null, "primary", or a list
  static ContrastPlan of_manifest(const nlohmann::json& manifest);
};

// Contrasts the experiment declared before the run: "order" (every level against the baseline),
// "order=window3d", "order*sink", "order=window3d*sink=both", [ARM, ARM]. Averaged over the levels of
// the other ablated factors that are the baseline's or declared themselves, and over all others.
std::vector<Contrast> declared_contrasts(const Observations& seen, const ContrastPlan& plan);

// Every level of every ablated factor against the baseline's, and all interactions of pairs of them,
// less what is declared: exploratory.
std::vector<Contrast> exploratory_contrasts(const Observations& seen, const ContrastPlan& plan,
                                            const std::vector<Contrast>& declared);

// An arm less the baseline arm of its family and density; no weights when there is none.
Contrast against_baseline(const Observations& seen, const ContrastPlan& plan, std::size_t arm);

// Restricts a contrast to the strata in which `factor` has `level`, re-averaged; no weights when none.
Contrast restricted(const Observations& seen, const Contrast& contrast, const std::string& factor,
                    const std::string& level);

// One value a generation that has every arm of the contrast.
std::vector<double> differences(const Observations& seen, const Contrast& contrast,
                                std::size_t metric, const Scope& scope = {});

// Level of `arm` in a factor's baseline? Without a declared one the first level seen is it.
std::string baseline_level(const Observations& seen, const ContrastPlan& plan,
                           const std::string& base, const std::string& factor);
std::vector<std::string> levels_of(const Observations& seen, const std::string& base,
                                   const std::string& factor);
std::vector<std::string> bases_of(const Observations& seen);

}  // namespace raingauge
