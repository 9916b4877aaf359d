// SPDX-License-Identifier: Apache-2.0
// Warping error along the test's own motion: temporal consistency of a clip whose content differs
// from the reference's. A frozen clip scores 0: read it beside dynamic_degree.
#include "metrics/frames/warping.h"

namespace raingauge {

FrameMetricEntry warp_error_self_frame_metric() {
  return {
      {.name = "warp_error_self",
       .unit = "1",
       .help = "warping error of the test along its own flow; a frozen clip scores 0",
       .formula = "mean over pairs of sum (1 - occluded) (I_{t+1}(p + w(p)) - I_t(p))^2 / "
                  "(3 sum (1 - occluded)), I in [0, 1], w and occlusion (see warp_error) from the "
                  "test itself",
       .better = Better::lower},
      kLeastFlowSide,
      [](const ClipView& reference, const ClipView& test, int threads) {
        return warping_score(reference, test, WarpAlong::own_flow, threads);
      },
      true,
      flow_not_built()};
}

}  // namespace raingauge
