// SPDX-License-Identifier: Apache-2.0
// Peak signal-to-noise ratio of a clip as one signal. Below the mean of the frames' PSNR when
// errors are uneven: the mean of decibels forgives a few bad frames.
#include <numeric>

#include "metrics/frames/per_frame.h"

namespace raingauge {
namespace {

FrameScore score(const ClipView& reference, const ClipView& test, int threads) {
  std::vector<double> values = each_frame(reference.frames, threads, [&](int frame) {
    return mean_squared_error(reference, test, frame);
  });
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  for (double& value : values) value = psnr_of(value);
  FrameScore result = mean_over_frames(std::move(values));
  if (sum > 0.0) result.mean = psnr_of(sum / reference.frames);
  return result;
}

}  // namespace

FrameMetricEntry psnr_mse_frame_metric() {
  return {{.name = "psnr_mse",
           .unit = "dB",
           .help = "PSNR of the MSE over the whole clip; per_frame as psnr",
           .formula = "10 log10(255^2 / mean_t MSE_t)",
           .better = Better::higher},
          1,
          score};
}

}  // namespace raingauge
