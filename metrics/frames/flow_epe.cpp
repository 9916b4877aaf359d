// SPDX-License-Identifier: Apache-2.0
// Is the motion kept? End-point difference of the two clips' flows, every pixel of every pair.
#include <cmath>

#include "metrics/frames/flow.h"
#include "metrics/frames/per_frame.h"

namespace raingauge {
namespace {

FrameScore score(const ClipView& reference, const ClipView& test, int threads) {
  const FlowEstimator estimator;
  std::vector<double> speeds(static_cast<std::size_t>(reference.frames) - 1);
  FrameScore result = mean_over_frames(each_frame(reference.frames - 1, threads, [&](int t) {
    const Flow a = estimator.between(reference, t, t + 1);
    const Flow b = estimator.between(test, t, t + 1);
    double difference = 0.0;
    double speed = 0.0;
    for (std::size_t i = 0; i < a.uv.size(); i += 2) {
      difference += std::hypot(double{a.uv[i]} - b.uv[i], double{a.uv[i + 1]} - b.uv[i + 1]);
      speed += std::hypot(double{a.uv[i]}, double{a.uv[i + 1]});
    }
    const auto pixels = static_cast<double>(a.uv.size()) / 2.0;
    speeds[static_cast<std::size_t>(t)] = speed / pixels;
    return difference / pixels;
  }));
  result.also = {{"reference_motion", mean_of_finite(speeds)}};
  return result;
}

}  // namespace

FrameMetricEntry flow_epe_frame_metric() {
  return {
      {.name = "flow_epe",
       .unit = "px",
       .help = "end-point difference of the flows (OpenCV DIS) of test and reference",
       .formula = "mean over pairs and pixels of |w_test - w_reference|, w by OpenCV's DIS (preset "
                  "medium, luma); beside it reference_motion, the mean of |w_reference|",
       .better = Better::lower},
      kLeastFlowSide,
      score,
      true,
      flow_not_built()};
}

}  // namespace raingauge
