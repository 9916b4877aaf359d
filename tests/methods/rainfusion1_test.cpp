// SPDX-License-Identifier: Apache-2.0
// RainFusion v1 against its released rule, the block densities that its rounding gives, and planted
// heads of all three kinds.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "data/error.h"
#include "methods/rainfusion1_sampling.h"
#include "methods/registry.h"
#include "tests/methods/planted.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::keeps;
using testing::NoiseRecord;
using testing::text_then_video;
using testing::video_then_text;

Plan plan_of(const RecordView& view, const json& params,
             DensityMatch match = DensityMatch::nominal) {
  MethodOptions options;
  options.match = match;
  State state;
  Plan plan = make_method("rainfusion1", params, options)->plan(view, state);
  check_plan(plan);
  return plan;
}

const PlanNote& note(const Plan& plan, const std::string& name) {
  for (const auto& each : plan.notes) {
    if (each.name == name) return each;
  }
  throw Error("no note " + name);
}

// Head 0 attends its own frame, head 1 its own place in all frames, head 2 sixteen hot keys.
NoiseRecord planted(const Segments& segments, int height, int width) {
  NoiseRecord record(segments, 3, 64, 41);
  const auto frame = std::int64_t{height} * width;
  testing::plant(record, 14.0F, [=](std::int64_t head, std::int64_t token) {
    if (head == 0) return token / frame;
    if (head == 1) return token % frame / 4 % 64;
    return std::int64_t{0};
  });
  // Head 2: keys spread over places and frames are hot, the others are cold.
  auto& keys = record.bytes(1);
  const auto d = std::size_t{64};
  const auto tokens = record.info().tokens;
  for (std::int64_t token = 0; token < tokens; ++token) {
    std::vector<float> row(d, 0.0F);
    row[0] = mix64(std::uint64_t(token)) % 64 == 0 ? 14.0F : 0.0F;
    convert_from_float(row.data(), keys.data() + std::size_t(2 * tokens + token) * d * 2,
                       DType::bf16, d);
  }
  return record;
}

TEST(RainFusion1, RecognisesPlantedHeads) {
  const NoiseRecord record = planted(video_then_text(9, 16, 16, 0), 16, 16);
  const Plan two = plan_of(record.view(), {{"preset", "rf1-prod"}, {"block", 32}});
  EXPECT_EQ(note(two, "kind").words[0], "global");
  EXPECT_EQ(note(two, "kind").words[1], "local");
  const Plan three = plan_of(record.view(), {{"preset", "rf1-paper"}, {"block", 32}});
  EXPECT_EQ(note(three, "kind").words, (std::vector<std::string>{"global", "local", "textural"}));
  EXPECT_GT(note(three, "recall_global").numbers[0], 0.99);
  EXPECT_GT(note(three, "recall_local").numbers[1], 0.99);
}

TEST(RainFusion1, RainFusionPlusTakesTheSmallestBandThatReachesAlpha) {
  const NoiseRecord record = planted(video_then_text(9, 16, 16, 0), 16, 16);
  const Plan plus = plan_of(record.view(), {{"preset", "rf1-plus"}, {"block", 32}});
  EXPECT_EQ(note(plus, "bandwidth").numbers[1], 0.125);
  EXPECT_TRUE(std::isnan(note(plus, "bandwidth").numbers[2]));
  EXPECT_TRUE(std::isnan(plus.nominal_density));
  EXPECT_THROW(plan_of(record.view(), {{"preset", "rf1-plus"}}, DensityMatch::measured),
               Unsupported);
}

// Block counts of the released rule on Wan 480p, sparsity 0.64: the two roundings differ.
TEST(RainFusion1, BlockDensitiesOfWan480p) {
  const auto density_of = [](bool local) {
    // Head attends its place (local) or its frame (global).
    NoiseRecord record(video_then_text(21, 30, 52, 0), 1, 64, 42);
    testing::plant(record, 14.0F, [&](std::int64_t, std::int64_t token) {
      return local ? token % 1560 / 26 : token / 1560;
    });
    const Plan plan = plan_of(record.view(), {{"sparsity", 0.64}});
    EXPECT_EQ(note(plan, "kind").words[0], local ? "local" : "global");
    const std::int64_t rest = (31200 + 127) / 128;
    double kept = 0.0;
    for (std::int64_t i = 0; i < rest; ++i) {
      for (std::int64_t n = 0; n < plan.lists.count(0, i); ++n) {
        kept += plan.lists.begin(0, i)[n] < rest ? 1.0 : 0.0;
      }
    }
    return std::pair{kept / double(rest * rest), measure_density(plan).mean_pairs};
  };
  const auto local = density_of(true);
  const auto global = density_of(false);
  EXPECT_NEAR(local.first, 0.298, 6e-4);
  EXPECT_NEAR(global.first, 0.352, 6e-4);
  EXPECT_NEAR(local.second, 0.363, 1e-3);
  EXPECT_NEAR(global.second, 0.412, 1e-3);
}

