// SPDX-License-Identifier: Apache-2.0
#include "data/demo/positions.h"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "data/demo/sampler.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

// Every token holds the same vector before its rotation.
at::Tensor rotated_copies(std::uint64_t seed, const Positions& positions) {
  const int64_t tokens = positions.rotation.size(1);
  const at::Tensor x = gaussian_noise(seed, {1, 1, 1, kHeadDim}).expand({1, tokens, 1, kHeadDim});
  return normalise_and_rotate(x, positions.rotation).squeeze(2).squeeze(0);  // [N, 64]
}

TEST(Positions, ScoresDependOnTheDifferenceOfPlacesAlone) {
  const int frames = 5, rows = 4, columns = 6;
  const Positions positions = make_positions(full_view(frames, rows, columns), at::kCPU);
  const at::Tensor scores = at::matmul(rotated_copies(1, positions).to(at::kDouble),
                                       rotated_copies(2, positions).to(at::kDouble).t());
  std::map<std::tuple<int, int, int>, std::pair<double, double>> ranges;
  const int video = frames * rows * columns;
  const auto place = [&](int n) {
    return std::tuple(n / (rows * columns), n / columns % rows, n % columns);
  };
  const auto* score = scores.const_data_ptr<double>();
  for (int q = 0; q < video; ++q) {
    for (int k = 0; k < video; ++k) {
      const auto [qf, qy, qx] = place(q);
      const auto [kf, ky, kx] = place(k);
      const double value = score[q * scores.size(1) + k];
      auto [found, fresh] = ranges.try_emplace({qf - kf, qy - ky, qx - kx}, value, value);
      found->second = {std::min(found->second.first, value), std::max(found->second.second, value)};
    }
  }
  // |q| |k| = 64; angles of up to 5 radians are known to 5 * 2^-24, sines and products add 4 more.
  const double tolerance = 64.0 * 2 * (5 + 4) * 0x1p-24;
  double least = 1e9, most = -1e9;
  for (const auto& [difference, range] : ranges) {
    EXPECT_LE(range.second - range.first, tolerance);
    least = std::min(least, range.first);
    most = std::max(most, range.second);
  }
  EXPECT_GT(most - least, 10.0) << "the place hardly matters";
}

TEST(Positions, RotationKeepsTheLength) {
  const Positions positions = make_positions(full_view(3, 4, 5), at::kCPU);
  const at::Tensor x = rotated_copies(4, positions);
  EXPECT_LE(max_difference(x.norm(2, 1), at::full({x.size(0)}, 8.0)), 1e-4);  // sqrt(64)
}

TEST(Positions, TextIsNotRotated) {
  const Positions positions = make_positions(full_view(2, 3, 4), at::kCPU);
  ASSERT_EQ(positions.rotation.size(1), 2 * 3 * 4 + kTextTokens);
  const at::Tensor text = positions.rotation.narrow(1, 24, kTextTokens);
  EXPECT_TRUE(at::view_as_real(text).select(-1, 0).eq(1.0).all().item<bool>());
  EXPECT_TRUE(at::view_as_real(text).select(-1, 1).eq(0.0).all().item<bool>());
}

TEST(Positions, SubsetOfFramesKeepsItsTimes) {
  const Positions all = make_positions(full_view(21, 3, 4), at::kCPU);
  const Positions some = make_positions(View{{0, 5, 20}, 3, 4}, at::kCPU);
  const int64_t frame = 3 * 4;
  for (const auto& [index, number] : {std::pair{0, 0}, {1, 5}, {2, 20}}) {
    EXPECT_TRUE(some.rotation.narrow(1, index * frame, frame)
                    .equal(all.rotation.narrow(1, number * frame, frame)));
    EXPECT_TRUE(some.features.narrow(0, index * frame, frame)
                    .equal(all.features.narrow(0, number * frame, frame)));
  }
  ASSERT_EQ(some.features.sizes(), (std::vector<int64_t>{3 * frame, kPositionFeatures}));
}

TEST(Positions, ModulusOfTheRotationIsAGain) {
  const at::Tensor x = gaussian_noise(6, {1, 2, 3, kHeadDim});
  const at::Tensor gain = at::linspace(0.5, 2.0, 3 * kHeadDim / 2).view({1, 1, 3, kHeadDim / 2});
  const at::Tensor rotation = at::complex(gain, at::zeros_like(gain));
  const at::Tensor unit = normalise_and_rotate(x, at::ones_like(rotation));
  const at::Tensor wanted = unit * gain.repeat_interleave(2, -1);
  EXPECT_LE(max_difference(normalise_and_rotate(x, rotation), wanted), 1e-5);
}

}  // namespace
}  // namespace raingauge::demo
