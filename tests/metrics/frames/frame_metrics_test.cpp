// SPDX-License-Identifier: Apache-2.0
// Contract of every frame metric, and agreement with scikit-image 0.26.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "data/error.h"
#include "metrics/frames/per_frame.h"
#include "metrics/frames/registry.h"
#include "tests/metrics/frames/clip.h"

namespace raingauge {
namespace {

using namespace clip_fixture;

struct Golden {
  int frames, height, width, noise;
  double psnr, psnr_mse, gauss11, uniform7, last_psnr;
};

// skimage.metrics on each frame: peak_signal_noise_ratio(a, b, data_range=255);
// structural_similarity(a, b, data_range=255, channel_axis=-1), and with gaussian_weights=True,
// sigma=1.5, use_sample_covariance=False; means over the frames. psnr_mse: numpy in float64.
const std::vector<Golden> kGolden = {{3, 32, 48, 10, 32.570241424428, 32.569786196894,
                                      0.922410934332, 0.947694623130, 32.620377261424},
                                     {2, 11, 11, 60, 17.735906422282, 17.735859425773,
                                      0.122181993627, 0.239260557589, 17.756110579380},
                                     {2, 37, 23, 3, 42.128021398894, 42.127888715298,
                                      0.988088498283, 0.992540649848, 42.094073102804},
                                     {1, 128, 192, 25, 24.984587260544, 24.984587260544,
                                      0.848173044830, 0.900822615467, 24.984587260544}};

TEST(FrameMetrics, AgreeWithScikitImage) {
  // The golden numbers carry 12 decimals. fp64 sums of 121 products up to 255^2 differ by less than
  // 121 * 2^-53 * 65025 = 1e-9 from one order of summation to another; over C2 = 58.5 that is 2e-11.
  constexpr double kTolerance = 1e-10;
  for (const Golden& g : kGolden) {
    const Clip a = pattern(g.frames, g.height, g.width, 0);
    const Clip b = pattern(g.frames, g.height, g.width, g.noise);
    EXPECT_NEAR(score("psnr", a, b).mean, g.psnr, kTolerance);
    EXPECT_NEAR(score("psnr", a, b).per_frame.back(), g.last_psnr, kTolerance);
    EXPECT_NEAR(score("psnr_mse", a, b).mean, g.psnr_mse, kTolerance);
    EXPECT_NEAR(score("ssim_gauss11", a, b).mean, g.gauss11, kTolerance);
    EXPECT_NEAR(score("ssim_uniform7", a, b).mean, g.uniform7, kTolerance);
  }
}

class EveryFrameMetric : public testing::TestWithParam<std::string> {
 protected:
  const FrameMetricEntry& entry() const { return find_frame_metric(GetParam()); }
  int side() const { return std::max(24, entry().least_side); }

