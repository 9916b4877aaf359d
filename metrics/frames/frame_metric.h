// SPDX-License-Identifier: Apache-2.0
// A frame metric compares two clips of 8-bit RGB frames. Against the dense clip of the same seed it
// measures divergence; only against the true clip does it measure quality.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "metrics/metric.h"

namespace raingauge {

// [frames, height, width, 3], RGB.
struct ClipView {
  const std::uint8_t* rgb = nullptr;
  int frames = 0;
  int height = 0;
  int width = 0;
  double fps = 16.0;  // only dynamic_degree depends on it

  std::int64_t frame_bytes() const { return std::int64_t{3} * height * width; }
  const std::uint8_t* frame(int index) const { return rgb + index * frame_bytes(); }
};

// A rectangle of pixels; x and y are its first column and row.
struct Patch {
  int x = 0, y = 0, width = 0, height = 0;
};

struct FrameScore {
  double mean = std::numeric_limits<double>::quiet_NaN();  // NaN: no value is finite
  // One value a frame, or one a pair of frames (FrameMetricEntry::of_pairs): value i belongs to the
  // frames i * step and (i + 1) * step. +Inf where frames are identical (PSNR), NaN where the metric
  // is undefined (warping error of a pair without a visible pixel).
  std::vector<double> per_frame;
  int infinite = 0;   // how many of per_frame are
  int undefined = 0;  // how many of per_frame are NaN
  int step = 1;
  // The same measure of the reference clip alone, where there is one: what the test is to be near.
  double reference_mean = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> reference_per_frame;
  std::vector<Patch> patches;  // where in each frame the value was found; empty for most metrics
  std::vector<std::pair<std::string_view, double>> also;  // numbers needed to read the mean
};

// What a metric's file defines. `score` sees two clips of one shape that satisfy the limits.
struct FrameMetricEntry {
  MetricSpec spec;
  int least_side;  // the smallest height and width it is defined on
  FrameScore (*score)(const ClipView& reference, const ClipView& test, int threads);
  bool of_pairs = false;  // values belong to pairs of frames: a clip of one frame has none
  std::string_view not_built = {};  // why it is not in this build; empty when it is
};

}  // namespace raingauge
