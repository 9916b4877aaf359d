// SPDX-License-Identifier: Apache-2.0
// Clips as NumPy arrays: uint8 [F, H, W, 3].
#include <fstream>

#include "data/array_file.h"
#include "data/error.h"
#include "data/frames.h"
#include "data/npy_header.h"

namespace raingauge {
namespace {

void require_rgb_bytes(const NpyHeader& header, const std::string& path) {
  if (header.descr != "|u1" && header.descr != "u1" && header.descr != "<u1" &&
      header.descr != ">u1") {
    throw Error(path + ": elements of type '" + header.descr +
                "'; frames are uint8 ('|u1'): scale to 0 … 255, round and store as uint8");
  }
  if (header.fortran_order) {
    throw Error(path + ": stored in Fortran order; store numpy.ascontiguousarray(frames)");
  }
  if (header.shape.size() != 4 || header.shape[3] != 3) {
    throw Error(path + ": shape " + shape_text(header.shape) +
                "; frames are [frames, height, width, 3]");
  }
}

}  // namespace

Frames read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + ": cannot be opened");
  const NpyHeader header = read_npy_header(file, path);
  require_rgb_bytes(header, path);
  const std::int64_t bytes =
      checked_frame_bytes(header.shape[0], header.shape[1], header.shape[2], path);
  const auto begin = file.tellg();
  file.seekg(0, std::ios::end);
  const std::int64_t stored = file.tellg() - begin;
  if (stored != bytes) {
    throw Error(path + ": " + std::to_string(stored) + " bytes of elements, but shape " +
                shape_text(header.shape) + " needs " + std::to_string(bytes));
  }
  file.seekg(begin);
  Frames frames{header.shape[0], header.shape[1], header.shape[2], {}};
  frames.rgb.resize(static_cast<std::size_t>(bytes));
  if (!file.read(reinterpret_cast<char*>(frames.rgb.data()), bytes)) {
    throw Error(path + ": reading failed");
  }
  return frames;
}

void write_npy(const std::string& path, const Frames& frames) {
  check_frames(frames, path);
  std::ofstream file(path, std::ios::binary);
  file << npy_header("|u1", {frames.frames, frames.height, frames.width, 3});
  file.write(reinterpret_cast<const char*>(frames.rgb.data()),
             static_cast<std::streamsize>(frames.rgb.size()));
  file.close();
  if (!file) throw Error(path + ": writing failed (does the folder exist? is the disk full?)");
}

}  // namespace raingauge
