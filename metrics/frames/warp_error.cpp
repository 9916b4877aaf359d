// SPDX-License-Identifier: Apache-2.0
// Warping error along the reference's motion: a frozen or differently moving test is punished, and
// so is one that moves as well but elsewhere (see warp_error_self).
#include "metrics/frames/warping.h"

namespace raingauge {

FrameMetricEntry warp_error_frame_metric() {
  return {{.name = "warp_error",
           .unit = "1",
           .help = "warping error of the test along the reference's flow (OpenCV DIS)",
           .formula =
               "mean over pairs of sum (1 - occluded) (I_{t+1}(p + w(p)) - I_t(p))^2 / "
               "(3 sum (1 - occluded)), I in [0, 1] sampled bilinearly, w and occlusion from "
               "the reference by OpenCV's DIS (preset medium, luma); occluded: p + w outside the "
               "frame, or |w + b|^2 > 0.01 (|w|^2 + |b|^2) + 0.5 with b the backward flow at "
               "p + w, or |grad w|^2 > 0.01 |w|^2 + 0.002; beside it: the reference along its "
               "own flow, and the occluded share",
           .better = Better::lower},
          kLeastFlowSide,
          [](const ClipView& reference, const ClipView& test, int threads) {
            return warping_score(reference, test, WarpAlong::reference_flow, threads);
          },
          true,
          flow_not_built()};
}

}  // namespace raingauge
