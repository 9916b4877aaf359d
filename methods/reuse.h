// SPDX-License-Identifier: Apache-2.0
// Cross-step state for any method: decide at a step, then use the same decision (orders, blocks,
// lists) for the steps after it. Dense steps are the arm's `dense_steps`; what is left is refresh or
// reuse. As in MindIE-SD's rf_v3, which caches masks and refreshes them every n steps.
#pragma once

#include <memory>
#include <vector>

#include "methods/method.h"

namespace raingauge {

// The key `reuse_every`: absent = no state; n = decide at every n-th step; 0 = once and for all.
std::vector<ParamSpec> reuse_params();

// `inner` with its decision refreshed every `every` steps. Notes of its plans: `policy` (refresh or
// reuse) and, at a refresh, `overlap`: kept pairs common to the new decision and the one it replaces,
// over those of either (Jaccard), not a number when orders or blocks differ. A gap in the steps is
// InvalidPlan.
std::unique_ptr<Method> with_reuse(std::unique_ptr<Method> inner, int every);

// Jaccard index of the kept token pairs of one head; NaN unless both plans have its order and blocks.
double plan_overlap(const Plan& a, const Plan& b, std::int64_t head);

}  // namespace raingauge
