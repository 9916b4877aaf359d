// SPDX-License-Identifier: Apache-2.0
// STA's windows against their rule written out, and the densities of its shipped candidates.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "data/error.h"
#include "methods/registry.h"
#include "tests/methods/planted.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::keeps;
using testing::NoiseRecord;
using testing::ShapeOnly;
using testing::video_then_text;

Plan plan_of(const RecordView& view, const json& params) {
  State state;
  Plan plan = make_method("sta", params)->plan(view, state);
  check_plan(plan);
  return plan;
}

TEST(Sta, DensitiesOfTheReleasedCandidatesForWan) {
  const ShapeOnly record(video_then_text(18, 48, 80, 0));
  const std::vector<std::pair<std::array<int, 3>, double>> candidates = {
      {{3, 1, 10}, 1.0 / 6}, {{1, 5, 7}, 0.194}, {{3, 3, 3}, 0.150}, {{1, 6, 5}, 1.0 / 6},
      {{1, 3, 10}, 1.0 / 6}, {{3, 6, 1}, 0.100}, {{3, 6, 10}, 1.0}};
  for (const auto& [window, density] : candidates) {
    const Plan plan = plan_of(record.view, {{"preset", "released"}, {"window", window}});
    EXPECT_EQ(plan.q_blocks.blocks, 180);
    EXPECT_NEAR(measure_density(plan).mean_pairs, density, 5e-4)
        << window[0] << "x" << window[1] << "x" << window[2];
  }
}

TEST(Sta, TilesSeeTheClampedWindow) {
  // 4 x 5 x 6 tiles, the rule: centre = clamp(q, r, C-1-r), kept iff |centre - k| <= r on each axis.
  const std::array<int, 3> tiles = {4, 5, 6};
  const ShapeOnly record(video_then_text(8, 10, 12, 0));
  for (const std::array<int, 3> window :
       {std::array{1, 3, 5}, std::array{3, 3, 3}, std::array{2, 4, 1}, std::array{4, 5, 6}}) {
    const Plan plan = plan_of(record.view, {{"tile", {2, 2, 2}}, {"window", window}});
    const auto at = [&](int tile) { return std::array{tile / 30, tile / 6 % 5, tile % 6}; };
    for (int i = 0; i < 120; ++i) {
      for (int j = 0; j < 120; ++j) {
        bool inside = true;
        for (std::size_t a = 0; a < 3; ++a) {
          const int radius = window[a] / 2;
          const int high = tiles[a] - 1 - radius;
          const int centre = radius > high ? radius : std::clamp(at(i)[a], radius, high);
          inside = inside && (radius > high || std::abs(centre - at(j)[a]) <= radius);
        }
        ASSERT_EQ(keeps(plan, 0, i, j), inside) << i << " " << j;
      }
    }
  }
}

TEST(Sta, BlocksAreTilesOfTheGridAndTextSeesAll) {
  const ShapeOnly record(video_then_text(5, 9, 10, 7));  // tiles of 2 x 4 x 4 are clipped
  const Plan plan = plan_of(record.view, {{"tile", {2, 4, 4}}, {"window", {1, 1, 1}}});
  ASSERT_EQ(plan.q_blocks.blocks, 3 * 3 * 3 + 1);
  for (std::int64_t b = 0; b < 27; ++b) {
    const int t = int(b / 9), y = int(b / 3 % 3), x = int(b % 3);
    for (auto p = plan.q_blocks.begin(0, b); p < plan.q_blocks.end(0, b); ++p) {
      const int token = plan.q_order.token(0, p);
      EXPECT_EQ(token / 90 / 2, t);
      EXPECT_EQ(token / 10 % 9 / 4, y);
      EXPECT_EQ(token % 10 / 4, x);
    }
    EXPECT_TRUE(keeps(plan, 0, b, 27));
    EXPECT_TRUE(keeps(plan, 0, 27, b));
    EXPECT_TRUE(keeps(plan, 0, b, b));
    EXPECT_EQ(plan.lists.count(0, b), 2);
  }
}

TEST(Sta, ReleasedCanvasesOnly) {
  for (const auto& [frames, height, width, known] :
       {std::tuple{30, 48, 80, true}, std::tuple{36, 48, 48, true}, std::tuple{18, 48, 80, true},
        std::tuple{21, 45, 80, false}, std::tuple{18, 48, 48, false}}) {
    const ShapeOnly record(video_then_text(frames, height, width, 0));
    State state;
    const auto method = make_method("sta", {{"preset", "released"}});
    if (known) {
      EXPECT_NO_THROW(method->plan(record.view, state));
    } else {
      EXPECT_THROW(method->plan(record.view, state), Unsupported);
    }
  }
}

TEST(Sta, TheOracleFindsTheWindowThatAPlantedHeadNeeds) {
  // Head 0 attends its own frame, head 1 its own place in every frame.
  NoiseRecord record(video_then_text(8, 16, 16, 0), 2, 64, 5);
  testing::plant(record, 12.0F, [](std::int64_t head, std::int64_t token) {
    return head == 0 ? token / 256 : token % 256 / 4;
  });
  const Plan plan = plan_of(
      record.view(),
      {{"tile", {1, 4, 4}}, {"heads", "oracle"}, {"candidates", {1, 4, 4, 8, 1, 4, 1, 1, 1}}});
  EXPECT_EQ(plan.notes.at(0).words, (std::vector<std::string>{"1x4x4", "8x1x4"}));
  EXPECT_THROW(make_method("sta", {{"heads", "oracle"}, {"candidates", {1, 2}}}), ParamError);
}

}  // namespace
}  // namespace raingauge
