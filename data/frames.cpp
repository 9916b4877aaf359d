// SPDX-License-Identifier: Apache-2.0
// Which reader or writer a name means, and what is common to all of them.
#include "data/frames.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "data/error.h"

namespace raingauge {
namespace {

namespace fs = std::filesystem;

constexpr char kFramesGroup[] = ":/frames";
constexpr char kKnownNames[] =
    "a folder of PNGs, .png, .npy [F, H, W, 3] uint8, .y4m, .mp4, or FILE.h5:/frames/ARM";

std::string lower_suffix(const std::string& name) {
  std::string suffix = fs::path(name).extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return suffix;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

Frames read_captured(const std::string& path, std::string arm) {
  const Capture capture = Capture::open(path);
  if (arm.empty()) {
    const std::vector<std::string> arms = capture.frame_arms();
    if (arms.size() != 1) {
      throw Error(path + ": /frames holds " + std::to_string(arms.size()) + " arms (" +
                  joined(arms) + "); name one: " + path + ":/frames/ARM");
    }
    arm = arms.front();
  }
  Frames frames = capture.read_frames(arm);
  frames.fps = capture.info().fps.value_or(0.0);
  return frames;
}

Frames read_any(const std::string& source) {
  const std::size_t group = source.rfind(kFramesGroup);
  if (group != std::string::npos) {
    std::string arm = source.substr(group + sizeof kFramesGroup - 1);
    if (!arm.empty() && arm.front() != '/') {
      throw Error(source + ": frames of a capture are named FILE.h5:/frames/ARM");
    }
    return read_captured(source.substr(0, group), arm.empty() ? arm : arm.substr(1));
  }
  if (!fs::exists(source)) throw Error(source + ": no such file or folder");
  if (fs::is_directory(source)) return read_png_folder(source);
  const std::string suffix = lower_suffix(source);
  if (suffix == ".npy") return read_npy(source);
  if (suffix == ".y4m") return read_y4m(source);
  if (suffix == ".mp4") return read_mp4(source);
  if (suffix == ".png") return read_png(source);
  if (suffix == ".h5" || suffix == ".hdf5") return read_captured(source, "");
  throw Error(source + ": frames are " + kKnownNames);
}

}  // namespace

std::int64_t checked_frame_bytes(std::int64_t frames, std::int64_t height, std::int64_t width,
                                 const std::string& where) {
  constexpr std::int64_t kMostSide = 65536;
  constexpr std::int64_t kMostBytes = std::int64_t{1} << 40;
  const auto outside = [](std::int64_t side) { return side < 1 || side > kMostSide; };
  const bool sides_fit = !outside(frames) && !outside(height) && !outside(width);
  // 65536^3 * 3 < 2^50: no overflow.
  if (!sides_fit || frames * height * width * 3 > kMostBytes) {
    throw Error(where + ": " + std::to_string(frames) + " frames of " + std::to_string(width) +
                "x" + std::to_string(height) +
                "; each number must be in 1 … 65536, and all frames together within 1 TiB");
  }
  return frames * height * width * 3;
}

void check_frames(const Frames& frames, const std::string& where) {
  const std::int64_t bytes = checked_frame_bytes(frames.frames, frames.height, frames.width, where);
  if (static_cast<std::int64_t>(frames.rgb.size()) != bytes) {
    throw Error(where + ": " + std::to_string(frames.rgb.size()) + " bytes of RGB for " +
                std::to_string(frames.frames) + " frames of " + std::to_string(frames.width) + "x" +
                std::to_string(frames.height));
  }
}

Frames read_frames(const std::string& source) {
  Frames frames = read_any(source);
  check_frames(frames, source);
  return frames;
}

std::string write_frames(const std::string& target, const Frames& frames, double fps) {
  check_frames(frames, target);
  const std::string suffix = lower_suffix(target);
  if (suffix == ".npy") {
    write_npy(target, frames);
    return "npy";
  }
  if (suffix == ".y4m") {
    write_y4m(target, frames, fps);
    return "y4m 4:4:4 BT.601";
  }
  if (suffix == ".mp4") return "mp4 " + write_mp4(target, frames, fps);
  if (suffix == ".png") {
    write_png(target, frames);
    return "png";
  }
  if (!suffix.empty() && !fs::is_directory(target)) {
    throw Error(target +
                ": frames are written as .npy, .y4m, .mp4, .png (one frame), or a folder "
                "of PNGs (a name without suffix)");
  }
  write_png_folder(target, frames);
  return "png";
}

}  // namespace raingauge
