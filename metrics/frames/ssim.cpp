// SPDX-License-Identifier: Apache-2.0
// Rows stream through a ring of horizontally filtered rows, so the working set of a frame stays in
// cache. Only the sum of the two variances enters the formula, which leaves four filtered images:
// x, y, x^2 + y^2, x y.
#include "metrics/frames/ssim.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "metrics/frames/per_frame.h"

namespace raingauge {
namespace {

constexpr double kC1 = (0.01 * 255.0) * (0.01 * 255.0);
constexpr double kC2 = (0.03 * 255.0) * (0.03 * 255.0);
constexpr std::size_t kImages = 4;

using Rows = std::array<std::vector<double>, kImages>;

class ChannelSsim {
 public:
  ChannelSsim(const SsimWindow& window, std::size_t height, std::size_t width)
      : window_(window),
        taps_(window.weights.size()),
        height_(height),
        width_(width),
        map_width_(width - taps_ + 1),
        ring_(taps_) {
    for (auto& row : source_) row.resize(width_);
    for (auto& row : filtered_) row.resize(map_width_);
    for (Rows& rows : ring_) {
      for (auto& row : rows) row.resize(map_width_);
    }
  }

  // Mean of the map of one channel: x and y point at its first byte of interleaved RGB.
  double mean(const std::uint8_t* x, const std::uint8_t* y) {
    double sum = 0.0;
    for (std::size_t row = 0; row < height_; ++row) {
      load(x + row * width_ * 3, y + row * width_ * 3);
      filter_along_row(ring_[row % taps_]);
      if (row + 1 < taps_) continue;
      filter_across_rows(row + 1 - taps_);
      sum += sum_of_map_row();
    }
    return sum / (static_cast<double>(map_width_) * static_cast<double>(height_ - taps_ + 1));
  }

 private:
  void load(const std::uint8_t* x, const std::uint8_t* y) {
    for (std::size_t i = 0; i < width_; ++i) {
      const double a = x[3 * i];
      const double b = y[3 * i];
      source_[0][i] = a;
      source_[1][i] = b;
      source_[2][i] = a * a + b * b;
      source_[3][i] = a * b;
    }
  }

  void filter_along_row(Rows& target) const {
    for (std::size_t image = 0; image < kImages; ++image) {
      double* out = target[image].data();
      std::fill(out, out + map_width_, 0.0);
      for (std::size_t tap = 0; tap < taps_; ++tap) {
        const double weight = window_.weights[tap];
        const double* in = source_[image].data() + tap;
        for (std::size_t i = 0; i < map_width_; ++i) out[i] += weight * in[i];
      }
    }
  }

  // The window's rows are first_row … first_row + taps - 1 of the frame.
  void filter_across_rows(std::size_t first_row) {
    for (std::size_t image = 0; image < kImages; ++image) {
      double* out = filtered_[image].data();
      std::fill(out, out + map_width_, 0.0);
      for (std::size_t tap = 0; tap < taps_; ++tap) {
        const double weight = window_.weights[tap];
        const double* in = ring_[(first_row + tap) % taps_][image].data();
        for (std::size_t i = 0; i < map_width_; ++i) out[i] += weight * in[i];
      }
    }
  }

  double sum_of_map_row() const {
    double sum = 0.0;
    for (std::size_t i = 0; i < map_width_; ++i) {
      const double x = filtered_[0][i];
      const double y = filtered_[1][i];
      const double variances = window_.covariance_factor * (filtered_[2][i] - x * x - y * y);
      const double covariance = window_.covariance_factor * (filtered_[3][i] - x * y);
      sum += ((2.0 * x * y + kC1) * (2.0 * covariance + kC2)) /
             ((x * x + y * y + kC1) * (variances + kC2));
    }
    return sum;
  }

  const SsimWindow& window_;
  std::size_t taps_, height_, width_, map_width_;
  Rows source_;             // [4][width] of the row at hand
  std::vector<Rows> ring_;  // [taps][4][map width]
  Rows filtered_;           // [4][map width]
};

}  // namespace

FrameScore ssim_scores(const ClipView& reference, const ClipView& test, const SsimWindow& window,
                       int threads) {
  const auto one = [&](int frame) {
    ChannelSsim channel(window, static_cast<std::size_t>(reference.height),
                        static_cast<std::size_t>(reference.width));
    double sum = 0.0;
    for (int c = 0; c < 3; ++c) {
      sum += channel.mean(reference.frame(frame) + c, test.frame(frame) + c);
    }
    return sum / 3.0;
  };
  return mean_over_frames(each_frame(reference.frames, threads, one));
}

}  // namespace raingauge
