// SPDX-License-Identifier: Apache-2.0
// A frame metric compares two clips of 8-bit RGB frames, frame by frame. Against the dense clip of
// the same seed it measures divergence; only against the true clip does it measure quality.
#pragma once

#include <cstdint>
#include <vector>

#include "metrics/metric.h"

namespace raingauge {

// [frames, height, width, 3], RGB.
struct ClipView {
  const std::uint8_t* rgb = nullptr;
  int frames = 0;
  int height = 0;
  int width = 0;

  std::int64_t frame_bytes() const { return std::int64_t{3} * height * width; }
  const std::uint8_t* frame(int index) const { return rgb + index * frame_bytes(); }
};

struct FrameScore {
  double mean = std::numeric_limits<double>::quiet_NaN();  // NaN: no frame is finite
  std::vector<double> per_frame;                           // +Inf where frames are identical (PSNR)
  int infinite = 0;                                        // how many those are
};

// What a metric's file defines. `score` sees two clips of one shape.
struct FrameMetricEntry {
  MetricSpec spec;
  int least_side;  // the smallest height and width it is defined on
  FrameScore (*score)(const ClipView& reference, const ClipView& test, int threads);
};

}  // namespace raingauge
