// SPDX-License-Identifier: Apache-2.0
// Optical flow between two frames of a clip: OpenCV's DIS (Kroeger et al., "Fast Optical Flow using
// Dense Inverse Search", arXiv 1603.03590), preset medium, on luma. The only file behind this
// header that knows OpenCV is flow.cpp.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "metrics/frames/frame_metric.h"

namespace raingauge {

// Displacement in pixels of every pixel: pixel (x, y) of the first frame is found at
// (x + u, y + v) of the second.
struct Flow {
  int height = 0;
  int width = 0;
  std::vector<float> uv;  // [height, width, 2]: u to the right, v down

  std::size_t at(int x, int y) const {
    return 2 * (static_cast<std::size_t>(y) * static_cast<std::size_t>(width) +
                static_cast<std::size_t>(x));
  }
};

// The smallest height and width that flow is computed for.
inline constexpr int kLeastFlowSide = 32;

// Why this build has no optical flow; empty when it has.
std::string_view flow_not_built();

// Holds OpenCV to one thread while it lives: its own threads would make the flow depend on their
// number, and each_frame() keeps the processor busy already.
class FlowEstimator {
 public:
  FlowEstimator();
  ~FlowEstimator();
  FlowEstimator(const FlowEstimator&) = delete;
  FlowEstimator& operator=(const FlowEstimator&) = delete;

  // May be called from several threads at once. Throws Unsupported when flow is not built, Error when
  // OpenCV fails.
  Flow between(const ClipView& clip, int from, int to) const;

 private:
  int threads_before_ = 0;
};

}  // namespace raingauge
