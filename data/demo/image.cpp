// SPDX-License-Identifier: Apache-2.0
#include "data/demo/image.h"

#include <fstream>

#include "data/demo/codec.h"
#include "data/error.h"

#ifdef RAINGAUGE_WITH_OPENCV
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#endif

namespace raingauge::demo {
namespace {

void write_ppm(const std::filesystem::path& path, const std::vector<std::uint8_t>& bytes,
               int64_t height, int64_t width) {
  std::ofstream stream(path, std::ios::binary);
  stream << "P6\n" << width << " " << height << "\n255\n";
  stream.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  if (!stream) throw Error(path.string() + ": cannot be written");
}

#ifdef RAINGAUGE_WITH_OPENCV
void write_png(const std::filesystem::path& path, std::vector<std::uint8_t>& bytes, int64_t height,
               int64_t width) {
  const cv::Mat rgb(static_cast<int>(height), static_cast<int>(width), CV_8UC3, bytes.data());
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  if (!cv::imwrite(path.string(), bgr)) throw Error(path.string() + ": cannot be written");
}
#endif

}  // namespace

void write_image(const std::filesystem::path& path, const at::Tensor& pixels) {
  std::vector<std::uint8_t> bytes = to_rgb8(pixels);
  const int64_t height = pixels.size(0), width = pixels.size(1);
  if (path.extension() == ".ppm") return write_ppm(path, bytes, height, width);
#ifdef RAINGAUGE_WITH_OPENCV
  if (path.extension() == ".png") return write_png(path, bytes, height, width);
  throw Error(path.string() + ": an image is written as .png or .ppm");
#else
  throw Error(path.string() + ": this build writes .ppm only (no OpenCV)");
#endif
}

}  // namespace raingauge::demo
