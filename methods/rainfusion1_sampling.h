// SPDX-License-Identifier: Apache-2.0
// What RainFusion v1 (arXiv 2505.21036) cuts a record into, and its sampled recall.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "data/record.h"

namespace raingauge::rf1 {

using Tokens = std::vector<std::int32_t>;

// The parts of a record, as tokens.
struct Parts {
  std::int64_t frames = 0, frame_size = 0;  // of the whole video
  int height = 0, width = 0;
  Tokens raster;       // frames 1 … F-1
  Tokens patch_major;  // the same, (h w f)
  Tokens tail;         // text, frame 0, pad

  std::int64_t rest() const { return static_cast<std::int64_t>(raster.size()); }
};

// Throws Unsupported for records without exactly one video.
Parts parts_of(const Segments& segments);

// Keys on the checkerboard row mod stride = column mod stride first, then the other residues in turn.
// `first`: how many are on it.
Tokens checkerboard(const Parts& parts, int stride, std::size_t* first);

// Mean share of the softmax mass of `tokens` against themselves that |i - j| <= half_width holds, fp32
// scores times head_dim^-1/2, sums in fp64.
double band_recall(const RecordView& record, std::int64_t head, const Tokens& tokens,
                   std::int64_t half_width);

}  // namespace raingauge::rf1
