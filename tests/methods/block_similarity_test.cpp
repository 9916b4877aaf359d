// SPDX-License-Identifier: Apache-2.0
#include "methods/block_similarity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

// Cosines of all pairs, one by one.
double by_pairs(const std::vector<float>& x, int dim, const std::vector<std::vector<int>>& blocks) {
  double total = 0.0;
  int counted = 0;
  for (const auto& block : blocks) {
    if (block.size() < 2) continue;
    double sum = 0.0;
    int pairs = 0;
    for (const int i : block) {
      for (const int j : block) {
        if (i == j) continue;
        double dot = 0.0, a = 0.0, b = 0.0;
        for (int d = 0; d < dim; ++d) {
          dot += double(x[i * dim + d]) * x[j * dim + d];
          a += double(x[i * dim + d]) * x[i * dim + d];
          b += double(x[j * dim + d]) * x[j * dim + d];
        }
        sum += a > 0.0 && b > 0.0 ? dot / std::sqrt(a * b) : 0.0;
        ++pairs;
      }
    }
    total += sum / pairs;
    ++counted;
  }
  return total / counted;
}

TEST(BlockSimilarity, IsTheMeanCosineOfPairs) {
  constexpr int kTokens = 11;
  constexpr int kDim = 5;
  std::vector<float> x(kTokens * kDim);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = testing::gaussian(4, i);
  for (int d = 0; d < kDim; ++d) x[3 * kDim + d] = 0.0F;  // a zero vector is like nothing
  const auto view = contiguous_view(x.data(), DType::f32, 1, kTokens, kDim);
  const Orders order{1, kTokens, false, {10, 3, 1, 0, 2, 4, 5, 6, 7, 8, 9}};
  const Layout layout{1, 4, {0, 4, 4, 5, 11}};  // of 4, none, one and 6 tokens
  EXPECT_NEAR(block_similarity(view, 0, order, layout),
              by_pairs(x, kDim, {{10, 3, 1, 0}, {}, {2}, {4, 5, 6, 7, 8, 9}}), 1e-6);
}

TEST(BlockSimilarity, EqualTokensAreOneAndLonelyOnesNothing) {
  const std::vector<float> x = {1, 2, 2, 4, 3, 6};
  const auto view = contiguous_view(x.data(), DType::f32, 1, 3, 2);
  EXPECT_NEAR(block_similarity(view, 0, {1, 3, true, {}}, {1, 1, {0, 3}}), 1.0, 1e-6);
  EXPECT_TRUE(std::isnan(block_similarity(view, 0, {1, 3, true, {}}, {1, 3, {0, 1, 2, 3}})));
}

}  // namespace
}  // namespace raingauge
