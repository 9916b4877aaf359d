// SPDX-License-Identifier: Apache-2.0
// Clips on disk: round trips, known files byte by byte, hostile files.
#include "data/frames.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "data/capture_writer.h"
#include "tests/data/frames_fixture.h"

namespace raingauge {
namespace {

using namespace frames_fixture;

std::string npy(const std::string& header, const std::string& elements, char version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += version;
  bytes += '\0';
  bytes += static_cast<char>(header.size() & 0xFFU);
  bytes += static_cast<char>(header.size() >> 8U);
  if (version != 1) bytes += std::string(2, '\0');
  return bytes + header + elements;
}

TEST_F(FramesFile, NpyRoundTrip) {
  for (const auto& clip : {pattern(1, 1, 1), pattern(3, 5, 7), pattern(2, 16, 24)}) {
    EXPECT_EQ(write_frames(path("clip.npy"), clip), "npy");
    expect_equal(read_frames(path("clip.npy")), clip);
  }
}

TEST_F(FramesFile, NpyIsWrittenAsNumpyWouldReadIt) {
  write_frames(path("clip.npy"), pattern(2, 3, 4));
  const std::string bytes = read_bytes("clip.npy");
  ASSERT_EQ(bytes.size() % 64, (2U * 3 * 4 * 3) % 64) << "elements start at a multiple of 64";
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  EXPECT_TRUE(mentions(bytes, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 4, 3), }"));
  EXPECT_EQ(bytes[bytes.size() - 72 - 1], '\n');
}

TEST_F(FramesFile, NpyOfOtherWritersIsRead) {
  const std::string six = "abcdef";
  const auto frames = [&](const std::string& header, char version) {
    return read_frames(write_bytes("clip.npy", npy(header, six, version)));
  };
  for (const char version : {'\x01', '\x02', '\x03'}) {
    const Frames clip =
        frames("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 2, 3), }\n", version);
    EXPECT_EQ(clip.width, 2);
    EXPECT_EQ(std::string(clip.rgb.begin(), clip.rgb.end()), six);
  }
  EXPECT_EQ(frames("{\"shape\":(2,1,1,3),\"fortran_order\":False,\"descr\":\"u1\"}", '\x01').frames,
            2);
}

TEST_F(FramesFile, HostileNpyIsRefused) {
  const std::string good = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 2, 3), }\n";
  const auto why = [&](const std::string& bytes) {
    return refusal(write_bytes("hostile.npy", bytes));
  };
  const auto header = [&](const std::string& text) { return why(npy(text, "abcdef")); };
  EXPECT_EQ(header(good), "accepted");
  EXPECT_TRUE(mentions(why(""), "ends inside"));
  EXPECT_TRUE(mentions(why("PK\x03\x04 a zip archive"), "not a NumPy file"));
  EXPECT_TRUE(mentions(why(npy(good, "abcdef", 9)), "version 9"));
  EXPECT_TRUE(mentions(why(npy(good, "abcde")), "needs 6"));
  EXPECT_TRUE(mentions(why(npy(good, "abcdefg")), "needs 6"));
  EXPECT_TRUE(mentions(why(std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff", 12)), "at most 65536"));
  EXPECT_TRUE(mentions(why(npy(good, "abcdef").substr(0, 30)), "ends inside"));
  EXPECT_TRUE(
      mentions(header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2, 3)}"), "uint8"));
  EXPECT_TRUE(mentions(header("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 1, 2, 3)}"),
                       "Fortran"));
  EXPECT_TRUE(mentions(header("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (6,)}"),
                       "structured"));
  for (const char* shape : {"(6,)", "()", "(1, 2, 3)", "(1, 1, 3, 2)", "(1, 1, 1, 2, 3)"}) {
    EXPECT_TRUE(mentions(
        header("{'descr': '|u1', 'fortran_order': False, 'shape': " + std::string(shape) + "}"),
        "[frames, height, width, 3]"))
        << shape;
  }
  for (const char* shape : {"(-1, 1, 2, 3)", "(1 1 2 3)", "(1, 1, 2, 3",
                            "(99999999999999999999, 1, 2, 3)", "(x, 1, 2, 3)"}) {
    EXPECT_TRUE(mentions(
        header("{'descr': '|u1', 'fortran_order': False, 'shape': " + std::string(shape) + "}"),
        "header"))
        << shape;
  }
  // Products that overflow 64 bits, or promise far more than the file holds.
  EXPECT_TRUE(mentions(header("{'descr': '|u1', 'fortran_order': False, 'shape': "
                              "(4294967296, 4294967296, 2, 3)}"),
                       "65536"));
  EXPECT_TRUE(mentions(header("{'descr': '|u1', 'fortran_order': False, 'shape': "
                              "(60000, 4000, 1000, 3)}"),
                       "bytes of elements"));
  EXPECT_TRUE(
      mentions(header("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 1, 2, 3)}"), "65536"));
  for (const char* text :
       {"", "{", "{'descr'", "{'descr': '|u1'}", "{'descr': '|u1', 'descr': '|u1'}", "{'evil': 1}",
        "{'fortran_order': Maybe}", "[1, 2]"}) {
    EXPECT_TRUE(mentions(header(text), "header")) << text;
  }
}

TEST_F(FramesFile, Y4mRoundTripIsWithinRounding) {
  // Y, Cb, Cr are each rounded by at most 1/2. Back in RGB that is at most 1/2 (255/219 + 255/224
  // c) with c = 2 (1 - Kb) = 1.772 for blue, the worst: 1.59, so 2 after rounding.
  for (const auto& clip : {pattern(1, 1, 1), pattern(3, 5, 7), gradient(2, 16, 24)}) {
    EXPECT_EQ(write_frames(path("clip.y4m"), clip, 24.0), "y4m 4:4:4 BT.601");
    const Frames back = read_frames(path("clip.y4m"));
    EXPECT_EQ(back.frames, clip.frames);
    EXPECT_EQ(back.height, clip.height);
    EXPECT_LE(largest_difference(back, clip), 2);
  }
}

TEST_F(FramesFile, Y4mPrimariesAreBt601) {
  Frames clip{1, 1, 5, {255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255}};
  write_y4m(path("clip.y4m"), clip, 25.0);
  const std::string bytes = read_bytes("clip.y4m");
  EXPECT_TRUE(mentions(bytes, "YUV4MPEG2 W5 H1 F25:1 Ip A1:1 C444 XCOLORRANGE=LIMITED\nFRAME\n"));
  // ITU-R BT.601 table of 8-bit colour bars at full amplitude: white, black, red, green, blue.
  const std::array<int, 15> planes = {235, 16,  81,  145, 41,  128, 128, 90,
                                      54,  240, 128, 128, 240, 34,  110};
  for (std::size_t i = 0; i < 15; ++i) {
    EXPECT_EQ(static_cast<unsigned char>(bytes[bytes.size() - 15 + i]), planes[i]) << i;
  }
}

TEST_F(FramesFile, Y4mFrameRates) {
  const auto rate = [&](double fps) {
    write_y4m(path("clip.y4m"), pattern(1, 1, 1), fps);
    const std::string bytes = read_bytes("clip.y4m");
    return bytes.substr(bytes.find(" F") + 2, bytes.find(" Ip") - bytes.find(" F") - 2);
  };
  EXPECT_EQ(rate(16.0), "16:1");
  EXPECT_EQ(rate(30000.0 / 1001.0), "30000:1001");
  EXPECT_THROW(rate(0.0), Error);
  EXPECT_THROW(rate(std::nan("")), Error);
}

TEST_F(FramesFile, Y4mSubsampledChromaIsRepeated) {
  // 3 x 3 pixels, 2 x 2 chroma: grey luma, Cb and Cr differ per chroma pixel.
  const std::string planes(
      "\x80\x80\x80\x80\x80\x80\x80\x80\x80"
      "\x80\xf0\x80\x80"
      "\x80\x80\xf0\x80",
      17);
  for (const char* colour : {"", " C420", " C420jpeg", " C420mpeg2", " C420paldv"}) {
    const Frames clip = read_frames(write_bytes(
        "clip.y4m", "YUV4MPEG2 W3 H3 F25:1" + std::string(colour) + "\nFRAME\n" + planes));
    ASSERT_EQ(clip.rgb.size(), 27U);
    const auto channel = [&](std::size_t y, std::size_t x, std::size_t c) {
      return int{clip.rgb[(y * 3 + x) * 3 + c]};
    };
    // (128 - 16) 255 / 219 = 130.4; + 2.017 * 112 saturates blue, + 1.596 * 112 saturates red.
    EXPECT_EQ(channel(0, 0, 0), 130);
    EXPECT_EQ(channel(1, 1, 2), 130);
    EXPECT_EQ(channel(0, 2, 2), 255) << colour;
    EXPECT_EQ(channel(1, 2, 2), 255) << colour;
    EXPECT_EQ(channel(2, 0, 0), 255) << colour;
    EXPECT_EQ(channel(2, 1, 0), 255) << colour;
    EXPECT_EQ(channel(2, 2, 0), 130) << colour;
    EXPECT_EQ(channel(2, 2, 2), 130) << colour;
  }
}

TEST_F(FramesFile, Y4mFullRangeIsHonoured) {
  const std::string planes("\x00\xff\x80\x80\x80\x80", 6);
  const auto first = [&](const std::string& range) {
    return read_frames(
               write_bytes("clip.y4m", "YUV4MPEG2 W2 H1 F25:1 C444" + range + "\nFRAME\n" + planes))
        .rgb;
  };
  EXPECT_EQ(first(" XCOLORRANGE=FULL"), (std::vector<std::uint8_t>{0, 0, 0, 255, 255, 255}));
  EXPECT_EQ(first(""), (std::vector<std::uint8_t>{0, 0, 0, 255, 255, 255})) << "clamped";
}

TEST_F(FramesFile, HostileY4mIsRefused) {
  const auto why = [&](const std::string& bytes) {
    return refusal(write_bytes("hostile.y4m", bytes));
  };
  EXPECT_EQ(why("YUV4MPEG2 W1 H1 F1:1 C444\nFRAME\nabcFRAME Ix\nabc"), "accepted");
  EXPECT_TRUE(mentions(why(""), "not a Y4M"));
  EXPECT_TRUE(mentions(why("RIFF\n"), "not a Y4M"));
  EXPECT_TRUE(mentions(why("YUV4MPEG22 W1 H1\n"), "not a Y4M"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 H1 F1:1 C444"), "inside a header line"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 " + std::string(10000, 'X') + "\n"), "4096"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 F1:1 C444\nFRAME\nabc"), "65536"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W-1 H1 C444\nFRAME\nabc"), "65536"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1x H1 C444\nFRAME\nabc"), "W1x"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W99999999999999999999 H1 C444\nFRAME\nabc"), "no size"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W65536 H65536 C444\nFRAME\nabc"), "smaller than one frame"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 H1 C420p10\nFRAME\nabc"), "C420p10"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 H1 C422\nFRAME\nabc"), "C422"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 H1 It C444\nFRAME\nabc"), "interlaced"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 H1 C444\n"), "no frames"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 H1 C444\nFRAME\nab"), "inside frame 0"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 H1 C444\nFRAME\nabcFRAME\na"), "inside frame 1"));
  EXPECT_TRUE(mentions(why("YUV4MPEG2 W1 H1 C444\nFRAME\nabcJUNK\nabc"), "frame 1"));
}

