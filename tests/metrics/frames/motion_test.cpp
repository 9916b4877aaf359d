// SPDX-License-Identifier: Apache-2.0
// The metrics of motion on clips whose motion is known.
#include <gtest/gtest.h>

#include <cmath>

#include "metrics/frames/flow.h"
#include "tests/metrics/frames/clip.h"

namespace raingauge {
namespace {

using namespace clip_fixture;

double also(const FrameScore& result, std::string_view name) {
  for (const auto& [key, value] : result.also) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "no " << name;
  return std::nan("");
}

TEST(Flicker, HasClosedForms) {
  Clip clip = flat(3, 2, 2, 100);
  for (int c = 0; c < 3; ++c) clip.at(1, 0, 0, c) = 151;  // one pixel of four by 51 = 255 / 5
  const FrameScore result = score("flicker", flat(3, 2, 2, 9), clip);
  ASSERT_EQ(result.per_frame.size(), 2U);
  EXPECT_NEAR(result.per_frame[0], 0.95, 1e-15);
  EXPECT_NEAR(result.per_frame[1], 0.95, 1e-15);
  EXPECT_NEAR(result.mean, 0.95, 1e-15);
  EXPECT_EQ(result.reference_mean, 1.0);
}

// The tests below need the estimator.
class Motion : public testing::Test {
 protected:
  void SetUp() override {
    if (!flow_not_built().empty()) GTEST_SKIP() << flow_not_built();
  }
};

TEST_F(Motion, FlowOfATranslationIsTheTranslation) {
  for (const auto& [u, v] :
       std::vector<std::pair<double, double>>{{0, 0}, {2, 0}, {-1.5, 0.75}, {3.25, -2.5}}) {
    const Clip clip = moving(2, 96, 128, u, v);
    const FlowEstimator estimator;
    const Flow flow = estimator.between(clip.view(), 0, 1);
    double error = 0.0;
    int count = 0;
    for (int y = 16; y < 80; ++y) {
      for (int x = 16; x < 112; ++x, ++count) {
        error += std::hypot(flow.uv[flow.at(x, y)] - u, flow.uv[flow.at(x, y) + 1] - v);
      }
    }
    EXPECT_LT(error / count, 0.1) << u << ", " << v;
  }
}

TEST_F(Motion, StillClipsHaveNone) {
  Clip clip = moving(1, 64, 64, 0, 0);
  clip.frames = 4;
  const std::vector<std::uint8_t> frame = clip.rgb;
  for (int t = 1; t < 4; ++t) clip.rgb.insert(clip.rgb.end(), frame.begin(), frame.end());
  for (const char* name : {"warp_error", "warp_error_self", "flow_epe", "dynamic_degree"}) {
    EXPECT_NEAR(score(name, clip, clip).mean, 0.0, 1e-6) << name;
  }
  EXPECT_EQ(score("flicker", clip, clip).mean, 1.0);
  EXPECT_EQ(also(score("dynamic_degree", clip, clip), "moves"), 0.0);
}

TEST_F(Motion, WarpingErrorIsSmallForAMovingClipAndLargeForAFrozenOne) {
  const Clip reference = moving(4, 96, 96, 2, 1);
  const FrameScore same = score("warp_error", reference, reference);
  EXPECT_LT(same.mean, 1e-4);  // rounding alone gives 1 / (6 * 255^2) = 2.6e-6
  EXPECT_EQ(same.mean, same.reference_mean);
  EXPECT_LT(also(same, "occluded"), 0.15);
  const Clip frozen = moving(4, 96, 96, 0, 0);
  EXPECT_GT(score("warp_error", reference, frozen).mean, 30.0 * same.mean);
  EXPECT_LT(score("warp_error_self", reference, frozen).mean, 1e-6);
  EXPECT_EQ(also(score("dynamic_degree", reference, frozen), "moves"), 0.0);
}

TEST_F(Motion, EndPointDifferenceIsThatOfTheMotions) {
  const FrameScore result = score("flow_epe", moving(3, 96, 128, 2, 0), moving(3, 96, 128, 2, 1.5));
  EXPECT_NEAR(result.mean, 1.5, 0.15);
  EXPECT_NEAR(also(result, "reference_motion"), 2.0, 0.2);
}

TEST_F(Motion, DynamicDegreeIsTheMotionOverItsThreshold) {
  // 128 x 192 pixels: the threshold is 6 * 128 / 256 = 3 px. At 16 frames a second every second frame
  // counts, so 2 px a frame are 4 px.
  const Clip still = moving(9, 128, 192, 0, 0);
  const Clip fast = moving(9, 128, 192, 2, 0);
  const FrameScore result = score("dynamic_degree", still, fast);
  EXPECT_EQ(result.step, 2);
  EXPECT_EQ(result.per_frame.size(), 4U);
  EXPECT_EQ(also(result, "threshold_px"), 3.0);
  EXPECT_NEAR(result.mean, 4.0 / 3.0, 0.15);
  EXPECT_EQ(also(result, "moves"), 1.0);
  EXPECT_EQ(also(result, "reference_moves"), 0.0);
  // At 8 a second every frame counts: 2 px stay below 3. At 4 the threshold is twice as high.
  const auto at = [&](double fps) {
    return score_frames(find_frame_metric("dynamic_degree"), still.view(fps), fast.view(fps), 1);
  };
  EXPECT_NEAR(at(8).mean, 2.0 / 3.0, 0.1);
  EXPECT_EQ(also(at(8), "moves"), 0.0);
  EXPECT_NEAR(at(4).mean, 1.0 / 3.0, 0.1);
}

TEST_F(Motion, DynamicDegreeNeedsTwoSampledFrames) {
  const Clip clip = moving(2, 64, 64, 1, 0);
  EXPECT_NE(message_of("dynamic_degree", clip, clip).find("at least 3"), std::string::npos);
}

}  // namespace
}  // namespace raingauge
