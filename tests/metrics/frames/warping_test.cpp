// SPDX-License-Identifier: Apache-2.0
// Warping error and occlusion with flows that are known exactly: no estimator is involved.
#include "metrics/frames/warping.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/metrics/frames/clip.h"

namespace raingauge {
namespace {

using namespace clip_fixture;

Flow uniform_flow(int height, int width, float u, float v) {
  Flow flow{height, width, {}};
  for (int i = 0; i < height * width; ++i) {
    flow.uv.push_back(u);
    flow.uv.push_back(v);
  }
  return flow;
}

std::vector<std::uint8_t> nothing_occluded(int height, int width) {
  return std::vector<std::uint8_t>(
      static_cast<std::size_t>(height) * static_cast<std::size_t>(width), 0);
}

TEST(Occlusion, ConsistentTranslationHidesOnlyWhatLeavesTheFrame) {
  const auto occluded = occlusion(uniform_flow(6, 10, 2, -1), uniform_flow(6, 10, -2, 1));
  for (int y = 0; y < 6; ++y) {
    for (int x = 0; x < 10; ++x) {
      EXPECT_EQ(occluded[static_cast<std::size_t>(y * 10 + x)], x + 2 > 9 || y - 1 < 0 ? 1 : 0)
          << x << ", " << y;
    }
  }
}

TEST(Occlusion, FlowsThatDisagreeAreHiddenAboveTheThreshold) {
  // w = 0: hidden iff b^2 > 0.01 b^2 + 0.5, b > 0.7107.
  for (const auto& [back, hidden] : std::vector<std::pair<float, int>>{{0.70F, 0}, {0.72F, 1}}) {
    const auto occluded = occlusion(uniform_flow(4, 4, 0, 0), uniform_flow(4, 4, back, 0));
    for (const auto flag : occluded) EXPECT_EQ(flag, hidden) << back;
  }
}

TEST(Occlusion, BackwardFlowIsReadWhereThePixelWent) {
  // Everything moves 2 right; the backward flow is right from column 2 on, and wrong before it.
  Flow backward = uniform_flow(3, 8, -2, 0);
  for (int y = 0; y < 3; ++y) {
    for (int x = 0; x < 2; ++x) backward.uv[backward.at(x, y)] = 5;
  }
  const auto occluded = occlusion(uniform_flow(3, 8, 2, 0), backward);
  for (int x = 0; x < 8; ++x) EXPECT_EQ(occluded[static_cast<std::size_t>(8 + x)], x > 5 ? 1 : 0);
}

TEST(Occlusion, MotionBoundaryIsHidden) {
  // The right half moves down by 1; |grad|^2 = 1 at column 3 (forward difference), 0 elsewhere.
  Flow forward = uniform_flow(6, 8, 0, 0);
  Flow backward = uniform_flow(6, 8, 0, 0);
  for (int y = 0; y < 6; ++y) {
    for (int x = 4; x < 8; ++x) {
      forward.uv[forward.at(x, y) + 1] = 1;
      backward.uv[backward.at(x, y) + 1] = -1;
    }
  }
  const auto occluded = occlusion(forward, backward);
  for (int y = 0; y < 6; ++y) {
    for (int x = 0; x < 8; ++x) {
      const bool leaves = x >= 4 && y == 5;
      EXPECT_EQ(occluded[static_cast<std::size_t>(y * 8 + x)], x == 3 || leaves ? 1 : 0)
          << x << ", " << y;
    }
  }
}

TEST(Occlusion, NanIsHidden) {
  const auto occluded = occlusion(uniform_flow(2, 2, std::nanf(""), 0), uniform_flow(2, 2, 0, 0));
  for (const auto flag : occluded) EXPECT_EQ(flag, 1);
}

TEST(WarpingError, IsZeroForWholePixelsAndStillClips) {
  Clip clip = pattern(2, 20, 24, 30);
  for (int y = 0; y < 20; ++y) {
    for (int x = 0; x < 24; ++x) {
      for (int c = 0; c < 3; ++c) {
        clip.at(1, y, x, c) = y >= 2 && x < 21 ? clip.at(0, y - 2, x + 3, c) : std::uint8_t{7};
      }
    }
  }
  const Flow forward = uniform_flow(20, 24, -3, 2);
  const auto occluded = occlusion(forward, uniform_flow(20, 24, 3, -2));
  const WarpingError moved = warping_error(clip.view(), 0, 1, forward, occluded);
  EXPECT_EQ(moved.error, 0.0);
  EXPECT_NEAR(moved.occluded, 1.0 - 18.0 * 21.0 / (20.0 * 24.0), 1e-12);
  const WarpingError still =
      warping_error(clip.view(), 0, 0, uniform_flow(20, 24, 0, 0), nothing_occluded(20, 24));
  EXPECT_EQ(still.error, 0.0);
  EXPECT_EQ(still.occluded, 0.0);
}

TEST(WarpingError, InterpolatesBetweenPixelsAndDividesByChannels) {
  // Frame 1 is a ramp of 10 a column; half a column on, the value is 5 more than frame 0's.
  Clip clip = flat(2, 4, 12, 0);
  for (int t = 0; t < 2; ++t) {
    for (int y = 0; y < 4; ++y) {
      for (int x = 0; x < 12; ++x) clip.at(t, y, x, 0) = static_cast<std::uint8_t>(10 * x);
    }
  }
  const Flow forward = uniform_flow(4, 12, 0.5F, 0);
  const WarpingError result =
      warping_error(clip.view(), 0, 1, forward, occlusion(forward, uniform_flow(4, 12, -0.5F, 0)));
  EXPECT_NEAR(result.error, 25.0 / (255.0 * 255.0) / 3.0, 1e-15);  // one channel of three
  EXPECT_NEAR(result.occluded, 1.0 / 12.0, 1e-12);
}

TEST(WarpingError, HiddenPixelsDoNotCount) {
  Clip clip = flat(2, 4, 4, 50);
  clip.at(1, 2, 3, 1) = 250;
  auto occluded = nothing_occluded(4, 4);
  const Flow still = uniform_flow(4, 4, 0, 0);
  EXPECT_NEAR(warping_error(clip.view(), 0, 1, still, occluded).error,
              200.0 * 200.0 / (255.0 * 255.0) / 48.0, 1e-15);
  occluded[2 * 4 + 3] = 1;
  EXPECT_EQ(warping_error(clip.view(), 0, 1, still, occluded).error, 0.0);
  occluded.assign(16, 1);
  EXPECT_TRUE(std::isnan(warping_error(clip.view(), 0, 1, still, occluded).error));
}

TEST(WarpingError, NoiseAddsTwiceItsVariance) {
  // Independent noise of variance s^2 in both frames, whole-pixel flow: E = 2 s^2. Uniform in -6 … 6:
  // s^2 = 14. The mean of n = 30000 squares of a sum of two has a relative standard error below
  // sqrt(2 / n) = 0.8 %; 4 % is five of them.
  std::mt19937 random(7);
  std::uniform_int_distribution<int> noise(-6, 6);
  Clip clip = flat(2, 100, 100, 0);
  for (auto& value : clip.rgb) value = static_cast<std::uint8_t>(128 + noise(random));
  const double error =
      warping_error(clip.view(), 0, 1, uniform_flow(100, 100, 0, 0), nothing_occluded(100, 100))
          .error;
  EXPECT_NEAR(error * 255.0 * 255.0 / 28.0, 1.0, 0.04);
}

}  // namespace
}  // namespace raingauge
