// SPDX-License-Identifier: Apache-2.0
// SSIM as Sparse-VideoGen computes it: 11 x 11 mean with five rows and columns of zeros around the
// frame, population covariance. The zeros make the border look alike in both clips, so the value lies
// above that of windows inside the frame.
#include "metrics/frames/ssim.h"

namespace raingauge {
namespace {

SsimWindow zero_padded_window() { return {std::vector<double>(11, 1.0 / 11.0), 1.0, true}; }

}  // namespace

FrameMetricEntry ssim_uniform11_zeropad_frame_metric() {
  return {{.name = "ssim_uniform11_zeropad",
           .unit = "1",
           .help = "SSIM, 11x11 uniform window over zero-padded frames: Sparse-VideoGen's recipe",
           .formula = "as ssim_gauss11 with equal weights, one window a pixel, zeros outside the "
                      "frame counted as pixels",
           .better = Better::higher},
          1,
          [](const ClipView& reference, const ClipView& test, int threads) {
            return ssim_scores(reference, test, zero_padded_window(), threads);
          }};
}

}  // namespace raingauge
