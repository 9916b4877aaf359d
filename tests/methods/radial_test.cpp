// SPDX-License-Identifier: Apache-2.0
// Radial Attention against its released mask rule written out on tokens, and the densities it gives.
#include <gtest/gtest.h>

#include <cmath>

#include "data/error.h"
#include "methods/registry.h"
#include "tests/methods/planted.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::keeps;
using testing::ShapeOnly;
using testing::video_then_text;

Plan plan_of(const ShapeOnly& record, const json& params,
             DensityMatch match = DensityMatch::nominal) {
  MethodOptions options;
  options.match = match;
  State state;
  Plan plan = make_method("radial", params, options)->plan(record.view, state);
  check_plan(plan);
  return plan;
}

int bit_length(int x) {
  int bits = 0;
  for (; x > 0; x /= 2) ++bits;
  return bits;
}

// One frame pair on tokens, its vote per block, or-ed into the mask of all blocks.
std::vector<std::vector<bool>> written_out(int frames, int frame, int block, double decay, bool wan,
                                           int tokens) {
  const int grid = tokens / block;
  const auto side = static_cast<std::size_t>(grid);
  std::vector<std::vector<bool>> mask(side, std::vector<bool>(side, false));
  const int border = frames * frame / block;
  for (int i = 0; i < grid; ++i) {
    for (int j = 0; j < grid; ++j)
      mask[std::size_t(i)][std::size_t(j)] = i >= border || j >= border;
  }
  const int n = (frame - 1) / block + 1;
  for (int a = 0; a < frames; ++a) {
    for (int b = 0; b < frames; ++b) {
      const int distance = std::abs(a - b);
      const double length = std::pow(2.0, bit_length(frame)) / std::pow(2.0, bit_length(distance));
      const double window =
          distance <= 1 ? frame : std::max(length * decay, static_cast<double>(block));
      const bool pair = length >= 128 || distance % static_cast<int>(128 / length) == 0;
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n; ++j) {
          int touched = 0, high = 0;
          for (int y = 0; y < block; ++y) {  // columns of the block
            const int column = j * block + y - b * frame % block;
            int count = 0;
            for (int x = 0; x < block; ++x) {
              const int row = i * block + x - a * frame % block;
              const bool inside = row >= 0 && row < frame && column >= 0 && column < frame;
              const bool kept = wan && b == 0 ? true : pair && std::abs(column - row) <= window;
              count += inside && kept ? 1 : 0;
            }
            touched += count > 0 ? 1 : 0;
            high += count / static_cast<double>(block) > 1.0 / 3 ? 1 : 0;
          }
          if (high / (touched + 1e-9) > 0.6) {
            mask.at(std::size_t(a * frame / block + i)).at(std::size_t(b * frame / block + j)) =
                true;
          }
        }
      }
    }
  }
  return mask;
}

TEST(Radial, MasksEqualTheReleasedRuleOnTokens) {
  struct Case {
    int frames, height, width, text, block;
    double decay;
    const char* preset;
  };
  for (const auto& c : {Case{9, 16, 16, 0, 32, 0.2, "wan"}, Case{12, 10, 16, 0, 32, 0.9, "hunyuan"},
                        Case{8, 9, 12, 0, 32, 0.3, "wan"}, Case{6, 16, 16, 64, 64, 0.95, "hunyuan"},
                        Case{20, 6, 8, 0, 16, 0.5, "wan"}}) {
    const int frame = c.height * c.width;
    const ShapeOnly record(video_then_text(c.frames, c.height, c.width, c.text));
    const Plan plan =
        plan_of(record, {{"preset", c.preset}, {"block", c.block}, {"decay_factor", c.decay}});
    const auto expected = written_out(c.frames, frame, c.block, c.decay,
                                      std::string(c.preset) == "wan", int(record.info.tokens));
    ASSERT_EQ(plan.q_blocks.blocks, std::int64_t(expected.size()));
    for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
      for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
        ASSERT_EQ(keeps(plan, 0, i, j), expected[std::size_t(i)][std::size_t(j)])
            << c.preset << " " << c.frames << "x" << frame << " block " << i << ", " << j;
      }
    }
  }
}

TEST(Radial, DensitiesOfTheScripts) {
  struct Case {
    const char* preset;
    int frames, text, block;
    double decay, density;
  };
  for (const auto& c :
       {Case{"wan", 18, 0, 128, 0.2, 0.287}, Case{"wan", 18, 0, 128, 1.0, 0.431},
        Case{"wan", 20, 0, 128, 0.8, 0.353}, Case{"wan", 20, 0, 64, 0.8, 0.349},
        Case{"hunyuan", 30, 0, 128, 0.95, 0.275}, Case{"hunyuan", 30, 256, 128, 0.95, 0.278}}) {
    const ShapeOnly record(video_then_text(c.frames, 48, 80, c.text));
    const Plan plan =
        plan_of(record, {{"preset", c.preset}, {"block", c.block}, {"decay_factor", c.decay}});
    EXPECT_NEAR(measure_density(plan).mean_blocks, c.density, 6e-4)
        << c.preset << " " << c.frames << " frames, decay " << c.decay;
  }
}

TEST(Radial, AVideoThatDoesNotEndWithABlockIsRefusedOrClipped) {
  for (const auto& [frames, height, width] :
       {std::tuple{21, 45, 80}, std::tuple{21, 30, 52}, std::tuple{9, 30, 32}}) {
    const ShapeOnly record(video_then_text(frames, height, width, 0));
    State state;
    EXPECT_THROW(make_method("radial", json::object())->plan(record.view, state), Unsupported);
    plan_of(record, {{"ragged", "clip"}});
  }
}

TEST(Radial, BothKnobsReachADensityAndTheWidthReachesLess) {
  const ShapeOnly record(video_then_text(18, 48, 80, 0));
  const double pair = 128.0 * 128.0 / (double(record.info.tokens) * double(record.info.tokens));
  for (const double density : {0.3, 0.4}) {
    EXPECT_NEAR(
        measure_density(plan_of(record, {{"density", density}}, DensityMatch::measured)).mean_pairs,
        density, pair);
  }
  EXPECT_THROW(plan_of(record, {{"density", 0.15}}, DensityMatch::measured), Infeasible);
  EXPECT_NEAR(measure_density(
                  plan_of(record, {{"density", 0.15}, {"solve", "width"}}, DensityMatch::measured))
                  .mean_pairs,
              0.15, pair);
  // Small frames: distant pairs are left out at any width.
  const ShapeOnly sparse(video_then_text(20, 6, 8, 0));
  EXPECT_THROW(plan_of(sparse, {{"density", 0.95}, {"block", 16}}, DensityMatch::measured),
               Unsupported);
}

// At the density that decay 0.2 gives, solving finds the same mask.
TEST(Radial, SolvingForItsOwnDensityGivesTheSameMask) {
  const ShapeOnly record(video_then_text(18, 48, 80, 0));
  const Plan nominal = plan_of(record, {{"decay_factor", 0.5}});
  const Plan solved =
      plan_of(record, {{"density", measure_density(nominal).mean_pairs}}, DensityMatch::measured);
  EXPECT_EQ(solved.lists.columns, nominal.lists.columns);
}

}  // namespace
}  // namespace raingauge
