// SPDX-License-Identifier: Apache-2.0
// Captures on disk, format 1: one HDF5 file holds the Q, K, V of one generation. This is the
// reader; data/capture_writer.h writes and data/capture_check.h validates and copies.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/record.h"

namespace raingauge {

constexpr int kCaptureVersion = 1;

// Root attributes. Empty strings and absent values: not recorded.
struct CaptureInfo {
  std::string path;
  bool complete = false;
  std::string
      generation;  // "<model>|seed <seed>|<8 hex of the prompt's sha256>" or the file's stem
  std::string model_id, pipeline, config, prompt, negative_prompt, scheduler, command, libraries,
      created;
  std::string seed;  // decimal text: seeds use all 64 bits, signed or not
  std::optional<int> steps, frames, height, width;
  std::optional<double> guidance, fps;
  std::vector<int> patch;  // [frames, height, width] or empty
  std::vector<double> timesteps, sigmas;
};

struct OpenOptions {
  bool allow_nonfinite = false;  // load records with NaN or Inf instead of refusing them
  bool map = true;               // map uncompressed records instead of reading them
};

// How q, k and v of a record lie in the file.
struct RecordStorage {
  bool chunked = false;
  std::array<std::int64_t, 3> chunk{};  // [heads, tokens, head_dim] of a chunk of q
  std::int64_t stored_bytes = 0;        // of q, k and v together
  std::optional<DType> output_dtype;    // of `o`, when there is one
};

// RGB, [frames, height, width, 3].
struct Frames {
  std::int64_t frames = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<std::uint8_t> rgb;
  double fps = 0.0;        // frames a second; 0: the file does not say
  std::string lossy = {};  // what the file's format put the frames through; empty: nothing
};

// Identity of a generation: "<model>|seed <seed>|<8 hex of the prompt's sha256>" when prompt and
// seed are both recorded, otherwise the file name's stem.
std::string generation_id(const CaptureInfo& info);

class Capture {
 public:
  // Reads attributes and shapes, no tensors. A capture that was interrupted opens with a warning
  // and lists its whole records; in a complete one a damaged record is an Error.
  static Capture open(const std::string& path, const OpenOptions& options = {});
  Capture(Capture&&) noexcept;
  Capture& operator=(Capture&&) noexcept;
  ~Capture();

  const CaptureInfo& info() const;
  const std::vector<RecordInfo>& records() const;  // by ascending number
  const std::vector<std::string>& warnings() const;
  const RecordInfo& record(int number) const;  // throws Error listing what there is

  // `heads`: original head numbers in the order wanted; empty means all stored ones. The result
  // outlives the capture. Uncompressed records are mapped (no copy) where the wanted heads are
  // evenly spaced; others are read into memory. Loading one head of a big record costs one head.
  // Throws NotFinite naming head, token and channel.
  std::unique_ptr<Record> load(const RecordInfo& record, std::span<const int> heads = {}) const;

  // Dataset `o`, the dense output of the model's own kernel, as float: [heads, tokens, head_dim].
  // Throws Error when the record has none.
  std::vector<float> load_output(const RecordInfo& record, std::span<const int> heads = {}) const;

  RecordStorage storage_of(const RecordInfo& record) const;

  std::vector<std::string> frame_arms() const;
  Frames read_frames(const std::string& arm) const;

 private:
  struct File;
  explicit Capture(std::unique_ptr<File> file);
  std::unique_ptr<File> file_;
};

}  // namespace raingauge
