// SPDX-License-Identifier: Apache-2.0
// Jenga against its definition, and its block adjacency against the averages of the released neighbour
// tables.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/error.h"
#include "methods/adjacency.h"
#include "methods/orders/registry.h"
#include "methods/pooling.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::NoiseRecord;
using testing::video_segment;
using testing::video_then_text;

ForcedBlocks neighbours(const std::string& order_name, int frames, int height, int width) {
  OrderRequest request;
  request.frames = frames;
  request.height = height;
  request.width = width;
  Orders order;
  order.tokens = std::int64_t{frames} * height * width;
  order.identity = false;
  order.index = make_order(order_name, request).index;
  const auto layout = uniform_layout(order.tokens, 128);
  ForcedBlocks forced{layout.blocks, layout.blocks,
                      std::vector<std::uint8_t>(std::size_t(layout.blocks * layout.blocks), 0)};
  force_neighbours({video_segment(0, frames, height, width)}, 0, order, order, layout, layout,
                   forced);
  return forced;
}

double mean_neighbours(const ForcedBlocks& forced) {
  return std::accumulate(forced.mask.begin(), forced.mask.end(), 0.0) / double(forced.rows);
}

TEST(Jenga, AdjacencyAveragesOfTheThreeReferenceGrids) {
  EXPECT_NEAR(mean_neighbours(neighbours("gilbert", 32, 45, 80)), 18.7, 0.05);
  EXPECT_NEAR(mean_neighbours(neighbours("gilbert_sliced", 21, 45, 80)), 16.3, 0.05);
  EXPECT_NEAR(mean_neighbours(neighbours("gilbert_sliced", 21, 30, 52)), 13.5, 0.05);
}

TEST(Jenga, AdjacencyIsEveryPairOfTouchingTokens) {
  const int frames = 3, height = 9, width = 10;
  const auto forced = neighbours("gilbert", frames, height, width);
  OrderRequest request;
  request.frames = frames;
  request.height = height;
  request.width = width;
  const auto index = make_order("gilbert", request).index;
  std::vector<std::uint8_t> expected(forced.mask.size(), 0);
  for (std::size_t a = 0; a < index.size(); ++a) {
    for (std::size_t b = 0; b < index.size(); ++b) {
      const auto far = [&](int stride, int side) {
        return std::abs(index[a] / stride % side - index[b] / stride % side) > 1;
      };
      if (far(1, width) || far(width, height) || far(width * height, frames)) continue;
      expected[(a / 128) * std::size_t(forced.columns) + b / 128] = 1;
    }
  }
  EXPECT_EQ(forced.mask, expected);
}

struct Expected {
  double drop = 0.75, p = 0.3;
  bool adjacency = true;
};

