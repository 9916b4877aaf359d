// SPDX-License-Identifier: Apache-2.0
#include "methods/arrangement.h"

#include <gtest/gtest.h>

#include <numeric>

#include "data/error.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::text_then_video;
using testing::video_then_text;

json order(const std::string& name, json params = json::object()) {
  return {{"name", name}, {"params", std::move(params)}};
}

std::int64_t tokens_of(const Segments& segments) { return segments.back().end(); }

TEST(Arrangement, SegregatedFrameZeroHasBlocksOfItsOwnBesideText) {
  const auto segments = video_then_text(3, 10, 10, 20);  // frames of 100 tokens
  ArrangementSpec spec;
  spec.block_q = spec.block_k = 64;
  const auto result = arrange(segments, tokens_of(segments), spec);
  // Frames 1, 2 = 200 tokens (64 64 64 8), frame 0 = 100 (64 36), text 20.
  EXPECT_EQ(result.q_blocks.offsets,
            (std::vector<std::int32_t>{0, 64, 128, 192, 200, 264, 300, 320}));
  EXPECT_EQ(result.q_roles,
            (std::vector<BlockRole>{BlockRole::visual, BlockRole::visual, BlockRole::visual,
                                    BlockRole::visual, BlockRole::pinned_frame,
                                    BlockRole::pinned_frame, BlockRole::text}));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(result.order.token(0, 200 + i), i);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(result.order.token(0, i), 100 + i);
}

TEST(Arrangement, TextBeforeTheVideoMovesToTheEnd) {
  const auto segments = text_then_video(2, 4, 4, 5);
  ArrangementSpec spec;
  spec.block_q = spec.block_k = 16;
  const auto result = arrange(segments, tokens_of(segments), spec);
  EXPECT_EQ(result.order.token(0, 0), 5 + 16);  // frame 1 first
  EXPECT_EQ(result.order.token(0, 16), 5);      // then frame 0
  EXPECT_EQ(result.order.token(0, 32), 0);      // then text
  EXPECT_EQ(result.q_roles.back(), BlockRole::text);
}

TEST(Arrangement, EveryOrderIsABijectionWithEitherFrameZero) {
  for (const char* name : {"raster", "frame_window", "window3d", "gilbert", "random", "axis_hwt"}) {
    for (const auto frame0 : {Frame0::segregated, Frame0::in_place}) {
      const auto segments = video_then_text(3, 9, 11, 7);
      ArrangementSpec spec;
      spec.order = order(name);
      spec.frame0 = frame0;
      const auto result = arrange(segments, tokens_of(segments), spec);
      std::vector<int> seen(static_cast<std::size_t>(tokens_of(segments)), 0);
      for (std::int64_t i = 0; i < tokens_of(segments); ++i)
        ++seen[std::size_t(result.order.token(0, i))];
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), tokens_of(segments)) << name;
    }
  }
}

TEST(Arrangement, AnOrderThatMixesFramesHasNoPinnedFrameInPlace) {
  const auto segments = video_then_text(4, 8, 8, 0);
  ArrangementSpec spec;
  spec.order = order("window3d");
  spec.frame0 = Frame0::in_place;
  EXPECT_NE(arrange(segments, tokens_of(segments), spec).pin_problem, "");
  spec.frame0 = Frame0::segregated;
  EXPECT_EQ(arrange(segments, tokens_of(segments), spec).pin_problem, "");
}

TEST(Arrangement, TheMiddleFrameCanBePinnedInstead) {
  const auto segments = video_then_text(5, 4, 4, 0);
  ArrangementSpec spec;
  spec.pin_middle_frame = true;
  const auto result = arrange(segments, tokens_of(segments), spec);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(result.order.token(0, 64 + i), 2 * 16 + i);
}

TEST(Arrangement, OneImageHasNoPinnedFrame) {
  const auto segments = video_then_text(1, 12, 12, 4);
  ArrangementSpec spec;
  spec.order = order("frame_window");
  const auto result = arrange(segments, tokens_of(segments), spec);
  for (const auto role : result.q_roles) EXPECT_NE(role, BlockRole::pinned_frame);
  EXPECT_EQ(result.order.token(0, 8), 12);  // second row of the first 8 x 8 window
}

TEST(Arrangement, ReleasedBlocksStraddleVideoAndText) {
  // Hunyuan-like: N_video % 128 = 16; pooled blocks are one more than the executed ones.
  const auto segments = video_then_text(9, 8, 242, 60);  // 17,424 = 136 * 128 + 16
  ArrangementSpec spec;
  spec.mindie = true;
  spec.order = order("frame_window");
  spec.frame0 = Frame0::in_place;
  const auto result = arrange(segments, tokens_of(segments), spec);
  EXPECT_EQ(result.score_q.blocks, 137 + 1);
  EXPECT_EQ(result.q_blocks.blocks, 137);  // ceil((17424 + 60) / 128)
  EXPECT_EQ(result.q_roles.back(), BlockRole::text);
  EXPECT_EQ(std::count(result.q_roles.begin(), result.q_roles.end(), BlockRole::pinned_frame), 16);
}

TEST(Arrangement, WhatTheReleasedCodeRefusesIsUnsupported) {
  ArrangementSpec spec;
  spec.mindie = true;
  spec.order = order("frame_window");
  spec.frame0 = Frame0::in_place;
  for (const auto& [frames, height, width] :
       {std::tuple{1, 9, 16}, std::tuple{1, 16, 10}, std::tuple{3, 7, 16}, std::tuple{3, 16, 4}}) {
    const auto segments = video_then_text(frames, height, width, 0);
    EXPECT_THROW(arrange(segments, tokens_of(segments), spec), Unsupported)
        << frames << "x" << height << "x" << width;
  }
  const auto image = video_then_text(1, 16, 16, 0);
  EXPECT_NO_THROW(arrange(image, tokens_of(image), spec));
}

}  // namespace
}  // namespace raingauge
