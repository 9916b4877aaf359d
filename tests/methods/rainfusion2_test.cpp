// SPDX-License-Identifier: Apache-2.0
// RainFusion2.0 against its released rule written out naively, and the consequences that follow from
// it: forced rows and columns, real densities, refusals, text protection.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "data/error.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::keeps;
using testing::NoiseRecord;
using testing::text_then_video;
using testing::video_then_text;

Plan plan_of(const NoiseRecord& record, const json& params,
             DensityMatch match = DensityMatch::nominal, int threads = 1) {
  MethodOptions options;
  options.match = match;
  options.threads = threads;
  State state;
  Plan plan = make_method("rainfusion2", params, options)->plan(record.view(), state);
  check_plan(plan);
  return plan;
}

// keep = ceil(n (1 - s)); every block >= the keep-th largest stays; last text rows and columns, first
// frame rows and columns := 1; blocks beyond the sequence fall off.
std::vector<std::vector<bool>> released_rule(const std::vector<std::vector<float>>& probability,
                                             double sparsity, std::int64_t frame_tokens,
                                             std::int64_t text, std::int64_t executed) {
  const auto n = static_cast<std::int64_t>(probability.size());
  const auto keep = static_cast<std::size_t>(std::ceil(double(n) * (1.0 - sparsity)));
  const auto fb = (frame_tokens + 127) / 128;
  const auto tb = (text + 127) / 128;
  std::vector<std::vector<bool>> mask;
  for (std::int64_t i = 0; i < executed; ++i) {
    auto sorted = probability[std::size_t(i)];
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    std::vector<bool> row;
    for (std::int64_t j = 0; j < executed; ++j) {
      row.push_back(probability[std::size_t(i)][std::size_t(j)] >= sorted[keep - 1] || i < fb ||
                    j < fb || i >= n - tb || j >= n - tb);
    }
    mask.push_back(row);
  }
  return mask;
}

// Pooled probabilities in fp64 of [ordered video][text], video and text pooled apart.
std::vector<std::vector<float>> pooled_probability(const NoiseRecord& record, const Plan& plan,
                                                   std::int64_t video, std::int64_t text) {
  const RecordView view = record.view();
  const auto d = view.head_dim();
  const auto means = [&](const TensorView& x) {
    std::vector<std::vector<double>> out;
    for (const auto& [start, end] :
         {std::pair{std::int64_t{0}, video}, std::pair{video, video + text}}) {
      for (auto b = start; b < end; b += 128) {
        const auto last = std::min(b + 128, end);
        std::vector<double> mean(static_cast<std::size_t>(d), 0.0);
        for (auto p = b; p < last; ++p) {
          std::vector<float> row(static_cast<std::size_t>(d));
          convert_to_float(x.row(0, plan.q_order.token(0, p)), x.dtype, row.data(), row.size());
          for (std::size_t c = 0; c < row.size(); ++c) mean[c] += row[c] / double(last - b);
        }
        out.push_back(mean);
      }
    }
    return out;
  };
  const auto q = means(view.q);
  const auto k = means(view.k);
  std::vector<std::vector<float>> probability;
  for (const auto& qi : q) {
    std::vector<double> logits;
    for (const auto& kj : k) {
      double dot = 0.0;
      for (std::size_t c = 0; c < qi.size(); ++c) dot += qi[c] * kj[c];
      logits.push_back(dot * view.info->scale);
    }
    const double top = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (auto& l : logits) sum += l = std::exp(l - top);
    std::vector<float> row;
    for (const auto l : logits) row.push_back(static_cast<float>(l / sum));
    probability.push_back(row);
  }
  return probability;
}

TEST(RainFusion2, MasksEqualTheReleasedRuleForEveryAlignment) {
  // N_video % 128 = 0, 16, 80, 1 and 127; text before and after; sides divisible by 8 and not.
  struct Case {
    Segments segments;
    std::int64_t video, text;
  };
  const std::vector<Case> cases = {
      {video_then_text(2, 16, 24, 0), 768, 0},   {video_then_text(9, 8, 242, 60), 17424, 60},
      {text_then_video(4, 10, 10, 40), 400, 40}, {video_then_text(2, 8, 13, 200), 208, 200},
      {video_then_text(3, 13, 23, 8), 897, 8},   {text_then_video(3, 11, 31, 128), 1023, 128},
      {video_then_text(3, 11, 31, 0), 1023, 0},  {text_then_video(1, 16, 24, 30), 384, 30}};
  for (const auto& c : cases) {
    const NoiseRecord record(c.segments, 1, 16, 11, DType::f32);
    for (const double sparsity : {0.6, 0.7, 0.8}) {
      const Plan plan =
          plan_of(record, {{"preset", "mindie-v2"}, {"score", "fp32"}, {"sparsity", sparsity}});
      const auto video = std::find_if(c.segments.begin(), c.segments.end(),
                                      [](const Segment& s) { return s.visual(); });
      const auto expected =
          released_rule(pooled_probability(record, plan, c.video, c.text), 1.0 - (1.0 - sparsity),
                        video->frame_size(), c.text, plan.q_blocks.blocks);
      int differences = 0;
      for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
        for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
          differences += keeps(plan, 0, i, j) != expected[std::size_t(i)][std::size_t(j)] ? 1 : 0;
        }
      }
      EXPECT_EQ(differences, 0) << describe(c.segments) << " sparsity " << sparsity;
    }
  }
}

