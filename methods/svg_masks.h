// SPDX-License-Identifier: Apache-2.0
// The masks of SVG (Sparse VideoGen, arXiv 2502.01776) as its released code builds them for three
// models: the band that is executed, and the wider fixed one that heads are classified with.
#pragma once

#include <cstdint>
#include <vector>

#include "data/record.h"
#include "methods/static_mask.h"

namespace raingauge::svg {

enum class Model { wan, hunyuan, cogvideox };

// The sequence as a model has it: [video][text][pad], or [text][video][pad] for cogvideox. A position
// is a place in that sequence; in the temporal arrangement patch p of frame f stands at p * frames + f
// of the video.
struct Sequence {
  Model model = Model::wan;
  std::int64_t frames = 0, frame_size = 0;
  std::int64_t video_begin = 0;                 // position
  std::int64_t text_begin = 0, text = 0;        // position and count of prompt tokens
  std::int64_t pad = 0;                         // at the end
  std::vector<std::int32_t> spatial, temporal;  // position -> token of the record

  std::int64_t video() const { return frames * frame_size; }
  std::int64_t tokens() const { return video() + text + pad; }
  std::int64_t real() const { return video() + text; }  // positions that are no padding
  bool in_text(std::int64_t position) const {
    return position >= text_begin && position < text_begin + text;
  }
};

// Throws Unsupported for records without exactly one video.
Sequence sequence_of(const Segments& segments, Model model);

// Width of the band for the authors' `--sparsity` (a target density): positions, rounded to 128 as
// each model's code does. Throws Infeasible when text alone exceeds the density, Unsupported when the
// rounding leaves no band.
std::int64_t band_width(const Sequence& sequence, double density);

// The executed mask, priced by band width (for `hunyuan` and `cogvideox`, whose band is |q - k| < w,
// price <= w - 1). Sink columns (wan), text rows and columns, and the island of padding are forced.
PricedMask executed_mask(const Sequence& sequence, int block, bool pad_keys_valid = true);
double knob_of(const Sequence& sequence, std::int64_t width);

// The fixed mask that classification uses; the same matrix in either arrangement, except for
// cogvideox, whose temporal one has no text at all.
PricedMask profile_mask(const Sequence& sequence, bool temporal);

}  // namespace raingauge::svg
