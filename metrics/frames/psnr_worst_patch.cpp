// SPDX-License-Identifier: Apache-2.0
// The 32 x 32 pixels of each frame where the clips differ most: what a mean over the frame hides.
#include <algorithm>
#include <cstdint>

#include "metrics/frames/per_frame.h"

namespace raingauge {
namespace {

constexpr int kSide = 32;

struct Worst {
  std::int64_t squared_error = -1;  // sum over the patch and R, G, B
  Patch patch;
};

// columns[x] += sign * squared error of pixel (x, row), summed over R, G, B.
void add_row(const ClipView& reference, const ClipView& test, int frame, int row, int sign,
             std::vector<std::int64_t>& columns) {
  const std::int64_t begin = std::int64_t{3} * row * reference.width;
  const std::uint8_t* a = reference.frame(frame) + begin;
  const std::uint8_t* b = test.frame(frame) + begin;
  for (std::size_t i = 0; i < columns.size() * 3; ++i) {
    const int error = int{a[i]} - int{b[i]};
    columns[i / 3] += sign * error * error;
  }
}

// Every position of the window; the first in raster order wins a tie.
Worst worst_patch(const ClipView& reference, const ClipView& test, int frame) {
  const int height = std::min(kSide, reference.height);
  const int width = std::min(kSide, reference.width);
  std::vector<std::int64_t> columns(static_cast<std::size_t>(reference.width), 0);
  Worst worst;
  for (int bottom = 0; bottom < reference.height; ++bottom) {
    add_row(reference, test, frame, bottom, 1, columns);
    if (bottom + 1 < height) continue;
    std::int64_t sum = 0;
    for (int right = 0; right < reference.width; ++right) {
      sum += columns[static_cast<std::size_t>(right)];
      if (right >= width) sum -= columns[static_cast<std::size_t>(right - width)];
      if (right + 1 < width || sum <= worst.squared_error) continue;
      worst = {sum, {right + 1 - width, bottom + 1 - height, width, height}};
    }
    add_row(reference, test, frame, bottom + 1 - height, -1, columns);
  }
  return worst;
}

FrameScore score(const ClipView& reference, const ClipView& test, int threads) {
  std::vector<Patch> patches(static_cast<std::size_t>(reference.frames));
  FrameScore result = mean_over_frames(each_frame(reference.frames, threads, [&](int frame) {
    const Worst worst = worst_patch(reference, test, frame);
    patches[static_cast<std::size_t>(frame)] = worst.patch;
    const auto values = 3.0 * worst.patch.width * worst.patch.height;
    return psnr_of(static_cast<double>(worst.squared_error) / values);
  }));
  result.patches = std::move(patches);
  return result;
}

}  // namespace

FrameMetricEntry psnr_worst_patch_frame_metric() {
  return {{.name = "psnr_worst_patch",
           .unit = "dB",
           .help = "PSNR of the worst 32x32 pixels of each frame, and where they are",
           .formula = "mean_t min over positions p of 10 log10(255^2 / MSE_t,p), MSE over 32x32 "
                      "pixels (the whole side where a frame is smaller) and R, G, B",
           .better = Better::higher},
          1,
          score};
}

}  // namespace raingauge
