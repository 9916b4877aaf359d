// SPDX-License-Identifier: Apache-2.0
// The cells that a main effect or an interaction is a mean of.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/contrasts.h"

namespace raingauge {

// One side of a main effect or interaction: a factor, its level, and the level it is set against.
struct Term {
  std::string factor, level, against;
};

// The contrast of `terms` within the arms of `base`: one term is a main effect, two an interaction.
// Averaged over the strata in which every declared level of the terms' factors is feasible.
Contrast make_contrast(const Observations& seen, const ContrastPlan& plan, const std::string& base,
                       const std::vector<Term>& terms);

// Matrix keys of an arm family, in the order seen.
std::vector<std::string> factors_of(const Observations& seen, const std::string& base);

std::optional<std::size_t> arm_at(const Observations& seen, const std::string& base,
                                  const std::map<std::string, std::string>& levels);

void add_once(std::vector<std::string>& items, const std::string& item);
std::vector<std::string> split(const std::string& text, char mark);

}  // namespace raingauge
