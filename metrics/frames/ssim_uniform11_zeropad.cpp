// SPDX-License-Identifier: Apache-2.0
// SSIM as Sparse-VideoGen computes it: 11 x 11 mean with five rows and columns of zeros around the
// frame, population covariance. The zeros are alike in both clips and count as likeness.
#include "metrics/frames/ssim.h"

namespace raingauge {
namespace {

SsimWindow zero_padded_window() { return {std::vector<double>(11, 1.0 / 11.0), 1.0, true}; }

}  // namespace

FrameMetricEntry ssim_uniform11_zeropad_frame_metric() {
  return {{.name = "ssim_uniform11_zeropad",
           .unit = "1",
           .help = "SSIM, 11x11 uniform window over zero-padded frames: Sparse-VideoGen's recipe",
           .formula = "mean over t, R G B and pixels of "
                      "(2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)), "
                      "C1 = (0.01 255)^2, C2 = (0.03 255)^2, m and s of equal weights, population "
                      "covariances, zeros outside the frame counted as pixels",
           .better = Better::higher},
          1,
          [](const ClipView& reference, const ClipView& test, int threads) {
            return ssim_scores(reference, test, zero_padded_window(), threads);
          }};
}

}  // namespace raingauge
