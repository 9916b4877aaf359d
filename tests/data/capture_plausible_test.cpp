// SPDX-License-Identifier: Apache-2.0
#include "data/capture_plausible.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>
#include <vector>

namespace raingauge {
namespace {

constexpr int kFrames = 3, kHeight = 10, kWidth = 12, kDim = 16;
constexpr int kTokens = kFrames * kHeight * kWidth;
const Segments kGrid{{Role::video, 0, kTokens, kFrames, kHeight, kWidth}};

// Keys with a common part, a part that changes smoothly over the grid, and noise.
std::vector<float> smooth_keys(double common) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  std::vector<float> k(kTokens * kDim);
  for (int t = 0; t < kTokens; ++t) {
    for (int c = 0; c < kDim; ++c) {
      const double wave = std::sin(0.3 * (t % kWidth) + 0.2 * (t / kWidth % kHeight) + c);
      k[static_cast<std::size_t>(t * kDim + c)] =
          static_cast<float>(common + wave + 0.2 * normal(random));
    }
  }
  return k;
}

// Rotates pairs (2j, 2j+1) by the column times 1, 1/2, 1/4 …
void rotate(std::vector<float>& k) {
  for (int t = 0; t < kTokens; ++t) {
    for (int j = 0; j < kDim / 2; ++j) {
      float* pair = &k[static_cast<std::size_t>(t * kDim + 2 * j)];
      const double angle = 2 * std::numbers::pi / kWidth * 3 * (t % kWidth) * std::pow(0.5, j);
      const double x = pair[0], y = pair[1];
      pair[0] = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
      pair[1] = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
    }
  }
}

TEST(CapturePlausible, KeysBeforeRotationKeepTheirMean) {
  std::vector<float> k = smooth_keys(2.0);
  EXPECT_GT(key_evidence(k, kDim, kGrid).least_mean_share.value(), 0.8);
  EXPECT_NE(oddities(key_evidence(k, kDim, kGrid)).find("RoPE"), std::string::npos);
  rotate(k);
  EXPECT_LT(key_evidence(k, kDim, kGrid).least_mean_share.value(), 0.3);
  EXPECT_EQ(oddities(key_evidence(k, kDim, kGrid)), "");
}

TEST(CapturePlausible, ShuffledTokensAreNotAlike) {
  std::vector<float> k = smooth_keys(0.0);
  const KeyEvidence ordered = key_evidence(k, kDim, kGrid);
  EXPECT_GT(ordered.neighbours.value(), 0.7);
  EXPECT_EQ(oddities(ordered), "");
  std::vector<int> order(kTokens);
  for (int t = 0; t < kTokens; ++t) order[static_cast<std::size_t>(t)] = t;
  std::shuffle(order.begin(), order.end(), std::mt19937(3));
  std::vector<float> shuffled;
  for (const int t : order)
    shuffled.insert(shuffled.end(), k.begin() + t * kDim, k.begin() + (t + 1) * kDim);
  const KeyEvidence evidence = key_evidence(shuffled, kDim, kGrid);
  EXPECT_LT(std::abs(evidence.neighbours.value()), 0.15);
}

TEST(CapturePlausible, RandomNumbersAreNoted) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> k(kTokens * 64);
  for (float& value : k) value = normal(random);
  EXPECT_NE(oddities(key_evidence(k, 64, kGrid)).find("no more alike"), std::string::npos);
}

TEST(CapturePlausible, SmallGridsAndConstantsSayNothing) {
  const std::vector<float> k(60 * kDim, 1.0F);
  const KeyEvidence small = key_evidence(k, kDim, {{Role::image, 0, 60, 1, 10, 6}});
  EXPECT_FALSE(small.neighbours || small.least_mean_share);
  EXPECT_EQ(oddities(small), "");
  const std::vector<float> zeros(kTokens * kDim, 0.0F);
  EXPECT_FALSE(std::isnan(key_evidence(zeros, kDim, kGrid).neighbours.value()));
}

}  // namespace
}  // namespace raingauge
