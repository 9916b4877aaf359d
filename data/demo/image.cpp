// SPDX-License-Identifier: Apache-2.0
#include "data/demo/image.h"

#include <fstream>

#include "data/demo/codec.h"
#include "data/error.h"
#include "data/frames.h"

namespace raingauge::demo {
namespace {

// Needs no library: for hosts without OpenCV.
void write_ppm(const std::filesystem::path& path, const Frames& image) {
  std::ofstream stream(path, std::ios::binary);
  stream << "P6\n" << image.width << " " << image.height << "\n255\n";
  stream.write(reinterpret_cast<const char*>(image.rgb.data()),
               static_cast<std::streamsize>(image.rgb.size()));
  if (!stream) throw Error(path.string() + ": cannot be written");
}

}  // namespace

void write_image(const std::filesystem::path& path, const at::Tensor& pixels) {
  const Frames image{1, pixels.size(0), pixels.size(1), to_rgb8(pixels)};
  if (path.extension() == ".ppm") return write_ppm(path, image);
  if (path.extension() == ".png") return raingauge::write_png(path.string(), image);
  throw Error(path.string() + ": an image is written as .png or .ppm");
}

}  // namespace raingauge::demo
