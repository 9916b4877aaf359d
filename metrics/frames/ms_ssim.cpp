// SPDX-License-Identifier: Apache-2.0
// Multi-scale SSIM (Wang, Simoncelli and Bovik, Asilomar 2003): five scales, each the 2 x 2 mean of
// the one before. An odd last row or column is averaged with itself, as in the authors' program.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "metrics/frames/per_frame.h"
#include "metrics/frames/ssim.h"

namespace raingauge {
namespace {

constexpr std::array<double, 5> kExponents = {0.0448, 0.2856, 0.3001, 0.2363, 0.1333};

struct Plane {
  std::size_t height = 0;
  std::size_t width = 0;
  std::vector<double> values;  // [height, width]
};

Plane channel_of(const ClipView& clip, int frame, int channel) {
  Plane plane{static_cast<std::size_t>(clip.height), static_cast<std::size_t>(clip.width), {}};
  plane.values.resize(plane.height * plane.width);
  const std::uint8_t* rgb = clip.frame(frame) + channel;
  for (std::size_t i = 0; i < plane.values.size(); ++i) plane.values[i] = rgb[3 * i];
  return plane;
}

Plane halved(const Plane& plane) {
  Plane half{(plane.height + 1) / 2, (plane.width + 1) / 2, {}};
  half.values.resize(half.height * half.width);
  for (std::size_t y = 0; y < half.height; ++y) {
    const double* upper = plane.values.data() + 2 * y * plane.width;
    const double* lower = 2 * y + 1 < plane.height ? upper + plane.width : upper;
    for (std::size_t x = 0; x < half.width; ++x) {
      const std::size_t left = 2 * x;
      const std::size_t right = std::min(left + 1, plane.width - 1);
      half.values[y * half.width + x] =
          0.25 * (upper[left] + upper[right] + lower[left] + lower[right]);
    }
  }
  return half;
}

double of_channel(Plane x, Plane y, const SsimWindow& window) {
  double product = 1.0;
  for (std::size_t scale = 0; scale < kExponents.size(); ++scale) {
    if (scale > 0) {
      x = halved(x);
      y = halved(y);
    }
    const SsimMeans means =
        ssim_of_planes(x.values.data(), y.values.data(), x.height, x.width, window);
    const bool last = scale + 1 == kExponents.size();
    // A negative mean (anticorrelated frames) has no real power: it counts as 0.
    const double factor = std::max(0.0, last ? means.ssim : means.contrast_structure);
    product *= std::pow(factor, kExponents[scale]);
  }
  return product;
}

FrameScore score(const ClipView& reference, const ClipView& test, int threads) {
  const SsimWindow window = gaussian11_window();
  return mean_over_frames(each_frame(reference.frames, threads, [&](int frame) {
    double sum = 0.0;
    for (int c = 0; c < 3; ++c) {
      sum += of_channel(channel_of(reference, frame, c), channel_of(test, frame, c), window);
    }
    return sum / 3.0;
  }));
}

}  // namespace

FrameMetricEntry ms_ssim_frame_metric() {
  return {{.name = "ms_ssim",
           .unit = "1",
           .help = "multi-scale SSIM, five scales, ssim_gauss11's window",
           .formula = "mean over t and R G B of prod_{s=1..4} max(0, mean cs_s)^w_s * "
                      "max(0, mean SSIM_5)^w_5, cs = (2 sxy + C2) / (sx^2 + sy^2 + C2), "
                      "w = 0.0448 0.2856 0.3001 0.2363 0.1333, each scale the 2x2 mean of the last",
           .better = Better::higher},
          161,  // four halvings, rounded up, leave the 11 pixels of the window
          score};
}

}  // namespace raingauge
