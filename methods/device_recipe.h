// SPDX-License-Identifier: Apache-2.0
// A block recipe decided on a CUDA device.
#pragma once

#include <memory>
#include <string>

#include "data/record.h"
#include "methods/block_recipe.h"
#include "methods/device_plan.h"

namespace raingauge {

// Why this recipe is decided on the host only; empty when a device can: pooled scores in fp32, top_k
// with ties to the lowest index, the budget inside and solved for, regions starting blocks of their
// own, an order of the grid, bf16 or f16.
std::string host_only(const BlockRecipe& recipe, const RecordView& record);

// The planner for this record's shape; `record` is in host memory. Throws Unsupported with host_only()'s
// reason, or when this build has no CUDA; Infeasible as the host's plan does.
std::unique_ptr<DevicePlanner> make_device_planner(const BlockRecipe& recipe,
                                                   const RecordView& record,
                                                   const MethodOptions& options,
                                                   const Device& device);

}  // namespace raingauge
