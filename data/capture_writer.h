// SPDX-License-Identifier: Apache-2.0
// Writes captures, format 1, record by record and head by head, so that a file that is interrupted
// keeps its whole records and a record of any size needs one head of memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/capture.h"

namespace raingauge {

struct CaptureWriteOptions {
  bool overwrite = false;        // replace an existing file
  bool gzip = false;             // chunks (1, 4096, head_dim), shuffle + gzip-1; else contiguous
  bool allow_nonfinite = false;  // write NaN and Inf instead of refusing them
};

class CaptureWriter {
 public:
  // Creates the file and writes the root attributes of `info` (its path, complete and schedule are
  // not read; a generation is written when it is given). Until finish() the file counts as
  // interrupted.
  CaptureWriter(const std::string& path, const CaptureInfo& info,
                const CaptureWriteOptions& options = {});
  ~CaptureWriter();
  CaptureWriter(CaptureWriter&&) noexcept;
  CaptureWriter& operator=(CaptureWriter&&) noexcept;

  // Replaces the schedule; either may be empty.
  void set_schedule(std::span<const double> timesteps, std::span<const double> sigmas);

  // A whole record. Shapes come from `info` (heads, tokens, head_dim, dtype); views of another
  // dtype are rounded to it. `info.sha256_*` are ignored and written from what is stored. `o` may
  // be null; `key_valid` is [tokens] or empty.
  void write_record(const RecordInfo& info, const TensorView& q, const TensorView& k,
                    const TensorView& v, const TensorView* o = nullptr,
                    std::span<const std::uint8_t> key_valid = {});

  // The same, head by head in the order of info.heads: begin_record(), one write_head() a head with
  // views [1, tokens, head_dim], end_record(). `o` of every head or of none, as `info.has_output`.
  // `output_dtype` is that of `o`, by default info.dtype.
  void begin_record(const RecordInfo& info, std::span<const std::uint8_t> key_valid = {},
                    std::optional<DType> output_dtype = std::nullopt);
  void write_head(const TensorView& q, const TensorView& k, const TensorView& v,
                  const TensorView* o = nullptr);
  void end_record();
  // Drops the record in progress, if there is one.
  void abandon_record();

  // RGB, [frames, height, width, 3]; replaces earlier frames of the arm.
  void write_frames(const std::string& arm, const Frames& frames);

  // Writes complete = 1 and closes the file. Without it the file stays readable as interrupted.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace raingauge
