// SPDX-License-Identifier: Apache-2.0
// Warping error: does frame t+1, moved back along the flow, look like frame t where both see the same
// thing? Lai et al., "Learning Blind Video Temporal Consistency" (arXiv 1808.00449), whose occlusion
// test is that of Sundaram, Brox and Keutzer (ECCV 2010) and Ruder et al. (arXiv 1604.08610).
#pragma once

#include <cstdint>
#include <vector>

#include "metrics/frames/flow.h"

namespace raingauge {

// [height, width]: 1 where pixel (x, y) of the first frame must not be judged, w = forward(x, y),
// b = backward at (x, y) + w, bilinear:
//   (x, y) + w lies outside the frame, or
//   |w + b|^2 > 0.01 (|w|^2 + |b|^2) + 0.5        the two flows disagree: occluded, or
//   |grad u|^2 + |grad v|^2 > 0.01 |w|^2 + 0.002  motion boundary, forward differences.
std::vector<std::uint8_t> occlusion(const Flow& forward, const Flow& backward);

struct WarpingError {
  double error = 0.0;     // NaN when no pixel is visible
  double occluded = 0.0;  // share of the pixels
};

// Mean over the visible pixels and R, G, B of (I_to(p + w(p)) - I_from(p))^2, values in [0, 1],
// I_to sampled bilinearly. `forward` leads from frame `from` to frame `to`.
WarpingError warping_error(const ClipView& clip, int from, int to, const Flow& forward,
                           const std::vector<std::uint8_t>& occluded);

enum class WarpAlong { reference_flow, own_flow };

// warping_error of every pair of consecutive frames of the test, along the flow of the reference or its
// own, beside that of the reference along its own flow.
FrameScore warping_score(const ClipView& reference, const ClipView& test, WarpAlong along,
                         int threads);

}  // namespace raingauge
