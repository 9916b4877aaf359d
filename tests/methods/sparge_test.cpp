// SPDX-License-Identifier: Apache-2.0
// SpargeAttn against its definition (released get_block_map_meansim), written out in double with the
// full Gram matrix and explicit sorting.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/error.h"
#include "methods/registry.h"
#include "methods/self_similarity.h"
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

struct Blocks {
  Matrix means;
  std::vector<bool> good;
};

Blocks summarise(const Matrix& tokens, std::size_t block, double threshold) {
  Blocks blocks;
  for (std::size_t first = 0; first < tokens.size(); first += block) {
    const std::size_t last = std::min(first + block, tokens.size());
    std::vector<double> mean(tokens[0].size(), 0.0);
    double pairs = 0.0;
    for (std::size_t a = first; a < last; ++a) {
      for (std::size_t c = 0; c < mean.size(); ++c) mean[c] += tokens[a][c] / double(last - first);
      for (std::size_t b = first; b < last; ++b) {
        pairs += dot(tokens[a], tokens[b]) /
                 std::sqrt(dot(tokens[a], tokens[a]) * dot(tokens[b], tokens[b]));
      }
    }
    blocks.means.push_back(mean);
    const double similarity = pairs / (double(last - first) * double(last - first));
    blocks.good.push_back(last - first == block && similarity > threshold);
  }
  return blocks;
}

void smooth(Matrix& keys) {
  std::vector<double> mean(keys[0].size(), 0.0);
  for (const auto& key : keys) {
    for (std::size_t c = 0; c < mean.size(); ++c) mean[c] += key[c] / double(keys.size());
  }
  for (auto& key : keys) {
    for (std::size_t c = 0; c < mean.size(); ++c) key[c] -= mean[c];
  }
}

struct Setting {
  std::size_t block_q = 128, block_k = 64;
  double gate = -0.1, topk = -1.0, cdf = -1.0;
  bool sink = false;
};

std::vector<std::vector<std::int32_t>> expected_lists(const RecordView& record, std::int64_t head,
                                                      const Setting& s) {
  const Matrix queries = rows_of(record.q, head);
  Matrix keys = rows_of(record.k, head);
  smooth(keys);
  const Blocks q = summarise(queries, s.block_q, s.gate);
  const Blocks k = summarise(keys, s.block_k, s.gate);
  std::vector<std::vector<std::int32_t>> lists;
  for (std::size_t i = 0; i < q.means.size(); ++i) {
    std::vector<std::pair<double, std::int32_t>> ranked;
    double total = 0.0;
    for (std::size_t j = 0; j < k.means.size(); ++j) {
      const double weight =
          k.good[j] ? std::exp(dot(q.means[i], k.means[j]) / std::sqrt(double(record.head_dim())))
                    : 0.0;
      total += weight;
      ranked.emplace_back(-weight, static_cast<std::int32_t>(j));
    }
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::size_t count = 0;
    if (s.topk > 0.0) {
      count = static_cast<std::size_t>(float(s.topk) * float(ranked.size()));
    } else {
      double sum = 0.0;
      for (const auto& [weight, j] : ranked) {
        sum -= weight / total;
        if (sum <= s.cdf) ++count;
      }
    }
    count = std::max<std::size_t>(count, 1);
    std::vector<std::int32_t> list;
    for (std::size_t j = 0; j < k.means.size(); ++j) {
      const bool taken = std::any_of(ranked.begin(), ranked.begin() + std::ptrdiff_t(count),
                                     [&](const auto& r) { return std::size_t(r.second) == j; });
      if (taken || !k.good[j] || !q.good[i] || (s.sink && j == 0)) {
        list.push_back(static_cast<std::int32_t>(j));
      }
    }
    lists.push_back(std::move(list));
  }
  return lists;
}

Plan plan_of(const RecordView& record, const json& params) {
  State state;
  return make_method("sparge", params)->plan(record, state);
}

