// SPDX-License-Identifier: Apache-2.0
// Frame metrics of two clips as JSON: {metric: {mean, per_frame: [...], infinite}}. Infinite values
// (identical frames) are null and counted.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/capture.h"

namespace raingauge {

// `metrics` empty: all registered ones. Throws Error when the clips differ in shape.
nlohmann::json frame_scores(const Frames& reference, const Frames& test,
                            const std::vector<std::string>& metrics, int threads = 0);

}  // namespace raingauge
