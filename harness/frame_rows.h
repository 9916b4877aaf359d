// SPDX-License-Identifier: Apache-2.0
// Frame metrics of two clips as JSON, one object a metric:
//   mean, per_frame          as FrameScore; infinite and undefined values are null
//   infinite, undefined      how many of per_frame are (identical frames have infinite PSNR)
//   identical                frames that are the same in both clips, byte for byte
//   pairs, step              true: value i belongs to the frames i * step and (i + 1) * step
//   worst                    {frame, value, patch: {x, y, width, height}}; null when no value is finite
//   reference                {mean, per_frame} of the reference alone, where the metric has it
//   also                     {name: value}, numbers needed to read the mean
//   reason                   why there is no value (mean null, per_frame empty); "" when there is one
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/capture.h"

namespace raingauge {

// `metrics` empty: all registered ones. `fps` 0: the test's, else the reference's, else 16. Throws
// Error when the clips differ in shape or a name is unknown; a metric that these clips or this build
// do not support has a reason instead of a value.
nlohmann::json frame_scores(const Frames& reference, const Frames& test,
                            const std::vector<std::string>& metrics, int threads = 0,
                            double fps = 0.0);

}  // namespace raingauge