void expect_lists(const Plan& plan, std::int64_t head,
                  const std::vector<std::vector<std::int32_t>>& expected) {
  ASSERT_EQ(static_cast<std::size_t>(plan.q_blocks.blocks), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto* list = plan.lists.begin(head, std::int64_t(i));
    const std::vector<std::int32_t> got(list, list + plan.lists.count(head, std::int64_t(i)));
    EXPECT_EQ(got, expected[i]) << "query block " << i;
  }
}

// Tokens that wander slowly, so that some blocks are alike and others are not.
NoiseRecord wandering(std::int64_t text) {
  NoiseRecord record(video_then_text(4, 16, 16, text), 2, 32, 77, DType::f32);
  const auto tokens = record.info().tokens;
  for (int tensor = 0; tensor < 2; ++tensor) {
    auto* values = reinterpret_cast<float*>(record.bytes(tensor).data());
    for (std::int64_t t = 0; t < 2 * tokens; ++t) {
      const double loud = (t / 128) % 2 == 0 ? 0.3 : 2.5;
      for (std::int64_t c = 0; c < 32; ++c) {
        auto& value = values[t * 32 + c];
        value = static_cast<float>(
            loud * value + 1.2 * std::sin(0.003 * double(t) * double(c % 4 + 1) + double(c)));
      }
    }
  }
  return record;
}

TEST(Sparge, TopKAndTopPAreTheReleasedRule) {
  for (const std::int64_t text : {0, 37}) {
    const auto record = wandering(text);
    const auto view = record.view();
    for (const double gate : {-0.1, 0.25, 0.5, 0.7}) {
      const json common = {{"simthreshd1", gate}};
      for (const double topk : {0.05, 0.3, 0.5}) {
        json params = common;
        params["topk"] = topk;
        expect_lists(plan_of(view, params), 1, expected_lists(view, 1, {128, 64, gate, topk}));
      }
      for (const double cdf : {0.3, 0.9, 0.98}) {
        json params = common;
        params["cdfthreshd"] = cdf;
        params["attention_sink"] = true;
        expect_lists(plan_of(view, params), 0,
                     expected_lists(view, 0, {128, 64, gate, -1.0, cdf, true}));
      }
    }
  }
}

TEST(Sparge, HopperBlocksAreSixtyFourQueriesByOneHundredTwentyEightKeys) {
  const auto record = wandering(0);
  expect_lists(plan_of(record.view(), {{"preset", "sm90"}, {"topk", 0.4}}), 0,
               expected_lists(record.view(), 0, {64, 128, -0.1, 0.4}));
}

TEST(Sparge, TheGateSeparatesBlocksAndAtOneEverythingIsComputed) {
  const auto record = wandering(0);
  const auto open = measure_density(plan_of(record.view(), {{"topk", 0.1}, {"simthreshd1", -0.1}}));
  const auto half = measure_density(plan_of(record.view(), {{"topk", 0.1}, {"simthreshd1", 0.5}}));
  const auto shut = measure_density(plan_of(record.view(), {{"topk", 0.1}, {"simthreshd1", 1.0}}));
  EXPECT_LT(open.mean_pairs, half.mean_pairs);
  EXPECT_LT(half.mean_pairs, 1.0);
  EXPECT_EQ(shut.mean_pairs, 1.0);
}

TEST(Sparge, RaggedLastBlocksStayDense) {
  const auto record = wandering(37);
  const Plan plan = plan_of(record.view(), {{"topk", 0.1}});
  const auto rows = plan.q_blocks.blocks;
  const auto columns = plan.k_blocks.blocks;
  EXPECT_EQ(plan.lists.count(0, rows - 1), columns);
  for (std::int64_t i = 0; i < rows; ++i) EXPECT_TRUE(testing::keeps(plan, 0, i, columns - 1));
}

