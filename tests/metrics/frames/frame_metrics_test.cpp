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

namespace raingauge {
namespace {

struct Clip {
  int frames, height, width;
  std::vector<std::uint8_t> rgb;

  ClipView view() const { return {rgb.data(), frames, height, width}; }
};

// A smooth pattern plus a hashed offset in [-noise, noise], clamped: the same integers as the
// Python that made the golden numbers.
Clip pattern(int frames, int height, int width, int noise) {
  Clip clip{frames, height, width, {}};
  std::uint64_t index = 0;
  for (int t = 0; t < frames; ++t)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        for (int c = 0; c < 3; ++c, ++index) {
          auto hash = static_cast<std::uint32_t>(index * 2654435761ULL + 12345ULL);
          hash ^= hash >> 15U;
          hash *= 2246822519U;
          hash ^= hash >> 13U;
          const int offset = static_cast<int>(hash % static_cast<unsigned>(2 * noise + 1)) - noise;
          const int base = (7 * t + 3 * y + 5 * x + 40 * c + x * y / 16) % 256;
          clip.rgb.push_back(static_cast<std::uint8_t>(std::clamp(base + offset, 0, 255)));
        }
  return clip;
}

FrameScore score(const std::string& name, const Clip& reference, const Clip& test,
                 int threads = 1) {
  return score_frames(find_frame_metric(name), reference.view(), test.view(), threads);
}

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

class EveryFrameMetric : public testing::TestWithParam<std::string> {};

TEST_P(EveryFrameMetric, DeclaresItselfInFull) {
  const FrameMetricEntry& entry = find_frame_metric(GetParam());
  EXPECT_FALSE(entry.spec.unit.empty() || entry.spec.help.empty() || entry.spec.formula.empty());
  EXPECT_NE(entry.spec.better, Better::neither);
  EXPECT_GE(entry.least_side, 1);
}

TEST_P(EveryFrameMetric, MeanIsThatOfTheFramesAndThreadsDoNotMatter) {
  const Clip a = pattern(9, 24, 32, 0);
  const Clip b = pattern(9, 24, 32, 12);
  const FrameScore one = score(GetParam(), a, b, 1);
  ASSERT_EQ(one.per_frame.size(), 9U);
  for (const int threads : {0, 2, 16}) {
    const FrameScore other = score(GetParam(), a, b, threads);
    EXPECT_EQ(other.per_frame, one.per_frame);
    EXPECT_EQ(other.mean, one.mean);
  }
  if (GetParam() == "psnr_mse") return;
  double sum = 0.0;
  for (const double value : one.per_frame) sum += value;
  EXPECT_EQ(one.mean, sum / 9.0);
}

TEST_P(EveryFrameMetric, IsSymmetricAndFallsWithNoise) {
  const Clip clean = pattern(2, 24, 32, 0);
  const Clip some = pattern(2, 24, 32, 5);
  const Clip more = pattern(2, 24, 32, 40);
  EXPECT_NEAR(score(GetParam(), clean, some).mean, score(GetParam(), some, clean).mean, 1e-12);
  EXPECT_GT(score(GetParam(), clean, some).mean, score(GetParam(), clean, more).mean);
}

TEST_P(EveryFrameMetric, RefusesOtherShapesAndTooSmallFrames) {
  const Clip a = pattern(2, 16, 16, 0);
  EXPECT_THROW(score(GetParam(), a, pattern(3, 16, 16, 0)), Error);
  EXPECT_THROW(score(GetParam(), a, pattern(2, 16, 17, 0)), Error);
  EXPECT_THROW(score_frames(find_frame_metric(GetParam()), {}, {}), Error);
  const int side = find_frame_metric(GetParam()).least_side;
  const Clip least = pattern(1, side, side, 0);
  EXPECT_NO_THROW(score(GetParam(), least, least));
  if (side > 1) {
    const Clip small = pattern(1, side - 1, 64, 0);
    EXPECT_THROW(score(GetParam(), small, small), Unsupported);
  }
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

TEST(EachFrame, RethrowsFromThreads) {
  const auto fails = [](int frame) -> double {
    if (frame == 5) throw Error("frame 5");
    return 0.0;
  };
  EXPECT_THROW(each_frame(8, 4, fails), Error);
}

}  // namespace
}  // namespace raingauge