TEST_F(FramesFile, Y4mSaysItsRateAndWhatItLoses) {
  const auto read = [&](const std::string& parameters) {
    return read_frames(write_bytes("clip.y4m", "YUV4MPEG2 W1 H1 " + parameters + "\nFRAME\nabc"));
  };
  EXPECT_EQ(read("F25:1 C444").fps, 25.0);
  EXPECT_NEAR(read("F24000:1001 C444").fps, 23.976, 1e-3);
  for (const char* none :
       {"C444", "F0:0 C444", "F25 C444", "Fx:y C444", "F-3:1 C444", "F1:0 C444"}) {
    EXPECT_EQ(read(none).fps, 0.0) << none;
  }
  EXPECT_EQ(read("C444").lossy, "Y4M, Y'CbCr 4:4:4");
  EXPECT_EQ(read("C420").lossy, "Y4M, Y'CbCr 4:2:0");
  write_npy(path("clip.npy"), pattern(1, 2, 2));
  EXPECT_EQ(read_frames(path("clip.npy")).lossy, "");
}

TEST_F(FramesFile, NamesDecideTheFormat) {
  EXPECT_TRUE(mentions(refusal(path("nowhere.npy")), "no such file"));
  EXPECT_TRUE(mentions(refusal(write_bytes("clip.gif", "GIF89a")), "frames are"));
  EXPECT_THROW(write_frames(path("clip.gif"), pattern(1, 2, 2)), Error);
  EXPECT_THROW(write_frames(path("no/such/folder/clip.npy"), pattern(1, 2, 2)), Error);
  EXPECT_THROW(write_frames(path("no/such/folder/clip.y4m"), pattern(1, 2, 2)), Error);
}

