// SPDX-License-Identifier: Apache-2.0
// VBench's temporal_flickering of the test, beside the reference's. It calls motion flicker too, so
// neither direction is better by itself: the reference's value is what the test should have.
#include "metrics/frames/per_frame.h"

#include <cstdlib>

namespace raingauge {
namespace {

double steadiness(const ClipView& clip, int t) {
  const std::uint8_t* a = clip.frame(t);
  const std::uint8_t* b = clip.frame(t + 1);
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < clip.frame_bytes(); ++i) sum += std::abs(int{a[i]} - int{b[i]});
  return 1.0 - static_cast<double>(sum) / (255.0 * static_cast<double>(clip.frame_bytes()));
}

FrameScore score(const ClipView& reference, const ClipView& test, int threads) {
  const auto of = [threads](const ClipView& clip) {
    return each_frame(clip.frames - 1, threads, [&](int t) { return steadiness(clip, t); });
  };
  FrameScore result = mean_over_frames(of(test));
  result.reference_per_frame = of(reference);
  result.reference_mean = mean_of_finite(result.reference_per_frame);
  return result;
}

}  // namespace

FrameMetricEntry flicker_frame_metric() {
  return {{.name = "flicker",
           .unit = "1",
           .help = "VBench's temporal flickering of the test: 1 = frozen; compare with the "
                   "reference's",
           .formula = "mean over pairs of 1 - mean |I_{t+1} - I_t| / 255",
           .better = Better::neither},
          1,
          score,
          true};
}

}  // namespace raingauge