// One head in double: softmax over video blocks, max(top-k, #(cumulative <= p) + 1), unions.
std::vector<std::vector<bool>> expected_rows(const RecordView& record, const Plan& plan,
                                             std::int64_t video, const Expected& e) {
  const auto nb = plan.k_blocks.blocks;
  const auto video_blocks = (video + 127) / 128;
  const auto d = record.head_dim();
  std::vector<float> q(std::size_t(nb * d)), k(std::size_t(nb * d));
  pool_blocks(record.q, 0, plan.q_order, plan.q_blocks, q.data(), nullptr, 1);
  pool_blocks(record.k, 0, plan.k_order, plan.k_blocks, k.data(), nullptr, 1);
  ForcedBlocks near{nb, nb, std::vector<std::uint8_t>(std::size_t(nb * nb), 0)};
  if (e.adjacency) {
    force_neighbours(record.info->segments, 0, plan.q_order, plan.k_order, plan.q_blocks,
                     plan.k_blocks, near);
  }
  const auto top_k = static_cast<std::size_t>((1.0 - e.drop) * double(video_blocks));
  std::vector<std::vector<bool>> rows;
  for (std::int64_t i = 0; i < nb; ++i) {
    if (i >= video_blocks) {
      rows.emplace_back(std::size_t(nb), true);
      continue;
    }
    std::vector<std::pair<double, std::size_t>> ranked;
    double total = 0.0;
    for (std::int64_t j = 0; j < video_blocks; ++j) {
      double product = 0.0;
      for (std::int64_t c = 0; c < d; ++c) {
        product += double{q[std::size_t(i * d + c)]} * double{k[std::size_t(j * d + c)]};
      }
      ranked.emplace_back(std::exp(product / std::sqrt(double(d))), std::size_t(j));
      total += ranked.back().first;
    }
    std::sort(ranked.rbegin(), ranked.rend());
    std::size_t count = 1;
    double sum = 0.0;
    for (const auto& [weight, j] : ranked) {
      sum += weight / total;
      if (sum <= e.p) ++count;
    }
    count = std::min(std::max(count, top_k), ranked.size());
    std::vector<bool> row(std::size_t(nb), false);
    for (std::size_t n = 0; n < count; ++n) row[ranked[n].second] = true;
    for (std::int64_t j = 0; j < nb; ++j) {
      if (near.at(i, j) || j >= video_blocks) row[std::size_t(j)] = true;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

Plan plan_of(const RecordView& record, const json& params) {
  State state;
  return make_method("jenga", params)->plan(record, state);
}

TEST(Jenga, KeepsTheLargerOfTopKAndTopPAndWhatTouchesAndText) {
  const NoiseRecord record(video_then_text(6, 16, 16, 200), 1, 32, 50, DType::f32, 4.0);
  for (const double p : {0.0, 0.3, 0.8}) {
    for (const bool adjacency : {true, false}) {
      const Plan plan = plan_of(record.view(), {{"preset", "hunyuan"},
                                                {"p_remain_rates", p},
                                                {"sa_drop_rates", {0.8, 0.9}},
                                                {"adjacency", adjacency}});
      const auto expected = expected_rows(record.view(), plan, 6 * 256, {0.8, p, adjacency});
      for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
        for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
          EXPECT_EQ(testing::keeps(plan, 0, i, j), expected[std::size_t(i)][std::size_t(j)])
              << p << " " << i << " " << j;
        }
      }
    }
  }
}

TEST(Jenga, TheStepDecidesTheRate) {
  NoiseRecord record(video_then_text(6, 16, 16, 0), 1, 16, 51, DType::f32);
  const json params = {
      {"p_remain_rates", 0.0}, {"sa_drop_rates", {0.5, 0.9}}, {"adjacency", false}};
  const auto blocks_at = [&](int step) {
    record.info().site.step = step;
    return plan_of(record.view(), params).lists.count(0, 3);
  };
  EXPECT_EQ(blocks_at(0), 6);
  EXPECT_EQ(blocks_at(24), 6);
  EXPECT_EQ(blocks_at(25), 1);
  EXPECT_EQ(blocks_at(49), 1);
}

TEST(Jenga, HunyuanRefusesARaggedTailAndWanAttendsDenselyAtLowRates) {
  const NoiseRecord ragged(video_then_text(3, 9, 11, 5), 1, 16, 52);
  EXPECT_THROW(plan_of(ragged.view(), {{"preset", "hunyuan"}}), Unsupported);
  EXPECT_NO_THROW(plan_of(ragged.view(), {{"preset", "fixed"}}));
  EXPECT_EQ(measure_density(plan_of(ragged.view(), {{"preset", "wan"}, {"sa_drop_rates", 0.25}}))
                .mean_pairs,
            1.0);
}

TEST(Jenga, WanFirstBlocksKeepEachOther) {
  const NoiseRecord record(video_then_text(22, 16, 16, 0), 1, 16, 53, DType::f32, 3.0);
  const json params = {
      {"preset", "wan"}, {"sa_drop_rates", 0.9}, {"p_remain_rates", 0.0}, {"adjacency", false}};
  const Plan plan = plan_of(record.view(), params);  // 44 blocks: the first 2
  for (const int i : {0, 1}) {
    for (const int j : {0, 1}) EXPECT_TRUE(testing::keeps(plan, 0, i, j));
  }
  json off = params;
  off["first_frame"] = false;
  EXPECT_LT(measure_density(plan_of(record.view(), off)).mean_pairs,
            measure_density(plan).mean_pairs + 1e-12);
}

TEST(Jenga, SolvesBothRatesByOneFactor) {
  const NoiseRecord record(video_then_text(16, 16, 16, 8), 2, 32, 54, DType::f32, 3.0);
  for (const double density : {0.5, 0.7}) {
    const Plan plan = plan_of(record.view(), {{"density", density}});
    const double n = double(record.view().tokens());
    for (const double pairs : measure_density(plan).pairs) {
      EXPECT_NEAR(pairs, density, 128.0 * 128.0 / (n * n));
    }
  }
  EXPECT_THROW(plan_of(record.view(), {{"density", 0.02}}), Infeasible);
}

}  // namespace
}  // namespace raingauge
