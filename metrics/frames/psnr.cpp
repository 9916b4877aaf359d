// SPDX-License-Identifier: Apache-2.0
// Peak signal-to-noise ratio of each frame, averaged in dB over the frames that differ.
#include "metrics/frames/per_frame.h"

namespace raingauge {
namespace {

FrameScore score(const ClipView& reference, const ClipView& test, int threads) {
  return mean_over_frames(each_frame(reference.frames, threads, [&](int frame) {
    return psnr_of(mean_squared_error(reference, test, frame));
  }));
}

}  // namespace

FrameMetricEntry psnr_frame_metric() {
  return {{.name = "psnr",
           .unit = "dB",
           .help = "PSNR per frame, then the mean over frames; identical frames are counted apart",
           .formula = "mean_t 10 log10(255^2 / MSE_t), MSE over pixels and R, G, B",
           .better = Better::higher},
          1,
          score};
}

}  // namespace raingauge
