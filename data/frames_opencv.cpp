// SPDX-License-Identifier: Apache-2.0
// PNG and MP4 through OpenCV, which stores BGR. Without OpenCV every entry says so.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <functional>

#include "data/error.h"
#include "data/frames.h"

#ifdef RAINGAUGE_WITH_OPENCV
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#endif

namespace raingauge {

namespace fs = std::filesystem;

#ifdef RAINGAUGE_WITH_OPENCV

namespace {

// OpenCV prints warnings; failures come back as Errors here.
class QuietOpenCv {
 public:
  QuietOpenCv() : before_(cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT)) {}
  ~QuietOpenCv() { cv::utils::logging::setLogLevel(before_); }
  QuietOpenCv(const QuietOpenCv&) = delete;
  QuietOpenCv& operator=(const QuietOpenCv&) = delete;

 private:
  cv::utils::logging::LogLevel before_;
};

template <typename Work>
auto guarded(const std::string& path, Work work) {
  const QuietOpenCv quiet;
  try {
    return work();
  } catch (const cv::Exception& problem) {
    throw Error(path + ": OpenCV: " + problem.err);
  }
}

cv::Mat bgr_of(const Frames& frames, std::int64_t index) {
  const cv::Mat rgb(
      static_cast<int>(frames.height), static_cast<int>(frames.width), CV_8UC3,
      const_cast<std::uint8_t*>(frames.rgb.data()) + index * frames.height * frames.width * 3);
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  return bgr;
}

// Appends an 8-bit BGR image; the first one sets the size.
void append_bgr(const cv::Mat& bgr, Frames& frames, const std::string& where) {
  if (frames.frames == 0) {
    frames.height = bgr.rows;
    frames.width = bgr.cols;
  }
  if (bgr.rows != frames.height || bgr.cols != frames.width) {
    throw Error(where + ": " + std::to_string(bgr.cols) + "x" + std::to_string(bgr.rows) +
                " pixels, the frames before it have " + std::to_string(frames.width) + "x" +
                std::to_string(frames.height));
  }
  ++frames.frames;
  const std::size_t begin = frames.rgb.size();
  frames.rgb.resize(static_cast<std::size_t>(
      checked_frame_bytes(frames.frames, frames.height, frames.width, where)));
  cv::Mat rgb(bgr.rows, bgr.cols, CV_8UC3, frames.rgb.data() + begin);
  cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
}

bool is_opaque(const cv::Mat& bgra) {
  cv::Mat alpha;
  cv::extractChannel(bgra, alpha, 3);
  return cv::countNonZero(alpha != 255) == 0;
}

void append_png(const std::string& path, Frames& frames) {
  const cv::Mat stored = cv::imread(path, cv::IMREAD_UNCHANGED);
  if (stored.empty()) throw Error(path + ": cannot be decoded as PNG");
  if (stored.depth() != CV_8U) throw Error(path + ": more than 8 bits a channel; frames have 8");
  cv::Mat bgr = stored;
  if (stored.channels() == 1) {
    cv::cvtColor(stored, bgr, cv::COLOR_GRAY2BGR);
  } else if (stored.channels() == 4) {
    if (!is_opaque(stored)) throw Error(path + ": has transparent pixels; flatten it to RGB");
    cv::cvtColor(stored, bgr, cv::COLOR_BGRA2BGR);
  } else if (stored.channels() != 3) {
    throw Error(path + ": " + std::to_string(stored.channels()) + " channels; frames are RGB");
  }
  append_bgr(bgr, frames, path);
}

double stated_fps(const cv::VideoCapture& video) {
  const double fps = video.get(cv::CAP_PROP_FPS);
  return fps > 0.0 && fps <= 1000.0 ? fps : 0.0;
}

std::string codec_name(const cv::VideoCapture& video) {
  const auto code = static_cast<std::uint32_t>(video.get(cv::CAP_PROP_FOURCC));
  std::string name;
  for (int byte = 0; byte < 4; ++byte) {
    const auto letter = static_cast<unsigned char>(code >> (8 * byte));
    if (std::isalnum(letter) != 0) name.push_back(static_cast<char>(letter));
  }
  return name.empty() ? "unknown" : name;
}

void require_one_frame(const Frames& frame, const std::string& where) {
  check_frames(frame, where);
  if (frame.frames != 1) {
    throw Error(where + ": a PNG holds one frame, got " + std::to_string(frame.frames) +
                "; name a folder for a clip");
  }
}

std::vector<fs::path> pngs_in(const std::string& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::string suffix = entry.path().extension().string();
    std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (suffix == ".png") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string numbered_png(std::int64_t index) {
  std::string digits = std::to_string(index);
  if (digits.size() < 5) digits.insert(0, 5 - digits.size(), '0');
  return digits + ".png";
}

void require_no_other_pngs(const std::string& folder, std::int64_t frames) {
  const std::vector<fs::path> present = pngs_in(folder);
  for (const fs::path& file : present) {
    const std::string name = file.filename().string();
    const bool replaced = name.size() >= 9 &&
                          std::all_of(name.begin(), name.end() - 4,
                                      [](unsigned char c) { return std::isdigit(c) != 0; }) &&
                          name.size() <= 13 && std::stoll(name) < frames &&
                          name == numbered_png(std::stoll(name));
    if (!replaced) {
      throw Error(folder + ": holds another PNG, " + name +
                  ", which would count as a frame; name a new or empty folder");
    }
  }
}

}  // namespace

bool has_opencv() { return true; }

Frames read_png(const std::string& path) {
  return guarded(path, [&] {
    Frames frames;
    append_png(path, frames);
    return frames;
  });
}

Frames read_png_folder(const std::string& folder) {
  return guarded(folder, [&] {
    Frames frames;
    for (const fs::path& file : pngs_in(folder)) append_png(file.string(), frames);
    if (frames.frames == 0) throw Error(folder + ": no .png files in this folder");
    return frames;
  });
}

std::vector<std::uint8_t> encode_png(const Frames& frame) {
  require_one_frame(frame, "PNG");
  return guarded("PNG", [&] {
    std::vector<std::uint8_t> bytes;
    if (!cv::imencode(".png", bgr_of(frame, 0), bytes)) throw Error("PNG: encoding failed");
    return bytes;
  });
}

void write_png(const std::string& path, const Frames& frame) {
  require_one_frame(frame, path);
  guarded(path, [&] {
    if (!cv::imwrite(path, bgr_of(frame, 0))) {
      throw Error(path + ": writing failed (does the folder exist? is the disk full?)");
    }
  });
}

void write_png_folder(const std::string& folder, const Frames& frames) {
  check_frames(frames, folder);
  fs::create_directories(folder);
  require_no_other_pngs(folder, frames.frames);
  guarded(folder, [&] {
    for (std::int64_t i = 0; i < frames.frames; ++i) {
      const std::string path = (fs::path(folder) / numbered_png(i)).string();
      if (!cv::imwrite(path, bgr_of(frames, i))) throw Error(path + ": writing failed");
    }
  });
}

Frames read_mp4(const std::string& path) {
  if (!fs::is_regular_file(path)) throw Error(path + ": no such file");
  return guarded(path, [&] {
    cv::VideoCapture video(path, cv::CAP_FFMPEG);
    if (!video.isOpened()) throw Error(path + ": cannot be opened as a video");
    const auto declared = static_cast<std::int64_t>(video.get(cv::CAP_PROP_FRAME_COUNT));
    Frames frames;
    frames.fps = stated_fps(video);
    frames.lossy = "MP4, codec " + codec_name(video) + ", Y'CbCr";
    for (cv::Mat bgr; video.read(bgr);) append_bgr(bgr, frames, path);
    // Containers without an index declare an estimate, which may be one off.
    if (frames.frames == 0 || frames.frames < declared - 1) {
      throw Error(path + ": " + std::to_string(frames.frames) + " frames could be decoded of " +
                  std::to_string(declared) + "; the file is damaged or cut short");
    }
    return frames;
  });
}

std::string write_mp4(const std::string& path, const Frames& frames, double fps) {
  check_frames(frames, path);
  if (!(fps > 0.0 && fps <= 1000.0)) {
    throw Error(path + ": " + std::to_string(fps) + " frames a second; allowed: in (0, 1000]");
  }
  if (frames.height % 2 != 0 || frames.width % 2 != 0) {
    throw Unsupported(path + ": MP4 needs even sides, the frames have " +
                      std::to_string(frames.width) + "x" + std::to_string(frames.height) +
                      "; write .npy, .y4m or PNGs");
  }
  return guarded(path, [&] {
    const cv::Size size(static_cast<int>(frames.width), static_cast<int>(frames.height));
    for (const char* codec : {"avc1", "mp4v"}) {
      cv::VideoWriter video(path, cv::CAP_FFMPEG,
                            cv::VideoWriter::fourcc(codec[0], codec[1], codec[2], codec[3]), fps,
                            size);
      if (!video.isOpened()) continue;
      for (std::int64_t i = 0; i < frames.frames; ++i) video.write(bgr_of(frames, i));
      video.release();
      if (fs::exists(path) && fs::file_size(path) > 0) return std::string(codec);
    }
    throw Error(path +
                ": no MP4 could be written (does the folder exist? OpenCV needs FFmpeg with "
                "an H.264 or MPEG-4 encoder); write .npy, .y4m or PNGs");
  });
}

#else

namespace {

[[noreturn]] void not_built(const std::string& where) {
  throw Unsupported(where + ": PNG and MP4 are not built (no OpenCV); use .npy or .y4m");
}

}  // namespace

bool has_opencv() { return false; }
Frames read_png(const std::string& path) { not_built(path); }
Frames read_png_folder(const std::string& folder) { not_built(folder); }
std::vector<std::uint8_t> encode_png(const Frames&) { not_built("PNG"); }
void write_png(const std::string& path, const Frames&) { not_built(path); }
void write_png_folder(const std::string& folder, const Frames&) { not_built(folder); }
Frames read_mp4(const std::string& path) { not_built(path); }
std::string write_mp4(const std::string& path, const Frames&, double) { not_built(path); }

#endif

}  // namespace raingauge
