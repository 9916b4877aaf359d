// SPDX-License-Identifier: Apache-2.0
// k-means against a naive float64 version, and the order made from it under every block method.
#include "methods/kmeans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "data/error.h"
#include "methods/arrangement.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using testing::NoiseRecord;
using testing::video_then_text;

std::vector<std::int32_t> first_tokens(std::int64_t count) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

std::vector<std::vector<float>> rows_of(const TensorView& x, std::int64_t head) {
  std::vector<std::vector<float>> rows;
  for (std::int64_t t = 0; t < x.tokens; ++t) {
    rows.emplace_back(static_cast<std::size_t>(x.head_dim));
    convert_to_float(x.row(head, t), x.dtype, rows.back().data(), rows.back().size());
  }
  return rows;
}

double squared_distance(const std::vector<float>& a, const float* b) {
  double sum = 0.0;
  for (std::size_t c = 0; c < a.size(); ++c) sum += (double{a[c]} - b[c]) * (double{a[c]} - b[c]);
  return sum;
}

// Writes 4 well separated groups into Q: token t belongs to group t % 4.
void plant_groups(NoiseRecord& record) {
  auto& bytes = record.bytes(0);
  const auto d = static_cast<std::size_t>(record.info().head_dim);
  const auto rows = bytes.size() / (2 * d);
  for (std::size_t row = 0; row < rows; ++row) {
    const auto token = row % static_cast<std::size_t>(record.info().tokens);
    std::vector<float> values(d);
    convert_to_float(bytes.data() + row * d * 2, DType::bf16, values.data(), d);
    for (auto& value : values) value *= 0.01F;
    values[token % 4] += 10.0F;
    convert_from_float(values.data(), bytes.data() + row * d * 2, DType::bf16, d);
  }
}

TEST(KMeans, OneIterationLabelsEveryPointWithItsNearestStart) {
  const NoiseRecord record(video_then_text(2, 9, 11, 0), 2, 24, 3, DType::f32);
  const auto tokens = first_tokens(198);
  const auto view = record.view();
  const std::vector<ClusterPoints> heads = {{view.q, 0, tokens, 7}, {view.q, 1, tokens, 8}};
  KMeansSpec spec;
  spec.clusters = 13;
  spec.iterations = 1;
  spec.tolerance = 0.0;
  // The start: the same draw with no update is what `start` hands over.
  std::vector<std::vector<float>> start;
  for (int h = 0; h < 2; ++h) {
    std::vector<float> centroids;
    const auto rows = rows_of(view.q, h);
    for (std::size_t j = 0; j < 13; ++j) {
      centroids.insert(centroids.end(), rows[j * 7].begin(), rows[j * 7].end());
    }
    start.push_back(centroids);
  }
  const auto result = kmeans(heads, spec, start);
  for (std::size_t h = 0; h < 2; ++h) {
    const auto rows = rows_of(view.q, static_cast<std::int64_t>(h));
    std::vector<std::vector<double>> sums(13, std::vector<double>(24, 0.0));
    std::vector<int> counts(13, 0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      double best = INFINITY;
      for (std::size_t j = 0; j < 13; ++j) {
        best = std::min(best, squared_distance(rows[i], start[h].data() + j * 24));
      }
      const auto label = static_cast<std::size_t>(result[h].labels[i]);
      // fp32 distances of about 50: a tie may go either way within their rounding.
      EXPECT_NEAR(squared_distance(rows[i], start[h].data() + label * 24), best, 1e-4);
      ++counts[label];
      for (std::size_t c = 0; c < 24; ++c) sums[label][c] += rows[i][c];
    }
    for (std::size_t j = 0; j < 13; ++j) {
      EXPECT_EQ(result[h].sizes[j], counts[j]);
      for (std::size_t c = 0; c < 24 && counts[j] > 0; ++c) {
        EXPECT_NEAR(result[h].centroids[j * 24 + c], sums[j][c] / counts[j], 1e-6);
      }
    }
  }
}

TEST(KMeans, FindsPlantedGroupsAndStopsEarly) {
  NoiseRecord record(video_then_text(2, 8, 8, 0), 1, 16, 4);
  plant_groups(record);
  const auto view = record.view();
  const auto tokens = first_tokens(128);
  KMeansSpec spec;
  spec.clusters = 24;  // several draws fall into each group
  spec.iterations = 50;
  const std::vector<ClusterPoints> points = {{view.q, 0, tokens, 1}};
  const auto clusters = kmeans(points, spec).at(0);
  EXPECT_LT(clusters.iterations, 50);
  std::vector<std::set<std::size_t>> groups(24);
  for (std::size_t i = 0; i < 128; ++i) {
    groups[static_cast<std::size_t>(clusters.labels[i])].insert(i % 4);
  }
  for (const auto& group : groups) EXPECT_LE(group.size(), 1U);
}

