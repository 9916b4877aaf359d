// SPDX-License-Identifier: Apache-2.0
// SSIM as its paper defines it: 11 x 11 Gaussian window with a standard deviation of 1.5 pixels,
// population covariance (scikit-image: gaussian_weights, use_sample_covariance = False).
#include "metrics/frames/ssim.h"

namespace raingauge {

FrameMetricEntry ssim_gauss11_frame_metric() {
  return {{.name = "ssim_gauss11",
           .unit = "1",
           .help = "SSIM, 11x11 Gaussian window (sigma 1.5), population covariance",
           .formula = "mean over t, R G B and window positions inside the frame of "
                      "(2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)), "
                      "C1 = (0.01 255)^2, C2 = (0.03 255)^2, m and s Gaussian-weighted means and "
                      "population covariances",
           .better = Better::higher},
          11,
          [](const ClipView& reference, const ClipView& test, int threads) {
            return ssim_scores(reference, test, gaussian11_window(), threads);
          }};
}

}  // namespace raingauge
