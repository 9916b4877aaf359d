// SPDX-License-Identifier: Apache-2.0
// XAttention and MindIE's ada_bsa against their definitions, written out in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "methods/registry.h"
#include "methods/scores/antidiagonal.h"
#include "methods/scores/score.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::NoiseRecord;
using testing::video_then_text;
using Matrix = std::vector<std::vector<double>>;

Matrix rows_of(const TensorView& x, std::int64_t head) {
  Matrix rows;
  std::vector<float> row(static_cast<std::size_t>(x.head_dim));
  for (std::int64_t t = 0; t < x.tokens; ++t) {
    convert_to_float(x.row(head, t), x.dtype, row.data(), row.size());
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// Sum of one antidiagonal: query tokens aS..aS+S-1 last to first against key tokens bS..bS+S-1.
double antidiagonal_sum(const Matrix& q, const Matrix& k, std::size_t a, std::size_t b,
                        std::size_t stride) {
  double sum = 0.0;
  for (std::size_t j = 0; j < stride; ++j) {
    const std::size_t query = a * stride + stride - 1 - j;
    const std::size_t key = b * stride + j;
    if (query < q.size() && key < k.size()) sum += dot(q[query], k[key]);
  }
  return sum;
}

// [query blocks][key blocks] block sums of the strided softmax; `q_groups` x `k_groups` groups.
Matrix estimate(const RecordView& record, std::int64_t head, std::size_t stride,
                std::size_t k_groups, double scale) {
  const Matrix q = rows_of(record.q, head), k = rows_of(record.k, head);
  const std::size_t per_block = 128 / stride;
  const std::size_t q_groups = (q.size() + stride - 1) / stride;
  Matrix sums((q.size() + 127) / 128,
              std::vector<double>((k_groups + per_block - 1) / per_block, 0.0));
  for (std::size_t a = 0; a < q_groups; ++a) {
    std::vector<double> weights;
    for (std::size_t b = 0; b < k_groups; ++b) {
      weights.push_back(std::exp(scale / double(stride) * antidiagonal_sum(q, k, a, b, stride)));
    }
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (std::size_t b = 0; b < k_groups; ++b) {
      sums[a / per_block][b / per_block] += weights[b] / total;
    }
  }
  return sums;
}

std::vector<std::size_t> ranked(const std::vector<double>& row) {
  std::vector<std::size_t> order(row.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return row[a] > row[b]; });
  return order;
}

void expect_rows(const Plan& plan, std::int64_t head,
                 const std::vector<std::vector<bool>>& expected) {
  for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
    for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
      EXPECT_EQ(testing::keeps(plan, head, i, j), expected[std::size_t(i)][std::size_t(j)])
          << i << " " << j;
    }
  }
}

std::vector<std::vector<bool>> keep_to_threshold(const Matrix& sums, double threshold) {
  std::vector<std::vector<bool>> kept;
  for (const auto& row : sums) {
    const double wanted = threshold * std::accumulate(row.begin(), row.end(), 0.0);
    std::vector<bool> keep(row.size(), false);
    double before = 0.0;
    for (const auto j : ranked(row)) {
      if (before < wanted) keep[j] = true;
      before += row[j];
    }
    keep[0] = true;
    kept.push_back(std::move(keep));
  }
  return kept;
}

Plan plan_of(const std::string& method, const RecordView& record, const json& params) {
  State state;
  return make_method(method, params)->plan(record, state);
}

TEST(XAttention, ReshapedAndReversedGroupsGiveTheAntidiagonalSums) {
  const NoiseRecord record(video_then_text(1, 16, 16, 0), 1, 16, 40, DType::f32);
  const auto view = record.view();
  const Matrix q = rows_of(view.q, 0), k = rows_of(view.k, 0);
  Orders order;
  order.tokens = 256;
  const auto layout = uniform_layout(256, 128);
  const auto queries = group_tokens(view.q, 0, order, layout, 8, true, GroupTail::padded);
  const auto keys = group_tokens(view.k, 0, order, layout, 8, false, GroupTail::padded);
  ASSERT_EQ(queries.count(), 32);
  for (std::int64_t a = 0; a < 32; ++a) {
    for (std::int64_t b = 0; b < 32; ++b) {
      const double product =
          std::inner_product(queries.row(a), queries.row(a) + queries.width, keys.row(b), 0.0);
      EXPECT_NEAR(product, antidiagonal_sum(q, k, std::size_t(a), std::size_t(b), 8), 1e-4);
    }
  }
}

