// SPDX-License-Identifier: Apache-2.0
// Rows stream through a ring of horizontally filtered rows, so the working set of a frame stays in
// cache. Only the sum of the two variances enters the formula, which leaves four filtered images:
// x, y, x^2 + y^2, x y.
#include "metrics/frames/ssim.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "metrics/frames/per_frame.h"

namespace raingauge {
namespace {

constexpr double kC1 = (0.01 * 255.0) * (0.01 * 255.0);
constexpr double kC2 = (0.03 * 255.0) * (0.03 * 255.0);
constexpr std::size_t kImages = 4;

using Rows = std::array<std::vector<double>, kImages>;

class PlaneSsim {
 public:
  PlaneSsim(const SsimWindow& window, std::size_t height, std::size_t width)
      : window_(window),
        taps_(window.weights.size()),
        padding_(window.zero_padded ? taps_ / 2 : 0),
        height_(height),
        width_(width),
        map_width_(width + 2 * padding_ - taps_ + 1),
        ring_(taps_) {
    for (auto& row : source_) row.resize(width_ + 2 * padding_);  // the padding stays zero
    for (auto& row : filtered_) row.resize(map_width_);
    for (Rows& rows : ring_) {
      for (auto& row : rows) row.resize(map_width_);
    }
  }

  // x and y point at the first value of a plane whose values are `stride` apart.
  template <typename Value>
  SsimMeans means(const Value* x, const Value* y, std::size_t stride) {
    SsimMeans sum;
    const std::size_t rows = height_ + 2 * padding_;
    for (std::size_t row = 0; row < rows; ++row) {
      Rows& target = ring_[row % taps_];
      if (row < padding_ || row >= padding_ + height_) {
        for (auto& image : target) std::fill(image.begin(), image.end(), 0.0);
      } else {
        const std::size_t offset = (row - padding_) * width_ * stride;
        load(x + offset, y + offset, stride);
        filter_along_row(target);
      }
      if (row + 1 < taps_) continue;
      filter_across_rows(row + 1 - taps_);
      add_map_row(sum);
    }
    const auto positions = static_cast<double>(map_width_) * static_cast<double>(rows - taps_ + 1);
    return {sum.ssim / positions, sum.contrast_structure / positions};
  }

 private:
  template <typename Value>
  void load(const Value* x, const Value* y, std::size_t stride) {
    for (std::size_t i = 0; i < width_; ++i) {
      const double a = x[stride * i];
      const double b = y[stride * i];
      source_[0][padding_ + i] = a;
      source_[1][padding_ + i] = b;
      source_[2][padding_ + i] = a * a + b * b;
      source_[3][padding_ + i] = a * b;
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

  // The window's rows are first_row … first_row + taps - 1 of the padded frame.
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

  void add_map_row(SsimMeans& sum) const {
    for (std::size_t i = 0; i < map_width_; ++i) {
      const double x = filtered_[0][i];
      const double y = filtered_[1][i];
      const double variances = window_.covariance_factor * (filtered_[2][i] - x * x - y * y);
      const double covariance = window_.covariance_factor * (filtered_[3][i] - x * y);
      const double contrast_structure = (2.0 * covariance + kC2) / (variances + kC2);
      sum.ssim += (2.0 * x * y + kC1) / (x * x + y * y + kC1) * contrast_structure;
      sum.contrast_structure += contrast_structure;
    }
  }

  const SsimWindow& window_;
  std::size_t taps_, padding_, height_, width_, map_width_;
  Rows source_;             // [4][width + 2 padding] of the row at hand
  std::vector<Rows> ring_;  // [taps][4][map width]
  Rows filtered_;           // [4][map width]
};

}  // namespace

SsimWindow gaussian11_window() {
  SsimWindow window{std::vector<double>(11), 1.0};
  double sum = 0.0;
  for (int i = 0; i < 11; ++i) {
    const double distance = (i - 5) / 1.5;
    sum += window.weights[static_cast<std::size_t>(i)] = std::exp(-0.5 * distance * distance);
  }
  for (double& weight : window.weights) weight /= sum;
  return window;
}

FrameScore ssim_scores(const ClipView& reference, const ClipView& test, const SsimWindow& window,
                       int threads) {
  const auto one = [&](int frame) {
    PlaneSsim plane(window, static_cast<std::size_t>(reference.height),
                    static_cast<std::size_t>(reference.width));
    double sum = 0.0;
    for (int c = 0; c < 3; ++c) {
      sum += plane.means(reference.frame(frame) + c, test.frame(frame) + c, 3).ssim;
    }
    return sum / 3.0;
  };
  return mean_over_frames(each_frame(reference.frames, threads, one));
}

SsimMeans ssim_of_planes(const double* x, const double* y, std::size_t height, std::size_t width,
                         const SsimWindow& window) {
  return PlaneSsim(window, height, width).means(x, y, 1);
}

}  // namespace raingauge
