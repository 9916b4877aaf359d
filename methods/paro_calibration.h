// SPDX-License-Identifier: Apache-2.0
// What PAROAttention fixes offline: an axis order for every layer and head, and for the method itself
// the block masses under that order, from which the static mask is cut.
//
// Tables, with "layer4." (and the expert, where there are several) in front: heads [H] original numbers,
// order [H] 0..5, near_empty and peak_over_mean [H, 6]; mass: "layer4.all.mass" for a group of steps
// that share one mask, "layer4.step3.mass" for a step of its own, [H, query blocks, key blocks].
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "methods/arrangement.h"
#include "methods/calibration.h"
#include "methods/paro_axes.h"

namespace raingauge {

// Parameters of the choice (order `paro` and method `paro` alike), and their reading.
std::vector<ParamSpec> axis_params();
AxisProbe axis_probe(const nlohmann::json& params);

// `masks`: block masses as well (params has `block` and `step_groups`).
std::unique_ptr<Calibrator> make_paro_calibrator(const nlohmann::json& params,
                                                 const MethodOptions& options, bool masks);

// The order of head `head` (its place in the record) of the record's layer. Throws Unsupported when
// the calibration does not cover it.
std::string calibrated_axis_order(const std::string& path, const RecordInfo& info,
                                  std::int64_t head);

// The mean mass of the blocks of head `head` for the record's step: [rows * columns]. Throws
// Unsupported when the calibration does not cover it or was made for another layout.
std::vector<float> calibrated_mass(const std::string& path, const RecordInfo& info,
                                   std::int64_t head, std::int64_t rows, std::int64_t columns);

}  // namespace raingauge