TEST(XAttention, KeepsBlocksToTheThreshold) {
  // 3 x 160 + 37 tokens: the last block and the last group are ragged.
  const NoiseRecord record(video_then_text(3, 16, 10, 37), 2, 32, 41, DType::f32, 2.5);
  const auto view = record.view();
  const auto groups = std::size_t((view.tokens() + 7) / 8);
  for (const double threshold : {0.3, 0.6, 0.9}) {
    expect_rows(plan_of("xattention", view, {{"threshold", threshold}}), 1,
                keep_to_threshold(estimate(view, 1, 8, groups, 1 / std::sqrt(32.0)), threshold));
  }
}

TEST(XAttention, ShippedPadsWithZeroKeysUpToTheChunk) {
  const NoiseRecord record(video_then_text(3, 16, 10, 37), 1, 32, 42, DType::f32, 2.5);
  const auto view = record.view();
  for (const int stride : {8, 16}) {
    const auto padded =
        estimate(view, 0, std::size_t(stride), std::size_t(2048 / stride), 1 / std::sqrt(32.0));
    const Plan plan = plan_of("xattention", view,
                              {{"preset", "shipped"}, {"threshold", 0.4}, {"stride", stride}});
    expect_rows(plan, 0, keep_to_threshold(padded, 0.4));
    const Plan masked = plan_of("xattention", view, {{"threshold", 0.4}, {"stride", stride}});
    EXPECT_NE(plan_fingerprint(plan), plan_fingerprint(masked)) << "the padding should matter here";
  }
}

TEST(XAttention, TheFirstKeyBlockIsAlwaysKept) {
  const NoiseRecord record(video_then_text(4, 16, 16, 0), 1, 32, 43, DType::f32, 3.0);
  const Plan plan = plan_of("xattention", record.view(), {{"threshold", 0.1}});
  for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
    EXPECT_TRUE(testing::keeps(plan, 0, i, 0));
  }
}

// The kernel's rule over one row of estimates (sparse_block_estimate.h, ScoreCompute).
std::vector<bool> guarded(std::vector<double> row, double tau, double cap) {
  const std::size_t n = row.size();
  std::vector<double> ranking = row;
  ranking.front() = ranking.back() = 0.0;
  const double total = std::accumulate(ranking.begin(), ranking.end(), 0.0);
  std::sort(ranking.rbegin(), ranking.rend());
  double reached = double(n), guard = 0.0, sum = 0.0;
  for (std::size_t i = 0; tau < 1.0 && i < n; ++i) {
    sum += ranking[i];
    guard = ranking[i];
    reached = double(i);
    if (sum >= tau * total) break;
  }
  if (reached > double(n) * cap && n >= 10) guard = ranking[std::size_t(double(n) * cap) - 1];
  std::vector<bool> keep;
  for (const double value : row) keep.push_back(value > guard - 1e-5);
  keep.front() = keep.back() = true;
  return keep;
}

TEST(AdaBsa, IsTheReleasedKernelsRule) {
  // 12 blocks, the last ragged, and a key tail of 5 tokens that no group takes.
  const NoiseRecord record(video_then_text(5, 16, 18, 21), 2, 32, 44, DType::f32, 2.0);
  const auto view = record.view();
  ASSERT_EQ(view.tokens() % 8, 5);
  auto sums = estimate(view, 1, 8, std::size_t(view.tokens() / 8), view.info->scale);
  for (auto& row : sums) row.resize(std::size_t((view.tokens() + 127) / 128), 0.0);
  for (const auto& [tau, cap] :
       {std::pair{1.0, 0.5}, {1.0, 0.25}, {0.5, 1.0}, {0.9, 1.0}, {0.9, 0.5}, {1.0, 1.0}}) {
    std::vector<std::vector<bool>> expected;
    for (const auto& row : sums) expected.push_back(guarded(row, tau, cap));
    SCOPED_TRACE(std::to_string(tau) + " " + std::to_string(cap));
    expect_rows(plan_of("ada_bsa", view, {{"cdf_threshold", tau}, {"density", cap}}), 1, expected);
  }
}

TEST(AdaBsa, SparsityIsTheirRowCapAndTheDefaultIsDense) {
  const NoiseRecord record(video_then_text(5, 16, 16, 0), 1, 16, 45, DType::f32);
  EXPECT_EQ(measure_density(plan_of("ada_bsa", record.view(), json::object())).mean_pairs, 1.0);
  const Plan plan = plan_of("ada_bsa", record.view(), {{"sparsity", 0.6}});
  for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
    EXPECT_GE(plan.lists.count(0, i), 4);  // int(10 * 0.4) ranked blocks
    EXPECT_LE(plan.lists.count(0, i), 6);  // and the two that are always kept
  }
}

}  // namespace
}  // namespace raingauge
