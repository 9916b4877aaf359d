// SPDX-License-Identifier: Apache-2.0
// Structural similarity (Wang et al., IEEE TIP 13(4), 2004) with a separable window.
#pragma once

#include <cstddef>
#include <vector>

#include "metrics/frames/frame_metric.h"

namespace raingauge {

struct SsimWindow {
  std::vector<double> weights;  // of one dimension; odd count, sum 1
  double covariance_factor;     // 1: population; n / (n - 1): sample covariance of n pixels
  // false: the map holds the positions where the whole window lies inside the frame. true: one
  // position a pixel, pixels outside the frame are zeros and count.
  bool zero_padded = false;
};

// 11 x 11, standard deviation 1.5 pixels, population covariance: the window of Wang et al.
SsimWindow gaussian11_window();

// K1 = 0.01, K2 = 0.03, data range 255; mean over the map, then over R, G, B.
FrameScore ssim_scores(const ClipView& reference, const ClipView& test, const SsimWindow& window,
                       int threads);

// Means over the map: of SSIM, and of its contrast-structure factor
// (2 sxy + C2) / (sx^2 + sy^2 + C2).
struct SsimMeans {
  double ssim = 0.0;
  double contrast_structure = 0.0;
};

// Of two [height, width] planes of values in [0, 255].
SsimMeans ssim_of_planes(const double* x, const double* y, std::size_t height, std::size_t width,
                         const SsimWindow& window);

}  // namespace raingauge