TEST(RainFusion1, MasksEqualTheReleasedRule) {
  // keep (i, j) iff |i - j| <= pb - 1 on the non-sink part; the tail (text, frame 0) on both sides.
  const NoiseRecord record = planted(video_then_text(9, 16, 16, 0), 16, 16);
  const Plan plan = plan_of(record.view(), {{"block", 32}, {"sparsity", 0.5}});
  const double b = 0.29;  // round(1 - sqrt(0.5), 2)
  const std::int64_t rest = 8 * 256 / 32;
  for (std::int64_t head = 0; head < 2; ++head) {
    const std::int64_t positions =
        head == 0 ? std::int64_t(b * 2048) / 32 * 32 : std::int64_t(b * 256) / 32 * 8 * 32;
    for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
      for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
        const bool tail = i >= rest || j >= rest;
        EXPECT_EQ(keeps(plan, head, i, j), tail || std::abs(i - j) <= positions / 32 - 1)
            << "head " << head << ": " << i << ", " << j;
      }
    }
  }
  // Frames 1 … 8 first, then frame 0; a local head by patches.
  for (std::int64_t p = 0; p < 2048; ++p) {
    ASSERT_EQ(plan.q_order.token(0, p), 256 + p);
    ASSERT_EQ(plan.q_order.token(1, p), 256 * (1 + p % 8) + p / 8);
  }
  for (std::int64_t p = 0; p < 256; ++p) ASSERT_EQ(plan.q_order.token(0, 2048 + p), p);
}

TEST(RainFusion1, TexturalHeadsAttendACheckerboardOfExactDensity) {
  const auto parts = rf1::parts_of(video_then_text(5, 16, 24, 8));
  for (const int stride : {2, 3, 4}) {
    std::size_t first = 0;
    const auto keys = rf1::checkerboard(parts, stride, &first);
    EXPECT_EQ(keys.size(), parts.raster.size());
    EXPECT_EQ(std::set<std::int32_t>(keys.begin(), keys.end()).size(), keys.size());
    if (stride != 3) {
      EXPECT_EQ(first * std::size_t(stride), keys.size());
    }
    for (std::size_t i = 0; i < first; ++i) {
      const int place = keys[i] % 384;
      EXPECT_EQ((place / 24) % stride, (place % 24) % stride);
    }
  }
  const NoiseRecord record = planted(video_then_text(9, 16, 16, 0), 16, 16);
  const Plan plan = plan_of(record.view(), {{"preset", "rf1-paper"}, {"block", 32}});
  ASSERT_EQ(note(plan, "kind").words[2], "textural");
  // Half the keys of frames 1 … 8 and frame 0, for every query but those of frame 0.
  const double rest = 2048.0, all = 2304.0;
  EXPECT_NEAR(measure_density(plan).pairs[2], (rest * (rest / 2 + 256) + 256 * all) / (all * all),
              1e-12);
}

TEST(RainFusion1, BandOneIsDenseOnlyWithoutTheShippedRounding) {
  const NoiseRecord record = planted(video_then_text(5, 15, 13, 4), 15, 13);
  const Plan exact =
      plan_of(record.view(), {{"density", 1.0}, {"rounding", "exact"}, {"block", 32}});
  EXPECT_EQ(measure_density(exact).mean_pairs, 1.0);
  const Plan shipped = plan_of(record.view(), {{"density", 1.0}, {"block", 32}});
  EXPECT_LT(measure_density(shipped).mean_pairs, 1.0);
}

TEST(RainFusion1, TextStandsInTheProtectedTailWhereverItIsInTheRecord) {
  const NoiseRecord record(text_then_video(5, 8, 8, 10), 1, 16, 43);
  const Plan plan = plan_of(record.view(), {{"block", 16}, {"density", 0.6}});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(plan.q_order.token(0, 256 + i), i);
  EXPECT_EQ(plan.q_order.token(0, 266), 10);  // frame 0
}

TEST(RainFusion1, ABandThatRoundsToNothingIsRefused) {
  const NoiseRecord record(video_then_text(5, 8, 8, 0), 1, 16, 44);
  EXPECT_THROW(plan_of(record.view(), json::object()), Unsupported);
}

// The sampled recall against a float64 softmax.
TEST(RainFusion1, SampledRecallIsTheMassInsideTheBand) {
  const NoiseRecord record(video_then_text(3, 20, 20, 0), 1, 32, 45, DType::bf16, 2.0);
  rf1::Tokens tokens;
  for (int i = 0; i < 400; ++i) tokens.push_back(400 + i);
  const auto row = [&](const TensorView& x, std::int64_t t) {
    std::vector<float> values(32);
    convert_to_float(x.row(0, t), x.dtype, values.data(), 32);
    return values;
  };
  double inside = 0.0;
  for (int i = 0; i < 400; ++i) {
    double all = 0.0, band = 0.0;
    const auto q = row(record.view().q, 400 + i);
    for (int j = 0; j < 400; ++j) {
      const auto k = row(record.view().k, 400 + j);
      double dot = 0.0;
      for (std::size_t c = 0; c < 32; ++c) dot += double{q[c]} * k[c];
      const double p = std::exp(dot / std::sqrt(32.0));
      all += p;
      band += std::abs(i - j) <= 60 ? p : 0.0;
    }
    inside += band / all;
  }
  // fp32 scores of up to 30 are off by 32 * 2^-24 * 30, so is each mass, relatively.
  EXPECT_NEAR(rf1::band_recall(record.view(), 0, tokens, 60), inside / 400, 6e-5);
}

}  // namespace
}  // namespace raingauge
