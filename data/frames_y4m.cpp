// SPDX-License-Identifier: Apache-2.0
// YUV4MPEG2 (.y4m): a text line of parameters, then frames of a text line and three planes. Colour
// is BT.601: Y' = Kr R + Kg G + Kb B with Kr = 0.299, Kb = 0.114; limited range holds Y in 16 … 235
// and Cb, Cr in 16 … 240 around 128.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "data/error.h"
#include "data/frames.h"

namespace raingauge {
namespace {

constexpr double kKr = 0.299;
constexpr double kKb = 0.114;
constexpr double kKg = 1.0 - kKr - kKb;
constexpr std::size_t kMostLine = 4096;

struct Y4mHeader {
  std::int64_t height = 0;
  std::int64_t width = 0;
  bool subsampled = true;  // 4:2:0, the default when no C parameter is given
  bool full_range = false;
  double fps = 0.0;

  std::int64_t chroma_height() const { return subsampled ? (height + 1) / 2 : height; }
  std::int64_t chroma_width() const { return subsampled ? (width + 1) / 2 : width; }
  std::int64_t plane() const { return height * width; }
  std::int64_t chroma_plane() const { return chroma_height() * chroma_width(); }
  std::int64_t frame_bytes() const { return plane() + 2 * chroma_plane(); }
};

// Up to and without the newline; false at the end of the file.
bool read_line(std::ifstream& file, std::string& line, const std::string& path) {
  line.clear();
  for (int c = file.get(); c != std::ifstream::traits_type::eof(); c = file.get()) {
    if (c == '\n') return true;
    line.push_back(static_cast<char>(c));
    if (line.size() > kMostLine) throw Error(path + ": a header line of more than 4096 bytes");
  }
  if (!line.empty()) throw Error(path + ": the file ends inside a header line");
  return false;
}

std::int64_t parse_side(const std::string& parameter, const std::string& path) {
  std::int64_t value = 0;
  const char* end = parameter.data() + parameter.size();
  const auto [rest, problem] = std::from_chars(parameter.data() + 1, end, value);
  if (problem != std::errc() || rest != end) {
    throw Error(path + ": header parameter '" + parameter + "' is no size");
  }
  return value;
}

// F25:1; 0 where the header does not say (F0:0) or makes no sense.
double parse_rate(const std::string& parameter) {
  std::istringstream text(parameter.substr(1));
  double frames = 0.0;
  double seconds = 0.0;
  char colon = 0;
  text >> frames >> colon >> seconds;
  const double fps = colon == ':' && seconds > 0.0 ? frames / seconds : 0.0;
  return fps > 0.0 && fps <= 1000.0 ? fps : 0.0;
}

void parse_colour(const std::string& name, Y4mHeader& header, const std::string& path) {
  if (name == "444") {
    header.subsampled = false;
  } else if (name != "420" && name != "420jpeg" && name != "420mpeg2" && name != "420paldv") {
    throw Error(path + ": colour space 'C" + name +
                "'; read are 8-bit C444, C420, C420jpeg, C420mpeg2 and C420paldv");
  }
}

Y4mHeader read_header(std::ifstream& file, const std::string& path) {
  std::string line;
  if (!read_line(file, line, path) || line.rfind("YUV4MPEG2", 0) != 0) {
    throw Error(path + ": not a Y4M file (it does not start with YUV4MPEG2)");
  }
  Y4mHeader header;
  std::istringstream words(line);
  std::string word;
  words >> word;
  if (word != "YUV4MPEG2") throw Error(path + ": not a Y4M file: '" + word + "'");
  while (words >> word) {
    if (word[0] == 'W') header.width = parse_side(word, path);
    if (word[0] == 'H') header.height = parse_side(word, path);
    if (word[0] == 'C') parse_colour(word.substr(1), header, path);
    if (word[0] == 'F') header.fps = parse_rate(word);
    if (word[0] == 'I' && word != "Ip" && word != "I?") {
      throw Error(path + ": interlaced ('" + word + "'); only progressive frames are read");
    }
    if (word.rfind("XCOLORRANGE=", 0) == 0) header.full_range = word == "XCOLORRANGE=FULL";
  }
  checked_frame_bytes(1, header.height, header.width, path);
  return header;
}

std::uint8_t rounded(double value) {
  return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
}

void convert_frame(const std::vector<std::uint8_t>& planes, const Y4mHeader& header,
                   std::uint8_t* rgb) {
  const std::uint8_t* luma = planes.data();
  const std::uint8_t* blue = luma + header.plane();
  const std::uint8_t* red = blue + header.chroma_plane();
  const double luma_scale = header.full_range ? 1.0 : 255.0 / 219.0;
  const double chroma_scale = header.full_range ? 1.0 : 255.0 / 224.0;
  const double black = header.full_range ? 0.0 : 16.0;
  const int shift = header.subsampled ? 1 : 0;
  for (std::int64_t y = 0; y < header.height; ++y) {
    for (std::int64_t x = 0; x < header.width; ++x, rgb += 3) {
      const std::int64_t chroma = (y >> shift) * header.chroma_width() + (x >> shift);
      const double grey = luma_scale * (luma[y * header.width + x] - black);
      const double cb = chroma_scale * (blue[chroma] - 128.0);
      const double cr = chroma_scale * (red[chroma] - 128.0);
      rgb[0] = rounded(grey + 2.0 * (1.0 - kKr) * cr);
      rgb[1] = rounded(grey - 2.0 * (kKb * (1.0 - kKb) * cb + kKr * (1.0 - kKr) * cr) / kKg);
      rgb[2] = rounded(grey + 2.0 * (1.0 - kKb) * cb);
    }
  }
}

std::string rate_text(double fps) {
  const double whole = std::round(fps);
  if (std::abs(fps - whole) < 1e-9) return std::to_string(std::lround(whole)) + ":1";
  return std::to_string(std::lround(fps * 1001.0)) + ":1001";
}

}  // namespace

Frames read_y4m(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + ": cannot be opened");
  const Y4mHeader header = read_header(file, path);
  if (static_cast<std::uintmax_t>(header.frame_bytes()) > std::filesystem::file_size(path)) {
    throw Error(path + ": the file is smaller than one frame of " + std::to_string(header.width) +
                "x" + std::to_string(header.height));
  }
  Frames frames{0,  header.height, header.width,
                {}, header.fps,    header.subsampled ? "Y4M, Y'CbCr 4:2:0" : "Y4M, Y'CbCr 4:4:4"};
  std::vector<std::uint8_t> planes;
  std::string line;
  while (read_line(file, line, path)) {
    if (line != "FRAME" && line.rfind("FRAME ", 0) != 0) {
      throw Error(path + ": frame " + std::to_string(frames.frames) + " does not start with FRAME");
    }
    planes.resize(static_cast<std::size_t>(header.frame_bytes()));
    if (!file.read(reinterpret_cast<char*>(planes.data()), header.frame_bytes())) {
      throw Error(path + ": the file ends inside frame " + std::to_string(frames.frames));
    }
    const std::size_t begin = frames.rgb.size();
    ++frames.frames;
    frames.rgb.resize(static_cast<std::size_t>(
        checked_frame_bytes(frames.frames, frames.height, frames.width, path)));
    convert_frame(planes, header, frames.rgb.data() + begin);
  }
  if (frames.frames == 0) throw Error(path + ": no frames after the header");
  return frames;
}