TEST_F(FramesFile, ClipsThatContradictThemselvesAreNotWritten) {
  Frames clip = pattern(2, 3, 4);
  clip.rgb.pop_back();
  EXPECT_THROW(write_frames(path("clip.npy"), clip), Error);
  EXPECT_THROW(write_frames(path("clip.y4m"), clip), Error);
  EXPECT_THROW(write_frames(path("clip.npy"), Frames{}), Error);
  EXPECT_FALSE(fs::exists(path("clip.npy")));
}

class FramesCapture : public FramesFile {
 protected:
  void store(const std::vector<std::string>& arms) {
    CaptureWriter writer(path("clip.h5"), CaptureInfo{});
    for (std::size_t i = 0; i < arms.size(); ++i) {
      writer.write_frames(arms[i], pattern(static_cast<std::int64_t>(i) + 1, 4, 6));
    }
    writer.finish();
  }
};

TEST_F(FramesCapture, ArmsAreReadByName) {
  store({"dense", "rf2"});
  expect_equal(read_frames(path("clip.h5") + ":/frames/dense"), pattern(1, 4, 6));
  expect_equal(read_frames(path("clip.h5") + ":/frames/rf2"), pattern(2, 4, 6));
  for (const char* rest : {"", ":/frames", ":/frames/"}) {
    try {
      read_frames(path("clip.h5") + rest);
      ADD_FAILURE() << "two arms, none named";
    } catch (const Error& error) {
      EXPECT_TRUE(mentions(error.what(), "dense, rf2")) << error.what();
    }
  }
  EXPECT_THROW(read_frames(path("clip.h5") + ":/frames/other"), Error);
  EXPECT_THROW(read_frames(path("clip.h5") + ":/framesdense"), Error);
}

TEST_F(FramesCapture, TheOnlyArmNeedsNoName) {
  store({"dense"});
  for (const char* rest : {"", ":/frames", ":/frames/"}) {
    expect_equal(read_frames(path("clip.h5") + rest), pattern(1, 4, 6));
  }
}

TEST_F(FramesCapture, NoArmsIsAnError) {
  store({});
  EXPECT_THROW(read_frames(path("clip.h5")), Error);
}

}  // namespace
}  // namespace raingauge
