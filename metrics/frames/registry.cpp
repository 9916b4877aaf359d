// SPDX-License-Identifier: Apache-2.0
// The table of frame metrics, one entry for every line of frame_metrics.def, and their shared
// checks.
#include "metrics/frames/registry.h"

#include <algorithm>
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
  if (std::min(reference.height, reference.width) < metric.least_side) {
    throw Unsupported(std::string(metric.spec.name) + ": frames of " +
                      std::to_string(reference.width) + "x" + std::to_string(reference.height) +
                      " are smaller than its window; it needs at least " +
                      std::to_string(metric.least_side) + " pixels each way");
  }
  return metric.score(reference, test, threads);
}

}  // namespace raingauge
