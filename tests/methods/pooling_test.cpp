// SPDX-License-Identifier: Apache-2.0
#include "methods/pooling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "data/error.h"
#include "methods/kernels/cpu/dispatch.h"
#include "tests/methods/kernels/cpu_test_support.h"

namespace raingauge {
namespace {

using test::Storage;
using test::Tensor;

TEST(PoolBlocks, MeansOfRandomBlocks) {
  const std::uint32_t seed = test::fresh_seed();
  std::mt19937 random(seed);
  int trial = 0;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const int dim : {3, 8, 64, 72, 128}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " trial " + std::to_string(trial));
      const bool per_head = trial % 2 == 0;
      Tensor x = test::make_tensor(dtype, 2, 700, dim, static_cast<Storage>(trial % 3));
      test::fill_normal(x, random);
      const Orders order = test::random_order(2, 700, per_head, random);
      const Layout layout = test::random_layout(2, 700, 9, !per_head, random);
      std::vector<std::uint8_t> valid(700, 1);
      for (std::size_t i = 0; i < 700; i += 4) {
        valid[i] = static_cast<std::uint8_t>(trial % 2);
      }
      std::vector<float> means(static_cast<std::size_t>(9 * dim), std::nanf(""));
      pool_blocks(x.view, 1, order, layout, means.data(), valid.data(), 1 + trial % 3);
      for (std::int64_t b = 0; b < 9; ++b) {
        for (std::int64_t c = 0; c < dim; ++c) {
          double sum = 0.0, absolute = 0.0;
          int count = 0;
          for (std::int32_t p = layout.begin(1, b); p < layout.end(1, b); ++p) {
            const std::int32_t token = order.token(1, p);
            if (valid[static_cast<std::size_t>(token)] != 0) {
              sum += x.at(1, token, c);
              absolute += std::abs(x.at(1, token, c));
              ++count;
            }
          }
          const double mean = count == 0 ? 0.0 : sum / count;
          // A sum of n terms is off by at most n u times the sum of magnitudes.
          const double allowed = count == 0 ? 0.0 : (count + 2) * 0x1p-24 * absolute / count;
          const auto got = static_cast<double>(means[static_cast<std::size_t>(b * dim + c)]);
          ASSERT_TRUE(std::abs(got - mean) <= allowed)
              << "block " << b << " column " << c << ": " << got << ", exact " << mean;
        }
      }
      ++trial;
    }
  }
}

TEST(PoolBlocks, SameBitsAtEveryLevel) {
  std::mt19937 random(test::fresh_seed());
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    Tensor x = test::make_tensor(dtype, 1, 300, 88);
    test::fill_normal(x, random);
    std::vector<const void*> rows;
    for (std::int64_t i = 0; i < 300; ++i) {
      rows.push_back(x.view.row(0, i));
    }
    std::vector<float> expected;
    for (const std::string& level : cpu::available_levels()) {
      std::vector<float> sums(88, 0.0F);
      cpu::level_ops(level).add_rows(dtype, 88, rows.data(), 300, sums.data());
      if (expected.empty()) {
        expected = sums;
      }
      EXPECT_EQ(sums, expected) << level;
    }
    EXPECT_NE(expected[0], 0.0F);
  }
}

TEST(PoolBlocks, SameBitsForAnyThreadCount) {
  std::mt19937 random(test::fresh_seed());
  Tensor x = test::make_tensor(DType::bf16, 1, 5000, 64);
  test::fill_normal(x, random);
  Orders order;
  order.tokens = 5000;
  const Layout layout = uniform_layout(5000, 128);
  std::vector<float> one(static_cast<std::size_t>(layout.blocks * 64)), many = one;
  pool_blocks(x.view, 0, order, layout, one.data(), nullptr, 1);
  pool_blocks(x.view, 0, order, layout, many.data(), nullptr, 3);
  EXPECT_EQ(one, many);
}

TEST(PooledScores, ProductsOfMeans) {
  const std::uint32_t seed = test::fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (const auto& [nq, nk, d] : {std::tuple{1, 1, 1}, {5, 17, 8}, {37, 130, 72}, {200, 300, 16}}) {
    std::vector<float> q(static_cast<std::size_t>(nq * d)), k(static_cast<std::size_t>(nk * d));
    for (auto* values : {&q, &k}) {
      for (float& value : *values) {
        value = normal(random);
      }
    }
    std::vector<float> scores(static_cast<std::size_t>(nq * nk), std::nanf("")), again = scores;
    pooled_scores(q.data(), nq, k.data(), nk, d, 0.37F, scores.data(), 1);
    pooled_scores(q.data(), nq, k.data(), nk, d, 0.37F, again.data(), 3);
    EXPECT_EQ(scores, again);
    for (std::size_t i = 0; i < static_cast<std::size_t>(nq); ++i) {
      for (std::size_t j = 0; j < static_cast<std::size_t>(nk); ++j) {
        double dot = 0.0, absolute = 0.0;
        for (std::size_t c = 0; c < static_cast<std::size_t>(d); ++c) {
          const double product = static_cast<double>(q[i * static_cast<std::size_t>(d) + c]) *
                                 static_cast<double>(k[j * static_cast<std::size_t>(d) + c]);
          dot += product;
          absolute += std::abs(product);
        }
        const double exact = dot * static_cast<double>(0.37F);
        const auto got = static_cast<double>(scores[i * static_cast<std::size_t>(nk) + j]);
        ASSERT_TRUE(std::abs(got - exact) <= (d + 2) * 0x1p-24 * absolute * 0.37)
            << i << ", " << j << ": " << got << ", exact " << exact;
      }
    }
  }
}

}  // namespace
}  // namespace raingauge
