// SPDX-License-Identifier: Apache-2.0
// Clips of 8-bit RGB frames on disk: what is compared, and what people look at.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/capture.h"  // struct Frames, and frames stored in captures

namespace raingauge {

// The frames a second where no file says: that of the demo DiT and of Wan.
inline constexpr double kUsualFps = 16.0;

// Reads by name: a folder of PNGs (sorted by file name), .npy, .y4m, .mp4, FILE.h5:/frames/ARM (the
// arm may be left out when there is one), or one .png. Throws Error that says what was wrong with
// the file, and Unsupported for PNG and MP4 when this build has no OpenCV.
Frames read_frames(const std::string& source);

// Writes by name: .npy, .y4m, .mp4, one .png (one frame), or a folder of PNGs for a name without
// suffix. Returns what was written, with the codec: "npy", "y4m 4:4:4 BT.601", "mp4 avc1", "png".
// Only .npy and PNG are lossless.
std::string write_frames(const std::string& target, const Frames& frames, double fps = kUsualFps);

// uint8 [F, H, W, 3] in C order only.
Frames read_npy(const std::string& path);
void write_npy(const std::string& path, const Frames& frames);

// 8-bit 4:4:4 and 4:2:0 (chroma repeated over its 2x2 pixels), progressive, BT.601; limited range,
// or full where the header says XCOLORRANGE=FULL. Written as 4:4:4, limited range.
Frames read_y4m(const std::string& path);
void write_y4m(const std::string& path, const Frames& frames, double fps);

// PNG and MP4 go through OpenCV. PNGs: 8 bits, grey (repeated), RGB, or RGBA without transparency.
Frames read_png(const std::string& path);  // one frame
Frames read_png_folder(const std::string& folder);
void write_png(const std::string& path, const Frames& frame);  // one frame
std::vector<std::uint8_t> encode_png(const Frames& frame);     // one frame, as a file's bytes
void write_png_folder(const std::string& folder, const Frames& frames);  // 00000.png, 00001.png …
Frames read_mp4(const std::string& path);
// H.264 (avc1) where OpenCV has an encoder for it, else MPEG-4 part 2 (mp4v); returns which. Sides
// must be even.
std::string write_mp4(const std::string& path, const Frames& frames, double fps);
bool has_opencv();

// |test - reference| x gain, clamped to 255: black where the clips agree.
Frames difference_frames(const Frames& reference, const Frames& test, int gain = 8);

// One frame of `frame`'s pixels x … x + width - 1, y … y + height - 1, each repeated zoom x zoom times.
// Throws Error when they do not lie inside the frame.
Frames crop_frame(const Frames& frames, std::int64_t frame, std::int64_t x, std::int64_t y,
                  std::int64_t width, std::int64_t height, int zoom = 1);

// One image: a row for every clip, a column for every frame number, `gap` white pixels between.
// For instance rows {dense, arm, difference_frames(dense, arm)}.
Frames contact_sheet(std::span<const Frames* const> clips, std::span<const int> frame_numbers,
                     int gap = 2);

// Throws Error (prefixed by `where`) unless every side is at least 1 and `rgb` holds every byte.
void check_frames(const Frames& frames, const std::string& where);

// frames x height x width x 3. Throws Error (prefixed by `where`) when a side is not in 1 … 65536
// or the product exceeds 2^40.
std::int64_t checked_frame_bytes(std::int64_t frames, std::int64_t height, std::int64_t width,
                                 const std::string& where);

}  // namespace raingauge
