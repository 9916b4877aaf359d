// SPDX-License-Identifier: Apache-2.0
// Recall from log-sum-exps is the softmax mass that the plan keeps: against a float64 softmax written
// out, on 2,048 tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "methods/kernels/row_evaluator.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

std::vector<float> row_of(const TensorView& x, std::int64_t head, std::int64_t token) {
  std::vector<float> row(static_cast<std::size_t>(x.head_dim));
  convert_to_float(x.row(head, token), x.dtype, row.data(), row.size());
  return row;
}

TEST(Recall, ByLseEqualsExplicitSoftmaxOn2048Tokens) {
  const testing::NoiseRecord record(testing::video_then_text(8, 15, 17, 8), 1, 64, 31, DType::bf16,
                                    2.0);
  const RecordView view = record.view();
  const auto n = view.tokens();
  ASSERT_EQ(n, 2048);
  MethodOptions options;
  options.match = DensityMatch::measured;
  State state;
  const Plan plan = make_method("rainfusion2", {{"order", "window3d"}, {"density", 0.4}}, options)
                        ->plan(view, state);
  RowSample sample;
  sample.tokens.resize(static_cast<std::size_t>(n));
  std::iota(sample.tokens.begin(), sample.tokens.end(), 0);
  const auto dense = evaluate_rows(view, 0, sample, nullptr);
  const auto sparse = evaluate_rows(view, 0, sample, &plan);

  std::vector<std::vector<float>> keys;
  for (std::int64_t j = 0; j < n; ++j) keys.push_back(row_of(view.k, 0, j));
  double worst = 0.0;
  for (std::int64_t block = 0; block < plan.q_blocks.blocks; ++block) {
    std::vector<char> kept(static_cast<std::size_t>(n), 0);
    for (std::int64_t i = 0; i < plan.lists.count(0, block); ++i) {
      const auto column = plan.lists.begin(0, block)[i];
      for (auto p = plan.k_blocks.begin(0, column); p < plan.k_blocks.end(0, column); ++p) {
        kept[static_cast<std::size_t>(plan.k_order.token(0, p))] = 1;
      }
    }
    for (auto p = plan.q_blocks.begin(0, block); p < plan.q_blocks.end(0, block); ++p) {
      const auto token = plan.q_order.token(0, p);
      const auto q = row_of(view.q, 0, token);
      std::vector<double> score(static_cast<std::size_t>(n));
      for (std::size_t j = 0; j < score.size(); ++j) {
        for (std::size_t c = 0; c < q.size(); ++c) score[j] += double{q[c]} * double{keys[j][c]};
        score[j] *= view.info->scale;
      }
      const double top = *std::max_element(score.begin(), score.end());
      double all = 0.0;
      double mass = 0.0;
      for (std::size_t j = 0; j < score.size(); ++j) {
        all += std::exp(score[j] - top);
        mass += kept[j] != 0 ? std::exp(score[j] - top) : 0.0;
      }
      const auto row = static_cast<std::size_t>(token);
      const double recall = std::exp(sparse.lse[row] - dense.lse[row]);
      worst = std::max(worst, std::abs(recall - mass / all));
    }
  }
  // An fp32 score is off by at most 64 * 2^-24 * sum|q k| / 8, about 8e-5 at sum|q k| = 160; the signs
  // of 64 roundings are random, so a quarter of that bound leaves room.
  EXPECT_LE(worst, 2e-5);
}

}  // namespace
}  // namespace raingauge