TEST(KMeans, DoesNotDependOnThreadsAndKeepsEmptyClusters) {
  const NoiseRecord record(video_then_text(3, 16, 20, 0), 3, 16, 5);
  const auto view = record.view();
  const auto tokens = first_tokens(960);
  std::vector<ClusterPoints> heads;
  for (int h = 0; h < 3; ++h) heads.push_back({view.k, h, tokens, std::uint64_t(h)});
  KMeansSpec spec;
  spec.clusters = 40;
  spec.iterations = 6;
  spec.threads = 1;
  const auto one = kmeans(heads, spec);
  spec.threads = 4;
  const auto four = kmeans(heads, spec);
  for (std::size_t h = 0; h < 3; ++h) {
    EXPECT_EQ(one[h].labels, four[h].labels);
    EXPECT_EQ(one[h].centroids, four[h].centroids);
  }
  // Far away from every point: never chosen, never moved.
  std::vector<std::vector<float>> start = {std::vector<float>(std::size_t(40 * 16), 0.0F)};
  std::fill_n(start[0].begin() + 16, 16, 1e3F);
  const std::vector<ClusterPoints> first = {heads[0]};
  const auto kept = kmeans(first, spec, start).at(0);
  EXPECT_EQ(kept.sizes[1], 0);
  EXPECT_EQ(kept.centroids[16], 1e3F);
}

TEST(KMeans, RefusesPointsThatAreNotFinite) {
  NoiseRecord record(video_then_text(2, 4, 4, 0), 1, 16, 6);
  record.bytes(0)[1] = 0x7f;
  record.bytes(0)[0] = char(0xc0);  // NaN
  const auto view = record.view();
  const auto tokens = first_tokens(32);
  KMeansSpec spec;
  spec.clusters = 2;
  spec.iterations = 1;
  const std::vector<ClusterPoints> points = {{view.q, 0, tokens, 1}};
  EXPECT_THROW(kmeans(points, spec), NotFinite);
}

TEST(KMeansOrder, QueriesAndKeysOfEveryHeadGetABijectionThatLeavesTextAndFrameZeroAlone) {
  const auto segments = video_then_text(4, 8, 10, 12);
  const NoiseRecord record(segments, 2, 16, 7);
  ArrangementSpec spec;
  spec.order = {{"name", "kmeans"}, {"params", {{"clusters", 9}, {"iterations", 4}}}};
  spec.block_q = spec.block_k = 32;
  const auto arrangement = arrange(segments, 332, spec);
  const auto orders = token_orders(record.view(), arrangement, spec, 2);
  ASSERT_EQ(orders.q.rows, 2);
  EXPECT_NE(orders.q.index, orders.k.index);
  for (const Orders* order : {&orders.q, &orders.k}) {
    for (std::int64_t head = 0; head < 2; ++head) {
      std::vector<std::int32_t> sorted(order->row(head), order->row(head) + 332);
      for (std::int64_t p = 240; p < 332; ++p) {  // frame 0, then text
        EXPECT_EQ(order->token(head, p), arrangement.order.token(0, p));
      }
      std::sort(sorted.begin(), sorted.end());
      EXPECT_EQ(sorted, first_tokens(332));
    }
  }
}

TEST(KMeansOrder, WorksUnderEveryScoreAndBudgetOfTheBlockRecipe) {
  const NoiseRecord record(video_then_text(4, 12, 12, 8), 2, 16, 8, DType::bf16, 2.0);
  MethodOptions options;
  options.match = DensityMatch::measured;
  for (const char* method : {"rainfusion2", "oracle_row", "oracle_head", "random"}) {
    State state;
    const Plan plan =
        make_method(method,
                    {{"order", "kmeans"}, {"block", 32}, {"density", 0.4}, {"sink", "cols"}},
                    options)
            ->plan(record.view(), state);
    check_plan(plan);
    EXPECT_EQ(plan.q_order.rows, 2) << method;
    for (const double density : measure_density(plan).pairs) EXPECT_NEAR(density, 0.4, 4e-3);
  }
  State state;
  EXPECT_THROW(
      make_method("rainfusion2", {{"order", "kmeans"}, {"frame0", "in_place"}, {"sink", "both"}})
          ->plan(record.view(), state),
      Unsupported);
}

}  // namespace
}  // namespace raingauge
