// SPDX-License-Identifier: Apache-2.0
// SSIM with scikit-image's defaults: 7 x 7 uniform window, sample covariance.
#include "metrics/frames/ssim.h"

namespace raingauge {
namespace {

SsimWindow uniform_window() { return {std::vector<double>(7, 1.0 / 7.0), 49.0 / 48.0}; }

}  // namespace

FrameMetricEntry ssim_uniform7_frame_metric() {
  return {
      {.name = "ssim_uniform7",
       .unit = "1",
       .help = "SSIM, 7x7 uniform window, sample covariance: scikit-image's default",
       .formula = "mean over t, R G B and window positions inside the frame of "
                  "(2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)), "
                  "C1 = (0.01 255)^2, C2 = (0.03 255)^2, m and s of equal weights, s times 49 / 48",
       .better = Better::higher},
      7,
      [](const ClipView& reference, const ClipView& test, int threads) {
        return ssim_scores(reference, test, uniform_window(), threads);
      }};
}

}  // namespace raingauge
