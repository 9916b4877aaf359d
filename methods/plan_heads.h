// SPDX-License-Identifier: Apache-2.0
// Building the lists of a plan, and cutting heads out of one.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"

namespace raingauge {

// Kept columns of every row, ascending; one entry a head.
using KeptRows = std::vector<std::vector<std::int32_t>>;

BlockLists make_lists(const std::vector<KeptRows>& kept);

// One plan out of plans of some heads each, in that order: heads may differ in order, layout and
// number of blocks (fewer blocks: their offsets repeat N). What all heads share stays shared. Windows
// and the nominal density are dropped. Throws Unsupported when a part adds terms to its output, Error
// when there is no part or the token counts differ.
Plan join_plans(const std::vector<Plan>& parts);

// A plan of the named heads, in that order. What all heads share stays shared.
Plan select_heads(const Plan& plan, const std::vector<std::int64_t>& heads);

}  // namespace raingauge
