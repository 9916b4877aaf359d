// SPDX-License-Identifier: Apache-2.0
// Which frame metrics are there? The table behind `raingauge frames --metrics`, the key
// `generate.metrics` and the contract tests.
#pragma once

#include <string_view>
#include <vector>

#include "metrics/frames/frame_metric.h"

namespace raingauge {

// In the order of frame_metrics.def.
const std::vector<FrameMetricEntry>& frame_metric_registry();

// Throws Error that lists the known names.
const FrameMetricEntry& find_frame_metric(std::string_view name);

// The checked way to a score. Throws Error unless both clips hold the same number of frames of the
// same size, and Unsupported when the metric is not built, the frames are too small for it or too few.
// The score does not depend on `threads`; 0 = all.
FrameScore score_frames(const FrameMetricEntry& metric, const ClipView& reference,
                        const ClipView& test, int threads = 0);

// Index into per_frame of the value farthest on the bad side or, where no direction is bad, farthest
// from the reference's; the first of equals; -1 when no value is finite.
int worst_frame(const FrameMetricEntry& metric, const FrameScore& score);

}  // namespace raingauge
