// SPDX-License-Identifier: Apache-2.0
// The table of frame metrics, one entry for every line of frame_metrics.def, and their shared
// checks.
#include "metrics/frames/registry.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "data/error.h"

namespace raingauge {

#define RAINGAUGE_FRAME_METRIC(name) FrameMetricEntry name##_frame_metric();
#include "metrics/frames/frame_metrics.def"
#undef RAINGAUGE_FRAME_METRIC

namespace {

std::string shape_text(const ClipView& clip) {
  return std::to_string(clip.frames) + " frames of " + std::to_string(clip.width) + "x" +
         std::to_string(clip.height);
}

}  // namespace

const std::vector<FrameMetricEntry>& frame_metric_registry() {
  static const std::vector<FrameMetricEntry> kEntries = {
#define RAINGAUGE_FRAME_METRIC(name) name##_frame_metric(),
#include "metrics/frames/frame_metrics.def"
#undef RAINGAUGE_FRAME_METRIC
  };
  return kEntries;
}

const FrameMetricEntry& find_frame_metric(std::string_view name) {
  std::string known;
  for (const FrameMetricEntry& entry : frame_metric_registry()) {
    if (entry.spec.name == name) return entry;
    known += (known.empty() ? "" : ", ") + std::string(entry.spec.name);
  }
  throw Error("unknown frame metric '" + std::string(name) + "'. Known: " + known);
}

FrameScore score_frames(const FrameMetricEntry& metric, const ClipView& reference,
                        const ClipView& test, int threads) {
  if (reference.frames != test.frames || reference.height != test.height ||
      reference.width != test.width) {
    throw Error("frames differ in shape: the reference has " + shape_text(reference) +
                ", the test has " + shape_text(test) + "; crop or resample one of them first");
  }
  if (reference.frames < 1 || reference.height < 1 || reference.width < 1 ||
      reference.rgb == nullptr || test.rgb == nullptr) {
    throw Error("no frames to compare: " + shape_text(reference));
  }
  const std::string name(metric.spec.name);
  if (!metric.not_built.empty()) throw Unsupported(name + ": " + std::string(metric.not_built));
  if (std::min(reference.height, reference.width) < metric.least_side) {
    throw Unsupported(name + ": frames of " + std::to_string(reference.width) + "x" +
                      std::to_string(reference.height) + " are too small; it needs at least " +
                      std::to_string(metric.least_side) + " pixels each way");
  }
  if (metric.of_pairs && reference.frames < 2) {
    throw Unsupported(name +
                      ": compares consecutive frames; the clips have 1 frame, it needs at "
                      "least 2");
  }
  return metric.score(reference, test, threads);
}

int worst_frame(const FrameMetricEntry& metric, const FrameScore& score) {
  const auto badness = [&](std::size_t i) {
    const double value = score.per_frame[i];
    if (metric.spec.better == Better::higher) return -value;
    if (metric.spec.better == Better::lower || i >= score.reference_per_frame.size()) return value;
    return std::abs(value - score.reference_per_frame[i]);
  };
  int worst = -1;
  for (std::size_t i = 0; i < score.per_frame.size(); ++i) {
    if (!std::isfinite(badness(i))) continue;
    if (worst < 0 || badness(i) > badness(static_cast<std::size_t>(worst))) {
      worst = static_cast<int>(i);
    }
  }
  return worst;
}

}  // namespace raingauge
