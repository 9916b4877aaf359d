// SPDX-License-Identifier: Apache-2.0
// Block pairs that are kept whatever their score: first-frame sink, text, and two controls.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "methods/arrangement.h"

namespace raingauge {

struct ForcedSpec {
  // none, rows, cols, both; another_frame (the frame in the middle instead of frame 0) and
  // random_blocks (as many visual blocks, drawn) are controls of `both`.
  std::string sink = "none";
  std::string text = "both";  // none, rows, cols, both
  std::uint64_t seed = 0;     // of random_blocks
};

// Over score blocks; shared by all heads.
struct ForcedBlocks {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<std::uint8_t> mask;  // [rows, columns]

  bool at(std::int64_t row, std::int64_t column) const {
    return mask[static_cast<std::size_t>(row * columns + column)] != 0;
  }
};

// Throws Unsupported when a sink is asked for and the pinned frame has no blocks of its own.
ForcedBlocks forced_blocks(const Arrangement& arrangement, const ForcedSpec& spec);

}  // namespace raingauge
