// SPDX-License-Identifier: Apache-2.0
// What the tests of clips on disk share: a folder of their own, clips with known bytes, refusals.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "data/error.h"
#include "data/frames.h"

namespace raingauge::frames_fixture {

namespace fs = std::filesystem;

class FramesFile : public testing::Test {
 protected:
  FramesFile() {
    std::string name = (fs::temp_directory_path() / "raingauge_frames_XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~FramesFile() override { fs::remove_all(folder_); }
  FramesFile(const FramesFile&) = delete;
  FramesFile& operator=(const FramesFile&) = delete;

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string write_bytes(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

  std::string read_bytes(const std::string& name) const {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  fs::path folder_;
};

// What reading `source` is refused with; the message must name the file.
inline std::string refusal(const std::string& source) {
  try {
    read_frames(source);
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(fs::path(source).filename().string()), std::string::npos) << text;
    return text;
  }
  return "accepted";
}

inline bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Every byte pattern differs between frames, rows, columns and channels.
inline Frames pattern(std::int64_t frames, std::int64_t height, std::int64_t width) {
  Frames clip{frames, height, width, {}};
  for (std::int64_t i = 0; i < frames * height * width * 3; ++i) {
    clip.rgb.push_back(static_cast<std::uint8_t>((i * 37 + i / 7 * 11 + i / 101) % 256));
  }
  return clip;
}

// Slow gradients: what a video codec keeps.
inline Frames gradient(std::int64_t frames, std::int64_t height, std::int64_t width) {
  Frames clip{frames, height, width, {}};
  for (std::int64_t t = 0; t < frames; ++t)
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < width; ++x) {
        clip.rgb.push_back(static_cast<std::uint8_t>(200 * x / width + 5 * t));
        clip.rgb.push_back(static_cast<std::uint8_t>(200 * y / height));
        clip.rgb.push_back(static_cast<std::uint8_t>(40 + 5 * t));
      }
  return clip;
}

inline void expect_equal(const Frames& got, const Frames& wanted) {
  EXPECT_EQ(got.frames, wanted.frames);
  EXPECT_EQ(got.height, wanted.height);
  EXPECT_EQ(got.width, wanted.width);
  EXPECT_EQ(got.rgb, wanted.rgb);
}

inline int largest_difference(const Frames& a, const Frames& b) {
  if (a.rgb.size() != b.rgb.size()) return 256;
  int largest = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) {
    largest = std::max(largest, std::abs(int{a.rgb[i]} - int{b.rgb[i]}));
  }
  return largest;
}

}  // namespace raingauge::frames_fixture
