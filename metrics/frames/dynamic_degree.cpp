// SPDX-License-Identifier: Apache-2.0
// Does the clip move at all? VBench's dynamic_degree with DIS instead of RAFT. It guards warping error
// and flicker, which a frozen clip passes best; as much motion as the reference is what is wanted.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "data/error.h"
#include "metrics/frames/flow.h"
#include "metrics/frames/per_frame.h"

namespace raingauge {
namespace {

// Frames are taken at about 8 a second.
int frame_step(double fps) { return std::max(1, static_cast<int>(std::nearbyint(fps / 8.0))); }

double threshold(const ClipView& clip) {
  return std::max(1.0, 8.0 / clip.fps) * 6.0 * std::min(clip.height, clip.width) / 256.0;
}

// Mean of the largest 5 % of the displacements, in pixels.
double fast_motion(const Flow& flow) {
  std::vector<double> speeds(flow.uv.size() / 2);
  for (std::size_t i = 0; i < speeds.size(); ++i) {
    speeds[i] = std::hypot(double{flow.uv[2 * i]}, double{flow.uv[2 * i + 1]});
  }
  const auto count = static_cast<std::ptrdiff_t>(0.05 * static_cast<double>(speeds.size()));
  std::partial_sort(speeds.begin(), speeds.begin() + count, speeds.end(), std::greater<>());
  double sum = 0.0;
  for (std::ptrdiff_t i = 0; i < count; ++i) sum += speeds[static_cast<std::size_t>(i)];
  return sum / static_cast<double>(count);
}

std::vector<double> degrees(const ClipView& clip, int threads) {
  const FlowEstimator estimator;
  const int step = frame_step(clip.fps);
  return each_frame((clip.frames - 1) / step, threads, [&](int pair) {
    return fast_motion(estimator.between(clip, pair * step, (pair + 1) * step)) / threshold(clip);
  });
}

// VBench's verdict on a clip of degrees.size() + 1 sampled frames. It calls every clip of two frames
// moving (round(4 * 2 / 16) = 0 pairs suffice); here one pair at least must move.
double moves(const std::vector<double>& degrees) {
  const auto frames = static_cast<double>(degrees.size()) + 1.0;
  const auto wanted = std::max(1L, std::lrint(4.0 * frames / 16.0));
  const auto moving =
      std::count_if(degrees.begin(), degrees.end(), [](double d) { return d > 1.0; });
  return moving >= wanted ? 1.0 : 0.0;
}

FrameScore score(const ClipView& reference, const ClipView& test, int threads) {
  const int step = frame_step(test.fps);
  if (test.frames <= step) {
    throw Unsupported("dynamic_degree: at " + std::to_string(test.fps) +
                      " frames a second it compares every " + std::to_string(step) +
                      "th frame; the clips have " + std::to_string(test.frames) +
                      " frames, it needs at least " + std::to_string(step + 1));
  }
  FrameScore result = mean_over_frames(degrees(test, threads));
  result.step = step;
  result.reference_per_frame = degrees(reference, threads);
  result.reference_mean = mean_of_finite(result.reference_per_frame);
  result.also = {{"moves", moves(result.per_frame)},
                 {"reference_moves", moves(result.reference_per_frame)},
                 {"threshold_px", threshold(test)}};
  return result;
}

}  // namespace

FrameMetricEntry dynamic_degree_frame_metric() {
  return {
      {.name = "dynamic_degree",
       .unit = "1",
       .help = "motion of the test (OpenCV DIS) over VBench's threshold; compare with the "
               "reference's",
       .formula = "mean over pairs of frames sampled at 8 a second of (mean of the largest 5 % "
                  "of |w|) / (6 min(H, W) / 256 px max(1, 8 / fps)); moves = 1 when "
                  "max(1, round(4 n / 16)) of n sampled frames' pairs exceed 1; w by OpenCV's DIS "
                  "(preset medium, luma)",
       .better = Better::neither},
      kLeastFlowSide,
      score,
      true,
      flow_not_built()};
}

}  // namespace raingauge
