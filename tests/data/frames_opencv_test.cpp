// SPDX-License-Identifier: Apache-2.0
// PNG and MP4: round trips, files of other writers, hostile files, and builds without OpenCV.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "data/frames.h"
#include "tests/data/frames_fixture.h"

namespace raingauge {
namespace {

using namespace frames_fixture;

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

class FramesOpenCv : public FramesFile {
 protected:
  // Where OpenCV is missing, every entry must say so; then the test has nothing else to look at.
  bool missing() {
    if (has_opencv()) return false;
    for (const auto& entry : std::vector<std::function<void()>>{
             [&] { write_frames(path("clip.mp4"), pattern(1, 2, 2)); },
             [&] { write_frames(path("frame.png"), pattern(1, 2, 2)); },
             [&] { write_frames(path("folder"), pattern(1, 2, 2)); },
             [&] { read_frames(write_bytes("clip.mp4", "x")); },
             [&] { read_frames(write_bytes("frame.png", "x")); },
             [&] { encode_png(pattern(1, 2, 2)); }}) {
      EXPECT_THROW(entry(), Unsupported);
    }
    return true;
  }
};

TEST_F(FramesOpenCv, PngFolderRoundTripInNameOrder) {
  if (missing()) return;
  const Frames clip = pattern(12, 5, 7);
  EXPECT_EQ(write_frames(path("clip"), clip), "png");
  EXPECT_TRUE(fs::exists(path("clip/00011.png")));
  expect_equal(read_frames(path("clip")), clip);
  write_frames(path("clip"), clip);  // again: the same names
  expect_equal(read_frames(path("clip")), clip);
}

TEST_F(FramesOpenCv, FoldersWithOtherPngsAreNotWrittenInto) {
  if (missing()) return;
  write_frames(path("clip"), pattern(3, 4, 4));
  EXPECT_THROW(write_frames(path("clip"), pattern(2, 4, 4)), Error) << "00002.png would stay";
  write_png(path("clip/preview.png"), pattern(1, 4, 4));
  EXPECT_THROW(write_frames(path("clip"), pattern(3, 4, 4)), Error);
}

// Made with Pillow 13 from 3 x 2 pixels: red, green, blue; (1,2,3), (4,5,6), (250,251,252).
constexpr char kRgbPng[] =
    "89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d0000001849444154789c63f8cf"
    "c0c000c18c4ccc2cac6cbf7eff0100333e06043faa08b50000000049454e44ae426082";
constexpr char kOpaquePng[] =
    "89504e470d0a1a0a0000000d49484452000000030000000208060000009d74661a0000002149444154789c05c181"
    "0d00200cc3b0a843fdff5e26146c041141930ca7e5eee3037b4f090646e709370000000049454e44ae426082";
constexpr char kTransparentPng[] =  // the second pixel of the second row has alpha 254
    "89504e470d0a1a0a0000000d49484452000000030000000208060000009d74661a0000002149444154789c05c181"
    "0d00200cc3b0a843fdff5e26146c041141930ca7f5eee303804a0a05dfd469280000000049454e44ae426082";
constexpr char kGreyPng[] =  // 2 x 2: 0, 128; 255, 7
    "89504e470d0a1a0a0000000d494844520000000200000002080000000057dd52f80000000e49444154789c636068"
    "60f8cf0e00040b01878ca3a7fd0000000049454e44ae426082";
constexpr char kDeepPng[] =  // 16 bits
    "89504e470d0a1a0a0000000d494844520000000200000001100000000081d9fc150000000d49444154789c636060"
    "98e30000017d00dd5dbd7aa20000000049454e44ae426082";

TEST_F(FramesOpenCv, PngsOfOtherWritersAreRead) {
  if (missing()) return;
  const std::vector<std::uint8_t> rgb = {255, 0, 0, 0, 255, 0, 0,   0,   255,
                                         1,   2, 3, 4, 5,   6, 250, 251, 252};
  for (const char* png : {kRgbPng, kOpaquePng}) {
    const Frames frame = read_frames(write_bytes("frame.png", from_hex(png)));
    EXPECT_EQ(frame.height, 2);
    EXPECT_EQ(frame.width, 3);
    EXPECT_EQ(frame.rgb, rgb);
  }
  EXPECT_EQ(read_frames(write_bytes("grey.png", from_hex(kGreyPng))).rgb,
            (std::vector<std::uint8_t>{0, 0, 0, 128, 128, 128, 255, 255, 255, 7, 7, 7}));
}

TEST_F(FramesOpenCv, UnfitPngsAreRefused) {
  if (missing()) return;
  EXPECT_TRUE(mentions(refusal(write_bytes("a.png", from_hex(kDeepPng))), "8 bits"));
  EXPECT_TRUE(mentions(refusal(write_bytes("b.png", from_hex(kTransparentPng))), "transparent"));
  EXPECT_TRUE(mentions(refusal(write_bytes("c.png", "no image")), "decoded"));
  EXPECT_TRUE(mentions(refusal(write_bytes("d.png", from_hex(kRgbPng).substr(0, 40))), "d.png"));
  fs::create_directory(path("folder"));
  EXPECT_TRUE(mentions(refusal(path("folder")), "no .png"));
  write_bytes("folder/0.png", from_hex(kRgbPng));
  write_bytes("folder/1.png", from_hex(kGreyPng));
  try {
    read_frames(path("folder"));
    ADD_FAILURE() << "frames of different size were accepted";
  } catch (const Error& error) {
    EXPECT_TRUE(mentions(error.what(), "1.png") && mentions(error.what(), "3x2")) << error.what();
  }
}

TEST_F(FramesOpenCv, PngOfSeveralFramesIsRefused) {
  if (missing()) return;
  EXPECT_THROW(write_frames(path("frame.png"), pattern(2, 4, 4)), Error);
  EXPECT_THROW(encode_png(pattern(2, 4, 4)), Error);
  const std::vector<std::uint8_t> bytes = encode_png(pattern(1, 4, 5));
  const std::string text(bytes.begin(), bytes.end());
  expect_equal(read_frames(write_bytes("frame.png", text)), pattern(1, 4, 5));
}

TEST_F(FramesOpenCv, Mp4KeepsWhatACodecKeeps) {
  if (missing()) return;
  const Frames clip = gradient(6, 64, 96);
  const std::string written = write_frames(path("clip.mp4"), clip, 16.0);
  EXPECT_TRUE(written == "mp4 avc1" || written == "mp4 mp4v") << written;
  const Frames back = read_frames(path("clip.mp4"));
  EXPECT_TRUE(mentions(back.lossy, "MP4, codec")) << back.lossy;
  EXPECT_NEAR(back.fps, 16.0, 1e-6);
  ASSERT_EQ(back.frames, 6);
  ASSERT_EQ(back.height, 64);
  ASSERT_EQ(back.width, 96);
  double squares = 0.0;
  for (std::size_t i = 0; i < clip.rgb.size(); ++i) {
    squares += std::pow(static_cast<double>(clip.rgb[i]) - back.rgb[i], 2);
  }
  // Swapped channels, frames or rows of these gradients are tens of levels off; codecs keep smooth
  // gradients above 30 dB, which is a root mean square of 8.
  EXPECT_LE(std::sqrt(squares / static_cast<double>(clip.rgb.size())), 8.0);
}

TEST_F(FramesOpenCv, UnfitMp4IsRefused) {
  if (missing()) return;
  EXPECT_THROW(write_mp4(path("odd.mp4"), pattern(2, 5, 8), 16.0), Unsupported);
  EXPECT_THROW(write_mp4(path("rate.mp4"), pattern(2, 8, 8), -1.0), Error);
  EXPECT_TRUE(mentions(refusal(write_bytes("junk.mp4", std::string(5000, 'j'))), "junk.mp4"));
  write_frames(path("whole.mp4"), gradient(30, 64, 96), 16.0);
  const std::string bytes = read_bytes("whole.mp4");
  EXPECT_NE(refusal(write_bytes("cut.mp4", bytes.substr(0, bytes.size() / 2))), "accepted");
}

}  // namespace
}  // namespace raingauge
