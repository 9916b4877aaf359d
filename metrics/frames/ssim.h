// SPDX-License-Identifier: Apache-2.0
// Structural similarity (Wang et al., IEEE TIP 13(4), 2004) with a separable window.
#pragma once

#include <vector>

#include "metrics/frames/frame_metric.h"

namespace raingauge {

struct SsimWindow {
  std::vector<double> weights;  // of one dimension; odd count, sum 1
  double covariance_factor;     // 1: population; n / (n - 1): sample covariance of n pixels
};

// K1 = 0.01, K2 = 0.03, data range 255; the map holds the positions where the whole window lies
// inside the frame; mean over the map, then over R, G, B.
FrameScore ssim_scores(const ClipView& reference, const ClipView& test, const SsimWindow& window,
                       int threads);

}  // namespace raingauge