TEST(RainFusion2, RealDensityLiesInTheBoundsThatForcedBlocksImply) {
  // lo: every first-frame column is already among the best; hi: none is.
  struct Case {
    int frames, height, width;
    std::int64_t text;
    double sparsity, lo, hi;
  };
  for (const auto& c :
       {Case{21, 30, 52, 0, 0.6, 0.433, 0.481}, Case{21, 30, 52, 0, 0.8, 0.244, 0.292},
        Case{21, 30, 52, 0, 0.9, 0.147, 0.195}, Case{21, 45, 80, 0, 0.8, 0.240, 0.287},
        Case{33, 45, 80, 256, 0.8, 0.227, 0.260}}) {
    const NoiseRecord record(video_then_text(c.frames, c.height, c.width, c.text), 1, 8, 3);
    const Plan plan =
        plan_of(record, {{"preset", "mindie-v2"}, {"score", "fp32"}, {"sparsity", c.sparsity}});
    const double density = measure_density(plan).mean_blocks;
    EXPECT_GE(density, c.lo - 5e-4) << c.frames << "x" << c.height << "x" << c.width;
    EXPECT_LE(density, c.hi + 5e-4) << c.frames << "x" << c.height << "x" << c.width;
  }
}

TEST(RainFusion2, OneAlignedImageIsAllOnesAsReleasedAndSparseAsFixed) {
  const NoiseRecord record(video_then_text(1, 32, 32, 0), 2, 16, 5);
  EXPECT_EQ(measure_density(
                plan_of(record, {{"preset", "mindie-v2"}, {"score", "fp32"}, {"sparsity", 0.8}}))
                .mean_pairs,
            1.0);
  EXPECT_NEAR(measure_density(plan_of(record, {{"preset", "fixed"}, {"density", 0.5}})).mean_pairs,
              0.5, 0.02);
}

TEST(RainFusion2, ReleasedTextProtectionMissesWhatFixedProtects) {
  // N_video % 128 = 16 and 60 text tokens: pooled text block 137 has no executed block (bug kept).
  const NoiseRecord record(video_then_text(9, 8, 242, 60), 1, 16, 6);
  const Plan released =
      plan_of(record, {{"preset", "mindie-v2"}, {"score", "fp32"}, {"sparsity", 0.9}});
  EXPECT_LT(released.lists.count(0, released.q_blocks.blocks - 1), released.k_blocks.blocks);
  const Plan fixed = plan_of(record, {{"preset", "fixed"}, {"density", 0.35}});
  EXPECT_EQ(fixed.lists.count(0, fixed.q_blocks.blocks - 1), fixed.k_blocks.blocks);
}

TEST(RainFusion2, MatchedDensityIsTheSameForEverySinkAndOrder) {
  const NoiseRecord record(video_then_text(6, 18, 22, 8), 2, 16, 7);
  for (const char* sink : {"none", "rows", "cols", "both", "another_frame", "random_blocks"}) {
    for (const char* order : {"raster", "frame_window", "window3d", "gilbert"}) {
      const Plan plan =
          plan_of(record, {{"order", order}, {"sink", sink}, {"block", 64}, {"density", 0.45}},
                  DensityMatch::measured);
      const double tolerance = 64.0 * 64.0 / (double(plan.tokens) * double(plan.tokens));
      for (const double density : measure_density(plan).pairs) {
        EXPECT_NEAR(density, 0.45, tolerance) << sink << " " << order;
      }
    }
  }
}

TEST(RainFusion2, LayoutIsTheSameWhetherTheSinkIsOnOrOff) {
  const NoiseRecord record(video_then_text(4, 12, 12, 8), 1, 16, 8);
  const Plan off = plan_of(record, {{"sink", "none"}, {"density", 0.6}});
  const Plan on = plan_of(record, {{"sink", "both"}, {"density", 0.6}});
  EXPECT_EQ(off.q_order.index, on.q_order.index);
  EXPECT_EQ(off.q_blocks.offsets, on.q_blocks.offsets);
}

