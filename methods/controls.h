// SPDX-License-Identifier: Apache-2.0
// Floors and ceilings of an arm, made from its own plan: same order, same blocks, same counts.
#pragma once

#include <string>
#include <vector>

#include "data/plan.h"
#include "data/record.h"

namespace raingauge {

// random       the arm's forced blocks, and random ones up to its own count in every row
// random_bare  the arm's count in every row, nothing forced
// oracle_row   the arm's count in every row, filled by true block mass
// oracle_head  the arm's pairs of a head, freely allocated by true block mass
const std::vector<std::string>& control_names();

bool control_needs_mass(const std::string& control);

// The control of one head of `plan` as a plan of one head (head index 0 stands for `head`).
// `mass` is block_mass() of that head for controls that need it. Throws Error for an unknown name.
Plan control_plan(const std::string& control, const Plan& plan, std::int64_t head,
                  const std::vector<float>& mass, std::uint64_t seed);

}  // namespace raingauge
