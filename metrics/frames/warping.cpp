// SPDX-License-Identifier: Apache-2.0
#include "metrics/frames/warping.h"

#include <algorithm>
#include <cmath>

#include "metrics/frames/per_frame.h"

namespace raingauge {
namespace {

// A place between four pixels of a frame, and their weights.
struct Between {
  bool inside = false;
  int left = 0, top = 0, right = 0, bottom = 0;
  double across = 0.0, down = 0.0;

  template <typename At>
  double sample(const At& at) const {
    const double upper = (1.0 - across) * at(left, top) + across * at(right, top);
    const double lower = (1.0 - across) * at(left, bottom) + across * at(right, bottom);
    return (1.0 - down) * upper + down * lower;
  }
};

Between place(double x, double y, int width, int height) {
  Between between;
  // Written so that NaN is outside.
  if (!(x >= 0.0 && y >= 0.0 && x <= width - 1 && y <= height - 1)) return between;
  between.inside = true;
  between.left = static_cast<int>(x);
  between.top = static_cast<int>(y);
  between.right = std::min(between.left + 1, width - 1);
  between.bottom = std::min(between.top + 1, height - 1);
  between.across = x - between.left;
  between.down = y - between.top;
  return between;
}

double square(double value) { return value * value; }

struct Vector {
  double u, v;
  double squared() const { return u * u + v * v; }
};

Vector vector_at(const Flow& flow, int x, int y) {
  const std::size_t at = flow.at(x, y);
  return {flow.uv[at], flow.uv[at + 1]};
}

// Forward differences, 0 beyond the last row and column.
bool at_motion_boundary(const Flow& flow, int x, int y) {
  const Vector here = vector_at(flow, x, y);
  const Vector right = vector_at(flow, std::min(x + 1, flow.width - 1), y);
  const Vector below = vector_at(flow, x, std::min(y + 1, flow.height - 1));
  const double gradient = square(right.u - here.u) + square(below.u - here.u) +
                          square(right.v - here.v) + square(below.v - here.v);
  return gradient > 0.01 * here.squared() + 0.002;
}

bool flows_disagree(const Vector& forward, const Flow& backward, const Between& target) {
  const auto component = [&](std::size_t c) {
    return target.sample([&](int x, int y) { return double{backward.uv[backward.at(x, y) + c]}; });
  };
  const Vector back = {component(0), component(1)};
  const Vector sum = {forward.u + back.u, forward.v + back.v};
  return sum.squared() > 0.01 * (forward.squared() + back.squared()) + 0.5;
}

// The motion from frame t to t + 1, and which pixels must not be judged by it.
struct Visible {
  Flow motion;
  std::vector<std::uint8_t> occluded;
};

Visible visible_motion(const FlowEstimator& estimator, const ClipView& clip, int t) {
  Visible visible{estimator.between(clip, t, t + 1), {}};
  visible.occluded = occlusion(visible.motion, estimator.between(clip, t + 1, t));
  return visible;
}

std::vector<double> each(const std::vector<WarpingError>& errors, double WarpingError::*member) {
  std::vector<double> values;
  for (const WarpingError& error : errors) values.push_back(error.*member);
  return values;
}

}  // namespace

std::vector<std::uint8_t> occlusion(const Flow& forward, const Flow& backward) {
  std::vector<std::uint8_t> occluded(forward.uv.size() / 2, 1);
  for (int y = 0; y < forward.height; ++y) {
    for (int x = 0; x < forward.width; ++x) {
      const Vector motion = vector_at(forward, x, y);
      const Between target = place(x + motion.u, y + motion.v, forward.width, forward.height);
      if (!target.inside || flows_disagree(motion, backward, target)) continue;
      occluded[forward.at(x, y) / 2] = at_motion_boundary(forward, x, y) ? 1 : 0;
    }
  }
  return occluded;
}

WarpingError warping_error(const ClipView& clip, int from, int to, const Flow& forward,
                           const std::vector<std::uint8_t>& occluded) {
  const std::uint8_t* first = clip.frame(from);
  const std::uint8_t* second = clip.frame(to);
  double sum = 0.0;
  std::size_t visible = 0;
  for (int y = 0; y < clip.height; ++y) {
    for (int x = 0; x < clip.width; ++x) {
      const std::size_t pixel = forward.at(x, y) / 2;
      if (occluded[pixel] != 0) continue;
      const Vector motion = vector_at(forward, x, y);
      const Between target = place(x + motion.u, y + motion.v, clip.width, clip.height);
      ++visible;
      for (std::size_t c = 0; c < 3; ++c) {
        const auto value = [&](int px, int py) {
          return static_cast<double>(second[forward.at(px, py) / 2 * 3 + c]);
        };
        sum += square((target.sample(value) - first[3 * pixel + c]) / 255.0);
      }
    }
  }
  WarpingError result;
  result.error = sum / (3.0 * static_cast<double>(visible));  // 0 / 0 = NaN
  result.occluded =
      1.0 - static_cast<double>(visible) / (static_cast<double>(clip.height) * clip.width);
  return result;
}

FrameScore warping_score(const ClipView& reference, const ClipView& test, WarpAlong along,
                         int threads) {
  const FlowEstimator estimator;
  const auto pairs = static_cast<std::size_t>(reference.frames) - 1;
  std::vector<WarpingError> of_test(pairs);
  std::vector<WarpingError> of_reference(pairs);
  const auto judge = [&](int t) {
    const auto pair = static_cast<std::size_t>(t);
    Visible visible = visible_motion(estimator, reference, t);
    of_reference[pair] = warping_error(reference, t, t + 1, visible.motion, visible.occluded);
    if (along == WarpAlong::own_flow) visible = visible_motion(estimator, test, t);
    of_test[pair] = warping_error(test, t, t + 1, visible.motion, visible.occluded);
    return of_test[pair].error;
  };
  FrameScore score = mean_over_frames(each_frame(reference.frames - 1, threads, judge));
  score.also = {
      {"occluded", mean_of_finite(each(of_test, &WarpingError::occluded))},
      {"reference_occluded", mean_of_finite(each(of_reference, &WarpingError::occluded))}};
  score.reference_per_frame = each(of_reference, &WarpingError::error);
  score.reference_mean = mean_of_finite(score.reference_per_frame);
  return score;
}

}  // namespace raingauge