TEST(RainFusion2, PlansDoNotDependOnThreads) {
  const NoiseRecord record(video_then_text(5, 16, 16, 8), 3, 32, 9);
  const json params = {{"density", 0.4}};
  EXPECT_EQ(plan_fingerprint(plan_of(record, params, DensityMatch::measured, 1)),
            plan_fingerprint(plan_of(record, params, DensityMatch::measured, 3)));
}

TEST(RainFusion2, ASinkUnderAnOrderThatMixesFramesNeedsSegregatedFrameZero) {
  const NoiseRecord record(video_then_text(4, 16, 16, 0), 1, 16, 10);
  try {
    plan_of(record, {{"order", "window3d"}, {"frame0", "in_place"}, {"sink", "both"}});
    FAIL() << "not refused";
  } catch (const Unsupported& error) {
    EXPECT_NE(std::string(error.what()).find("segregated"), std::string::npos);
  }
}

TEST(RainFusion2, ReleasedIndexingNeedsFrameZeroInPlace) {
  EXPECT_THROW(make_method("rainfusion2", {{"preset", "mindie-v2"}, {"frame0", "segregated"}}),
               Error);
}

// SLA's selector subtracts the mean key before pooling, which moves every score of a row alike: at
// equal k it is RainFusion2.0 without permutation, sink and forced text.
TEST(RainFusion2, BareAndInRasterOrderItIsTheSelectorOfSla) {
  NoiseRecord record(video_then_text(4, 12, 16, 0), 2, 16, 14, DType::f32, 2.0);
  const json bare = {{"order", "raster"}, {"sink", "none"},       {"text", "none"},
                     {"block", 64},       {"frame0", "in_place"}, {"density", 0.3}};
  const Plan plan = plan_of(record, bare);
  auto* keys = reinterpret_cast<float*>(record.bytes(1).data());
  for (std::size_t head = 0; head < 2; ++head) {
    for (std::size_t c = 0; c < 16; ++c) {
      double mean = 0.0;
      for (std::size_t t = 0; t < 768; ++t) mean += keys[(head * 768 + t) * 16 + c] / 768.0;
      for (std::size_t t = 0; t < 768; ++t) {
        keys[(head * 768 + t) * 16 + c] -= static_cast<float>(mean);
      }
    }
  }
  const Plan smoothed = plan_of(record, bare);
  EXPECT_EQ(smoothed.lists.row_offsets, plan.lists.row_offsets);
  EXPECT_EQ(smoothed.lists.columns, plan.lists.columns);
  EXPECT_EQ(plan.lists.count(0, 0), 4);  // ceil(12 * 0.3)
}

#ifdef RAINGAUGE_WITH_TORCH
TEST(RainFusion2, FaithfulScoresKeepEveryTieOfTheirRounding) {
  // All keys alike: every pooled probability is the same bf16 number, so every block is kept.
  NoiseRecord record(video_then_text(2, 16, 24, 0), 1, 16, 12);
  auto& keys = record.bytes(1);
  for (std::size_t i = 0; i < keys.size(); i += 2) keys[i] = 0, keys[i + 1] = 0x3f;
  const Plan faithful = plan_of(record, {{"preset", "mindie-v2"}, {"sparsity", 0.8}});
  EXPECT_EQ(measure_density(faithful).mean_pairs, 1.0);
}

TEST(RainFusion2, FaithfulAndOwnArithmeticDifferInFewBlocks) {
  const NoiseRecord record(video_then_text(6, 24, 32, 0), 2, 64, 13, DType::bf16, 3.0);
  const Plan a = plan_of(record, {{"preset", "mindie-v2"}, {"sparsity", 0.7}});
  const Plan b = plan_of(record, {{"preset", "mindie-v2"}, {"score", "fp32"}, {"sparsity", 0.7}});
  int differences = 0;
  for (std::int64_t h = 0; h < 2; ++h) {
    for (std::int64_t i = 0; i < a.q_blocks.blocks; ++i) {
      for (std::int64_t j = 0; j < a.k_blocks.blocks; ++j)
        differences += keeps(a, h, i, j) != keeps(b, h, i, j);
    }
  }
  EXPECT_LT(differences, 0.1 * 2 * double(a.q_blocks.blocks * a.k_blocks.blocks));
}
#endif

}  // namespace
}  // namespace raingauge