void write_y4m(const std::string& path, const Frames& frames, double fps) {
  check_frames(frames, path);
  if (!(fps > 0.0 && fps <= 1000.0)) {
    throw Error(path + ": " + std::to_string(fps) + " frames a second; allowed: in (0, 1000]");
  }
  std::ofstream file(path, std::ios::binary);
  file << "YUV4MPEG2 W" << frames.width << " H" << frames.height << " F" << rate_text(fps)
       << " Ip A1:1 C444 XCOLORRANGE=LIMITED\n";
  const auto plane = static_cast<std::size_t>(frames.height * frames.width);
  std::vector<std::uint8_t> planes(3 * plane);
  const std::uint8_t* rgb = frames.rgb.data();
  for (std::int64_t frame = 0; frame < frames.frames; ++frame) {
    for (std::size_t i = 0; i < plane; ++i, rgb += 3) {
      const double grey = kKr * rgb[0] + kKg * rgb[1] + kKb * rgb[2];
      planes[i] = rounded(16.0 + 219.0 / 255.0 * grey);
      planes[plane + i] = rounded(128.0 + 224.0 / 255.0 * (rgb[2] - grey) / (2.0 * (1.0 - kKb)));
      planes[2 * plane + i] =
          rounded(128.0 + 224.0 / 255.0 * (rgb[0] - grey) / (2.0 * (1.0 - kKr)));
    }
    file << "FRAME\n";
    file.write(reinterpret_cast<const char*>(planes.data()),
               static_cast<std::streamsize>(planes.size()));
  }
  file.close();
  if (!file) throw Error(path + ": writing failed (does the folder exist? is the disk full?)");
}

}  // namespace raingauge
