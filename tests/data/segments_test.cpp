// SPDX-License-Identifier: Apache-2.0
#include "data/segments.h"

#include <gtest/gtest.h>

#include "data/error.h"

namespace raingauge {
namespace {

Segments video_then_text() {
  return {{Role::video, 0, 8064, 21, 16, 24}, {Role::text, 8064, 8, 0, 0, 0}};
}

std::string message(const Segments& segments, std::int64_t tokens) {
  try {
    check_segments(segments, tokens, "FILE: /records/000001/segments");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(SegmentsTest, GoodOnesPass) {
  EXPECT_EQ(message(video_then_text(), 8072), "");
  EXPECT_EQ(message({{Role::text, 0, 5, 0, 0, 0},
                     {Role::image, 5, 12, 1, 3, 4},
                     {Role::reference, 17, 12, 1, 3, 4},
                     {Role::pad, 29, 3, 0, 0, 0}},
                    32),
            "");
}

TEST(SegmentsTest, EachDefectIsNamedWithItsPlace) {
  const auto expect = [](Segments segments, std::int64_t tokens, const char* part) {
    const std::string text = message(segments, tokens);
    EXPECT_NE(text.find("FILE: /records/000001/segments"), std::string::npos) << text;
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect({}, 8072, "no segments");
  expect(video_then_text(), 8073, "cover 8072 tokens");
  expect(video_then_text(), 8070, "length 8");
  Segments gap = video_then_text();
  gap[1].start = 8065;
  expect(gap, 8073, "starts at token 8065 instead of 8064");
  Segments grid = video_then_text();
  grid[0].width = 25;
  expect(grid, 8072, "21x16x25");
  Segments zero = video_then_text();
  zero[0].frames = 0;
  expect(zero, 8072, "0x16x24");
  Segments text_grid = video_then_text();
  text_grid[1].frames = 1;
  expect(text_grid, 8072, "must have frames = height = width = 0");
  expect({{Role::text, 0, 0, 0, 0, 0}}, 1, "length 0");
  expect({{Role::text, 0, -4, 0, 0, 0}}, 1, "length -4");
  // 2^30 x 2^30 x 2^30 leaves 64 bits: it must not wrap around to a match.
  expect({{Role::video, 0, 4, 1 << 30, 1 << 30, 1 << 30}}, 4, "does not multiply");
}

TEST(SegmentsTest, DescribeAndCount) {
  EXPECT_EQ(describe(video_then_text()), "video 21x16x24 + text 8");
  EXPECT_EQ(describe({{Role::pad, 0, 3, 0, 0, 0}}), "pad 3");
  EXPECT_EQ(count_tokens(video_then_text(), Role::text), 8);
  EXPECT_EQ(count_tokens(video_then_text(), Role::image), 0);
}

TEST(SegmentsTest, RolesRoundTrip) {
  for (const Role role : {Role::text, Role::image, Role::video, Role::reference, Role::pad}) {
    EXPECT_EQ(parse_role(name_of(role)), role);
  }
  EXPECT_THROW(parse_role("audio"), Error);
}

}  // namespace
}  // namespace raingauge
