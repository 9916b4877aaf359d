// SPDX-License-Identifier: Apache-2.0
// Captures to and from safetensors and .npy. One head is in memory at a time; bits are kept.
//
// A safetensors file holds `records/000042/q` … and, as metadata `raingauge`, the JSON of everything that
// is no tensor; a .npy folder holds 000042_q.npy … and capture.json with the same (bf16 has no name in
// NumPy: its bits are stored as uint16 and the JSON says `bf16`).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/capture_copy.h"

namespace raingauge {

// `target` ends in .safetensors, or is a folder to be made. Returns the number of records written.
int export_capture(const std::string& source, const std::string& target,
                   const CaptureSelection& selection, bool overwrite);

// How arrays of other programs are to be read; not needed for what export_capture() wrote.
struct ImportOptions {
  std::vector<int> grid;  // frames, height, width of every visual run, in tokens
  std::string text_pos;   // `front`, `back`; empty: no text
  std::string layout;     // `hnd`, `nhd`, `bhnd`, `bnhd`; empty: told from the shape and the grid
  int step = 0;
  int layer = 0;
  std::string branch = "cond";
  std::optional<double> scale;  // default 1/sqrt(head_dim)
};

// `source` is a .safetensors file or a folder of .npy files: one that export_capture() wrote, or arrays
// named q, k and v (or ending in /q, .q or _q …), which become one record. Returns the records written.
int import_arrays(const std::string& source, const std::string& target,
                  const ImportOptions& options, const CaptureWriteOptions& write);

// Which axes of `shape` are heads, tokens and head_dim? `tokens`: their number where it is known, else 0
// (then at least `least_tokens`). Throws Error when the shape fits no layout or several.
struct ArrayLayout {
  std::string name;  // "hnd" …
  std::int64_t heads = 0, tokens = 0, head_dim = 0;
  std::int64_t head_stride = 0, token_stride = 0;  // in elements
};
ArrayLayout detect_layout(const std::vector<std::int64_t>& shape, const std::string& wanted,
                          std::int64_t least_tokens, std::int64_t tokens, const std::string& where);

}  // namespace raingauge