  // A metric that is not built must say so; then there is nothing else to test.
  bool missing() const {
    if (entry().not_built.empty()) return false;
    const Clip clip = pattern(4, side(), side(), 0);
    EXPECT_NE(message_of(GetParam(), clip, clip).find("not built"), std::string::npos);
    return true;
  }
};

TEST_P(EveryFrameMetric, DeclaresItselfInFull) {
  EXPECT_FALSE(entry().spec.unit.empty() || entry().spec.help.empty() ||
               entry().spec.formula.empty());
  EXPECT_GE(entry().least_side, 1);
}

TEST_P(EveryFrameMetric, MeanIsThatOfTheValuesAndThreadsDoNotMatter) {
  if (missing()) return;
  const Clip a = pattern(9, side(), side() + 8, 0);
  const Clip b = pattern(9, side(), side() + 8, 12);
  const FrameScore one = score(GetParam(), a, b, 1);
  ASSERT_EQ(one.per_frame.size(),
            entry().of_pairs ? (9U - 1U) / static_cast<unsigned>(one.step) : 9U);
  for (const int threads : {0, 2, 16}) {
    const FrameScore other = score(GetParam(), a, b, threads);
    EXPECT_EQ(other.per_frame, one.per_frame);
    EXPECT_EQ(other.reference_per_frame, one.reference_per_frame);
    EXPECT_EQ(other.mean, one.mean);
    EXPECT_EQ(other.also, one.also);
  }
  if (GetParam() == "psnr_mse") return;
  double sum = 0.0;
  for (const double value : one.per_frame) sum += value;
  EXPECT_EQ(one.mean, sum / static_cast<double>(one.per_frame.size()));
}

TEST_P(EveryFrameMetric, WorsensWithNoise) {
  if (missing()) return;
  const Clip clean = pattern(3, side(), side() + 8, 0);
  const double some = score(GetParam(), clean, pattern(3, side(), side() + 8, 5)).mean;
  const double more = score(GetParam(), clean, pattern(3, side(), side() + 8, 40)).mean;
  EXPECT_NE(some, more);
  if (entry().spec.better == Better::neither) return;
  EXPECT_EQ(entry().spec.better == Better::higher, some > more) << some << ", " << more;
}

TEST_P(EveryFrameMetric, FrameMetricsAreSymmetric) {
  if (entry().of_pairs) return;  // those follow the reference's motion
  const Clip clean = pattern(2, side(), side() + 8, 0);
  const Clip noisy = pattern(2, side(), side() + 8, 5);
  EXPECT_NEAR(score(GetParam(), clean, noisy).mean, score(GetParam(), noisy, clean).mean, 1e-12);
}

TEST_P(EveryFrameMetric, RefusesOtherShapes) {
  const Clip a = pattern(4, side(), side(), 0);
  for (const Clip& other : {pattern(3, side(), side(), 0), pattern(4, side(), side() + 1, 0),
                            pattern(4, side() + 1, side(), 0)}) {
    const std::string message = message_of(GetParam(), a, other);
    EXPECT_NE(message.find("differ in shape"), std::string::npos) << message;
  }
  EXPECT_THROW(score_frames(entry(), {}, {}), Error);
}

TEST_P(EveryFrameMetric, RefusesTooSmallFramesAndSingleFrames) {
  if (missing()) return;
  const int least = entry().least_side;
  const Clip smallest = pattern(4, least, least, 3);
  EXPECT_NO_THROW(score(GetParam(), smallest, smallest));
  const Clip one = pattern(1, least, least, 0);
  if (entry().of_pairs) {
    EXPECT_NE(message_of(GetParam(), one, one).find("at least 2"), std::string::npos);
  } else {
    EXPECT_NO_THROW(score(GetParam(), one, one));
  }
  if (least == 1) return;
  for (const Clip& small : {pattern(4, least - 1, least, 0), pattern(4, least, least - 1, 0)}) {
    const std::string message = message_of(GetParam(), small, small);
    EXPECT_NE(message.find("at least " + std::to_string(least)), std::string::npos) << message;
    EXPECT_THROW(score(GetParam(), small, small), Unsupported);
  }
}

TEST_P(EveryFrameMetric, NoValueIsLostOnIdenticalClips) {
  if (missing()) return;
  const Clip clip = pattern(5, side(), side(), 20);
  const FrameScore result = score(GetParam(), clip, clip);
  int finite = 0;
  for (const double value : result.per_frame) finite += std::isfinite(value) ? 1 : 0;
  EXPECT_EQ(finite + result.infinite + result.undefined, static_cast<int>(result.per_frame.size()));
  EXPECT_EQ(std::isfinite(result.mean), finite > 0);
}

std::vector<std::string> frame_metric_names() {
  std::vector<std::string> names;
  for (const auto& entry : frame_metric_registry()) names.emplace_back(entry.spec.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryFrameMetric, testing::ValuesIn(frame_metric_names()),
                         [](const auto& test) { return test.param; });

TEST(FrameMetrics, IdenticalFramesAreInfinitePsnrAndFullSsim) {
  const Clip clip = pattern(3, 16, 16, 0);
  for (const char* name : {"psnr", "psnr_mse"}) {
    const FrameScore result = score(name, clip, clip);
    EXPECT_EQ(result.infinite, 3) << name;
    EXPECT_TRUE(std::isnan(result.mean)) << name;
    EXPECT_TRUE(std::isinf(result.per_frame[0])) << name;
  }
  EXPECT_NEAR(score("ssim_gauss11", clip, clip).mean, 1.0, 1e-12);
  EXPECT_NEAR(score("ssim_uniform7", clip, clip).mean, 1.0, 1e-12);
}

TEST(FrameMetrics, OneIdenticalFrameIsCountedAndLeftOutOfTheMean) {
  const Clip a = pattern(2, 16, 16, 0);
  Clip b = a;
  for (std::size_t i = 768; i < b.rgb.size(); ++i) b.rgb[i] ^= 1U;  // frame 1: every byte off by 1
  const FrameScore result = score("psnr", a, b);
  EXPECT_EQ(result.infinite, 1);
  EXPECT_NEAR(result.mean, 20.0 * std::log10(255.0), 1e-12);
  // As one signal the squared error is 1/2 on average: 3.01 dB more.
  EXPECT_NEAR(score("psnr_mse", a, b).mean, 20.0 * std::log10(255.0) + 10.0 * std::log10(2.0),
              1e-12);
}

TEST(FrameMetrics, ExtremesHaveClosedForms) {
  Clip black = pattern(1, 16, 16, 0);
  std::fill(black.rgb.begin(), black.rgb.end(), std::uint8_t{0});
  Clip white = black;
  std::fill(white.rgb.begin(), white.rgb.end(), std::uint8_t{255});
  EXPECT_EQ(score("psnr", black, white).mean, 0.0);
  // Flat frames: SSIM = C1 / (255^2 + C1) = 0.0001 / 1.0001.
  EXPECT_NEAR(score("ssim_gauss11", black, white).mean, 1e-4 / 1.0001, 1e-12);
  EXPECT_NEAR(score("ssim_uniform7", black, white).mean, 1e-4 / 1.0001, 1e-12);
}

TEST(FrameMetrics, ChannelsWeighTheSame) {
  const Clip a = pattern(1, 16, 16, 0);
  std::vector<double> means;
  for (std::size_t channel = 0; channel < 3; ++channel) {
    Clip b = a;
    Clip reference = a;
    for (std::size_t i = 0; i < b.rgb.size(); i += 3) {
      for (std::size_t c = 0; c < 3; ++c) reference.rgb[i + c] = b.rgb[i + c] = a.rgb[i];
      b.rgb[i + channel] ^= 8U;
    }
    means.push_back(score("ssim_gauss11", reference, b).mean);
  }
  EXPECT_NEAR(means[0], means[1], 1e-12);
  EXPECT_NEAR(means[0], means[2], 1e-12);
}

TEST(FrameMetrics, ZeroPaddedSsimHasClosedFormsOnFlatFrames) {
  // 1 x 1 frame: the window's mean is v / 121, its mean square v^2 / 121.
  const Clip a = flat(1, 1, 1, 100);
  const Clip b = flat(1, 1, 1, 200);
  const double c1 = 2.55 * 2.55;
  const double c2 = 7.65 * 7.65;
  const double x = 100.0 / 121.0;
  const double y = 200.0 / 121.0;
  const double xx = 1e4 / 121.0 - x * x;
  const double yy = 4e4 / 121.0 - y * y;
  const double xy = 2e4 / 121.0 - x * y;
  const double expected =
      (2 * x * y + c1) * (2 * xy + c2) / ((x * x + y * y + c1) * (xx + yy + c2));
  EXPECT_NEAR(score("ssim_uniform11_zeropad", a, b).mean, expected, 1e-13);
  EXPECT_NEAR(score("ssim_uniform11_zeropad", a, a).mean, 1.0, 1e-13);
}

TEST(FrameMetrics, MultiScaleSsimHasClosedFormsOnFlatFrames) {
  // No contrast: every cs is 1, the last scale is the luminance term to the power 0.1333.
  const double luminance = (2 * 100.0 * 200.0 + 6.5025) / (1e4 + 4e4 + 6.5025);
  EXPECT_NEAR(score("ms_ssim", flat(1, 161, 161, 100), flat(1, 161, 161, 200)).mean,
              std::pow(luminance, 0.1333), 1e-12);
  const Clip clip = pattern(1, 163, 170, 9);
  EXPECT_NEAR(score("ms_ssim", clip, clip).mean, 1.0, 1e-12);
}

TEST(FrameMetrics, AnticorrelatedFramesScoreZeroInMultiScaleSsim) {
  Clip a = pattern(1, 176, 176, 0);
  Clip b = a;
  for (auto& value : b.rgb) value = static_cast<std::uint8_t>(255 - value);
  EXPECT_EQ(score("ms_ssim", a, b).mean, 0.0);
}

TEST(WorstPatch, IsWhereTheErrorIs) {
  const Clip a = flat(3, 80, 90, 100);
  Clip b = a;
  for (int y = 40; y < 72; ++y) {
    for (int x = 51; x < 83; ++x) b.at(1, y, x, 2) = 110;  // 32 x 32 pixels of blue
  }
  b.at(2, 0, 0, 0) = 101;
  const FrameScore result = score("psnr_worst_patch", a, b);
  EXPECT_EQ(result.infinite, 1);
  EXPECT_NEAR(result.per_frame[1], psnr_of(100.0 / 3.0), 1e-12);
  EXPECT_NEAR(result.per_frame[2], psnr_of(1.0 / (3.0 * 32.0 * 32.0)), 1e-12);
  const Patch& patch = result.patches[1];
  EXPECT_EQ(patch.x, 51);
  EXPECT_EQ(patch.y, 40);
  EXPECT_EQ(patch.width, 32);
  EXPECT_EQ(patch.height, 32);
  EXPECT_EQ(result.patches[2].x, 0);  // the first of many equal positions
  EXPECT_EQ(worst_frame(find_frame_metric("psnr_worst_patch"), result), 1);
}

TEST(WorstPatch, AgreesWithEveryPositionTriedAndIsTheWholeOfSmallFrames) {
  const Clip a = pattern(1, 37, 41, 0);
  const Clip b = pattern(1, 37, 41, 60);
  double worst = 0.0;
  for (int top = 0; top + 32 <= 37; ++top) {
    for (int left = 0; left + 32 <= 41; ++left) {
      double sum = 0.0;
      for (int i = 0; i < 32 * 32 * 3; ++i) {
        const int y = top + i / 96;
        const int x = left + i / 3 % 32;
        const double error = double(a.at(0, y, x, i % 3)) - b.at(0, y, x, i % 3);
        sum += error * error;
      }
      worst = std::max(worst, sum / (32 * 32 * 3));
    }
  }
  EXPECT_NEAR(score("psnr_worst_patch", a, b).mean, psnr_of(worst), 1e-12);
  const Clip small = pattern(2, 5, 31, 0);
  const Clip other = pattern(2, 5, 31, 9);
  EXPECT_EQ(score("psnr_worst_patch", small, other).per_frame,
            score("psnr", small, other).per_frame);
}

TEST(WorstFrame, FollowsTheDirectionOfTheMetric) {
  FrameScore result;
  result.per_frame = {3.0, 1.0, std::nan(""), INFINITY, 7.0, 1.0};
  EXPECT_EQ(worst_frame(find_frame_metric("psnr"), result), 1);
  EXPECT_EQ(worst_frame(find_frame_metric("warp_error"), result), 4);
  result.reference_per_frame = {0.0, 1.0, 1.0, 1.0, 6.0, 1.0};
  EXPECT_EQ(worst_frame(find_frame_metric("flicker"), result), 0);  // |3 - 0| > |7 - 6|
  result.per_frame = {INFINITY, std::nan("")};
  EXPECT_EQ(worst_frame(find_frame_metric("psnr"), result), -1);
}

TEST(Means, LeaveOutAndCountWhatIsNotFinite) {
  const FrameScore result = mean_over_frames({1.0, INFINITY, 3.0, std::nan(""), INFINITY});
  EXPECT_EQ(result.mean, 2.0);
  EXPECT_EQ(result.infinite, 2);
  EXPECT_EQ(result.undefined, 1);
  EXPECT_TRUE(std::isnan(mean_over_frames({std::nan("")}).mean));
}

TEST(EachFrame, RethrowsFromThreads) {
  const auto fails = [](int frame) -> double {
    if (frame == 5) throw Error("frame 5");
    return 0.0;
  };
  EXPECT_THROW(each_frame(8, 4, fails), Error);
}

}  // namespace
}  // namespace raingauge