TEST(Sparge, SimilarityOfThePaperDividesByTheLargestProduct) {
  const auto record = wandering(0);
  const auto view = record.view();
  const Matrix keys = rows_of(view.k, 0);
  double pairs = 0.0, largest = 0.0;
  for (std::size_t a = 64; a < 128; ++a) {
    for (std::size_t b = 64; b < 128; ++b) {
      pairs += dot(keys[a], keys[b]);
      largest = std::max(largest, dot(keys[a], keys[b]));
    }
  }
  Orders order;
  order.tokens = view.tokens();
  const auto similarity = self_similarity(view.k, 0, order, uniform_layout(view.tokens(), 64),
                                          SimilarityMeasure::mean_over_max);
  EXPECT_NEAR(similarity[1], pairs / (64.0 * 64.0 * largest), 1e-9);
}

// One direction shared by all queries; the first key block lies far along it, every third one less far.
NoiseRecord sinking() {
  NoiseRecord record(video_then_text(4, 16, 16, 0), 1, 32, 78, DType::f32, 0.5);
  auto* q = reinterpret_cast<float*>(record.bytes(0).data());
  auto* k = reinterpret_cast<float*>(record.bytes(1).data());
  for (std::int64_t t = 0; t < record.info().tokens; ++t) {
    q[t * 32] += 3.0F;
    k[t * 32] += t < 64 ? 10.0F : t / 64 % 3 == 1 ? 8.0F : 0.0F;
  }
  return record;
}

TEST(Sparge, PvSkipDropsExactlyWhatTheKernelWouldSkip) {
  const auto record = sinking();
  const auto view = record.view();
  const json params = {{"topk", 0.6}};
  const Plan all = plan_of(view, params);
  json skipping = params;
  skipping["pvthreshd"] = 4.0;
  const Plan some = plan_of(view, skipping);
  check_plan(some);
  const Matrix q = rows_of(view.q, 0), k = rows_of(view.k, 0);
  const double scale = view.info->scale * std::log2(std::exp(1.0));
  std::int64_t dropped = 0;
  for (std::int64_t i = 0; i < all.q_blocks.blocks; ++i) {
    std::vector<double> running(128, -INFINITY);
    const auto count = all.lists.count(0, i);
    for (std::int64_t n = 0; n < count; ++n) {
      const auto j = all.lists.begin(0, i)[n];
      double gap = -INFINITY;
      for (int r = 0; r < 128; ++r) {
        double most = -INFINITY;
        for (int c = 0; c < 64; ++c) {
          most =
              std::max(most, scale * dot(q[std::size_t(128 * i + r)], k[std::size_t(64 * j + c)]));
        }
        gap = std::max(gap, most - running[std::size_t(r)]);
        running[std::size_t(r)] = std::max(running[std::size_t(r)], most);
      }
      const bool skip = n > 0 && n + 1 < count && gap + 4.0 <= 0.0;
      dropped += skip ? 1 : 0;
      EXPECT_EQ(testing::keeps(some, 0, i, j), !skip) << i << " " << j;
    }
  }
  EXPECT_GT(dropped, 0);
  skipping["pvthreshd"] = 50.0;  // the API's default changes nothing
  EXPECT_EQ(plan_fingerprint(plan_of(view, skipping)), plan_fingerprint(all));
}

TEST(Sparge, TopKAndTopPExcludeEachOther) {
  EXPECT_THROW(make_method("sparge", {{"topk", 0.5}, {"cdfthreshd", 0.9}}), ParamError);
}

TEST(Sparge, EitherKnobIsSolvedForADensity) {
  const auto record = wandering(0);
  for (const char* knob : {"topk", "cdfthreshd"}) {
    const Plan plan = plan_of(record.view(), {{knob, 0.9}, {"density", 0.3}});
    const double block_pair = 128.0 * 64.0 / (1024.0 * 1024.0);
    for (const double pairs : measure_density(plan).pairs) EXPECT_NEAR(pairs, 0.3, block_pair);
    EXPECT_EQ(plan.nominal_density, 0.3);
  }
}

}  // namespace
}  // namespace raingauge
