// SPDX-License-Identifier: Apache-2.0
// Pictures of clips: differences, crops, and one image of several clips.
#include <gtest/gtest.h>

#include <array>

#include "data/frames.h"
#include "tests/data/frames_fixture.h"

namespace raingauge {
namespace {

using namespace frames_fixture;

TEST(CropFrame, TakesPixelsAndEnlargesThem) {
  const Frames clip = pattern(3, 4, 5);
  const Frames crop = crop_frame(clip, 2, 3, 1, 2, 3);
  EXPECT_EQ(crop.frames, 1);
  EXPECT_EQ(crop.height, 3);
  EXPECT_EQ(crop.width, 2);
  const Frames large = crop_frame(clip, 2, 3, 1, 2, 3, 2);
  EXPECT_EQ(large.height, 6);
  EXPECT_EQ(large.width, 4);
  for (std::size_t y = 0; y < 6; ++y) {
    for (std::size_t x = 0; x < 4; ++x) {
      for (std::size_t c = 0; c < 3; ++c) {
        const std::uint8_t expected = clip.rgb[((2 * 4 + 1 + y / 2) * 5 + 3 + x / 2) * 3 + c];
        EXPECT_EQ(large.rgb[(y * 4 + x) * 3 + c], expected);
        EXPECT_EQ(crop.rgb[(y / 2 * 2 + x / 2) * 3 + c], expected);
      }
    }
  }
  EXPECT_THROW(crop_frame(clip, 3, 0, 0, 1, 1), Error);
  EXPECT_THROW(crop_frame(clip, 0, 4, 0, 2, 1), Error);
  EXPECT_THROW(crop_frame(clip, 0, 0, 0, 1, 5), Error);
  EXPECT_THROW(crop_frame(clip, 0, -1, 0, 1, 1), Error);
  EXPECT_THROW(crop_frame(clip, 0, 0, 0, 0, 1), Error);
  EXPECT_THROW(crop_frame(clip, 0, 0, 0, 1, 1, 0), Error);
}

TEST(Difference, IsAbsoluteScaledAndClamped) {
  const Frames a{1, 1, 1, {10, 20, 200}};
  const Frames b{1, 1, 1, {12, 17, 100}};
  EXPECT_EQ(difference_frames(a, b).rgb, (std::vector<std::uint8_t>{16, 24, 255}));
  EXPECT_EQ(difference_frames(b, a).rgb, difference_frames(a, b).rgb);
  EXPECT_EQ(difference_frames(a, a).rgb, (std::vector<std::uint8_t>{0, 0, 0}));
  EXPECT_EQ(difference_frames(a, b, 1).rgb, (std::vector<std::uint8_t>{2, 3, 100}));
  EXPECT_THROW(difference_frames(a, pattern(1, 1, 2)), Error);
  EXPECT_THROW(difference_frames(a, b, 0), Error);
}

TEST(ContactSheet, PlacesClipsInRowsAndFramesInColumns) {
  const Frames top = pattern(3, 2, 3);
  const Frames bottom = pattern(2, 2, 3);
  const std::array<const Frames*, 2> clips = {&top, &bottom};
  const std::array<int, 2> numbers = {1, 0};
  const Frames sheet = contact_sheet(clips, numbers, 1);
  ASSERT_EQ(sheet.frames, 1);
  ASSERT_EQ(sheet.height, 5);
  ASSERT_EQ(sheet.width, 7);
  const auto pixel = [](const Frames& clip, std::int64_t t, std::int64_t y, std::int64_t x) {
    const auto at = static_cast<std::size_t>(((t * clip.height + y) * clip.width + x) * 3);
    return std::array<int, 3>{clip.rgb[at], clip.rgb[at + 1], clip.rgb[at + 2]};
  };
  for (std::int64_t y = 0; y < 2; ++y) {
    for (std::int64_t x = 0; x < 3; ++x) {
      EXPECT_EQ(pixel(sheet, 0, y, x), pixel(top, 1, y, x));
      EXPECT_EQ(pixel(sheet, 0, y, x + 4), pixel(top, 0, y, x));
      EXPECT_EQ(pixel(sheet, 0, y + 3, x), pixel(bottom, 1, y, x));
      EXPECT_EQ(pixel(sheet, 0, y + 3, x + 4), pixel(bottom, 0, y, x));
    }
  }
  const std::array<int, 3> white = {255, 255, 255};
  EXPECT_EQ(pixel(sheet, 0, 2, 0), white);
  EXPECT_EQ(pixel(sheet, 0, 0, 3), white);
}

TEST(ContactSheet, RefusesWhatDoesNotFit) {
  const Frames a = pattern(2, 2, 3);
  const Frames b = pattern(2, 3, 2);
  const std::array<const Frames*, 2> unequal = {&a, &b};
  const std::array<const Frames*, 1> one = {&a};
  const std::array<int, 1> first = {0};
  const std::array<int, 1> beyond = {2};
  const std::array<int, 1> negative = {-1};
  EXPECT_THROW(contact_sheet(unequal, first), Error);
  EXPECT_THROW(contact_sheet(one, beyond), Error);
  EXPECT_THROW(contact_sheet(one, negative), Error);
  EXPECT_THROW(contact_sheet({}, first), Error);
  EXPECT_THROW(contact_sheet(one, {}), Error);
  EXPECT_THROW(contact_sheet(one, first, -1), Error);
}

}  // namespace
}  // namespace raingauge
