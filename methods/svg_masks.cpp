// SPDX-License-Identifier: Apache-2.0
#include "methods/svg_masks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "data/error.h"
#include "methods/head_plans.h"

namespace raingauge::svg {
namespace {

constexpr int kBlock = 128;  // of the profile masks, and the multiple that widths are rounded to

std::vector<std::int32_t> video_order(const Segment& video, bool temporal) {
  std::vector<std::int32_t> order;
  const auto frame_size = video.frame_size();
  for (std::int64_t i = 0; i < video.length; ++i) {
    const auto source = temporal ? i % video.frames * frame_size + i / video.frames : i;
    order.push_back(static_cast<std::int32_t>(video.start + source));
  }
  return order;
}

// A band of block pairs that no text, sink or padding changes.
bool in_profile_band(const Sequence& s, std::int64_t i, std::int64_t j) {
  const double frames = s.model == Model::wan ? 2.0 : 1.5;
  const auto reach =
      static_cast<std::int64_t>(std::floor(frames * static_cast<double>(s.frame_size) / kBlock));
  return std::abs(i - j) < reach;
}

// Least |q - k| over the positions of two blocks that lie below `end`; negative when one has none.
std::int64_t distance_below(const PricedMask& mask, std::int64_t i, std::int64_t j,
                            std::int64_t end) {
  const auto q = static_cast<std::size_t>(i);
  const auto k = static_cast<std::size_t>(j);
  const std::int64_t q_last = std::min<std::int64_t>(mask.q_offsets[q + 1], end) - 1;
  const std::int64_t k_last = std::min<std::int64_t>(mask.k_offsets[k + 1], end) - 1;
  if (q_last < mask.q_offsets[q] || k_last < mask.k_offsets[k]) return -1;
  return std::max({std::int64_t{0}, mask.k_offsets[k] - q_last, mask.q_offsets[q] - k_last});
}

// Padding attends padding and nothing else (hunyuan). Where those keys are masked out, padding queries
// keep the text columns, so that no row is empty.
void force_padding(const Sequence& s, bool pad_keys_valid, PricedMask& mask) {
  if (s.pad == 0) return;
  const auto begins_in_pad = [&](const std::vector<std::int32_t>& offsets, std::int64_t b) {
    return offsets[static_cast<std::size_t>(b)] >= s.real();
  };
  const auto ends_in_pad = [&](const std::vector<std::int32_t>& offsets, std::int64_t b) {
    return offsets[static_cast<std::size_t>(b) + 1] > s.real();
  };
  for (std::int64_t i = 0; i < mask.rows(); ++i) {
    for (std::int64_t j = 0; j < mask.columns(); ++j) {
      auto& forced = mask.forced.mask[static_cast<std::size_t>(i * mask.columns() + j)];
      const bool q_pad = ends_in_pad(mask.q_offsets, i);
      const bool k_pad = ends_in_pad(mask.k_offsets, j);
      if (q_pad && k_pad) forced = 1;
      if (!q_pad && begins_in_pad(mask.k_offsets, j)) forced = 0;
      if (!k_pad && begins_in_pad(mask.q_offsets, i) && pad_keys_valid) forced = 0;
    }
  }
}

}  // namespace

Sequence sequence_of(const Segments& segments, Model model) {
  const Segment& video = only_video(segments, "SVG");
  Sequence s;
  s.model = model;
  s.frames = video.frames;
  s.frame_size = video.frame_size();
  const auto text = tokens_of(segments, Role::text);
  const auto pad = tokens_of(segments, Role::pad);
  s.text = static_cast<std::int64_t>(text.size());
  s.pad = static_cast<std::int64_t>(pad.size());
  const bool text_first = model == Model::cogvideox;
  s.video_begin = text_first ? s.text : 0;
  s.text_begin = text_first ? 0 : s.video();
  for (const bool temporal : {false, true}) {
    auto& order = temporal ? s.temporal : s.spatial;
    const auto grid = video_order(video, temporal);
    if (text_first) order = text;
    order.insert(order.end(), grid.begin(), grid.end());
    if (!text_first) order.insert(order.end(), text.begin(), text.end());
    order.insert(order.end(), pad.begin(), pad.end());
  }
  return s;
}

std::int64_t band_width(const Sequence& s, double density) {
  // Wan's self-attention has no text; where a record under that preset has, the band is the same.
  const auto context = static_cast<double>(s.model == Model::wan ? 0 : s.text + s.pad);
  const double length = context + static_cast<double>(s.video());
  const double all = length * length;
  const double rest = (density * all - 2.0 * length * context) / all;
  if (!(rest > 0.0)) {
    char message[160];
    std::snprintf(message, sizeof message,
                  "SVG: text rows and columns alone count as %.4f of all pairs, the density asked "
                  "for is %.4f",
                  2.0 * context / length, density);
    throw Infeasible(message, 2.0 * context / length);
  }
  const double width = length * (1.0 - std::sqrt(1.0 - rest));
  const auto frame = static_cast<double>(s.frame_size);
  const double blocks = width / frame * frame / kBlock;  // as multiples of a frame, like the code
  const auto rounded =
      static_cast<std::int64_t>(s.model == Model::wan ? std::ceil(blocks) : std::floor(blocks));
  if (rounded == 0) {
    throw Unsupported("SVG: the band of " + std::to_string(width) +
                      " tokens rounds down to none in the released code (multiples of 128)");
  }
  return rounded * kBlock;
}

double knob_of(const Sequence& s, std::int64_t width) {
  return static_cast<double>(s.model == Model::wan ? width : width - 1);
}

PricedMask executed_mask(const Sequence& s, int block, bool pad_keys_valid) {
  const auto offsets = uniform_offsets(s.tokens(), block);
  PricedMask mask = priced_mask(offsets, offsets);
  for (std::int64_t i = 0; i < mask.rows(); ++i) {
    for (std::int64_t j = 0; j < mask.columns(); ++j) {
      const auto distance = distance_below(mask, i, j, s.real());
      if (distance < 0) continue;
      mask.prices[static_cast<std::size_t>(i * mask.columns() + j)] = static_cast<double>(distance);
    }
  }
  if (s.text > 0) force_positions(mask, true, true, [&](std::int64_t p) { return s.in_text(p); });
  if (s.model == Model::wan) {
    force_positions(mask, false, true, [&](std::int64_t p) { return p < s.frame_size; });
  }
  force_padding(s, pad_keys_valid, mask);
  return mask;
}

PricedMask profile_mask(const Sequence& s, bool temporal) {
  // Blocks are counted from the video's first token; cogvideox's spatial mask counts from token 0.
  const bool from_zero = s.model == Model::cogvideox && !temporal;
  const auto start = from_zero ? 0 : s.video_begin;
  std::vector<std::int64_t> cuts = {s.video_begin, s.video_begin + s.video(), s.frame_size,
                                    s.text_begin + s.text};
  std::vector<std::int32_t> offsets = {0};
  for (auto p = start; p < s.tokens(); p += kBlock) offsets.push_back(static_cast<std::int32_t>(p));
  for (const auto cut : cuts) {
    if (cut < s.tokens()) offsets.push_back(static_cast<std::int32_t>(cut));
  }
  offsets.push_back(static_cast<std::int32_t>(s.tokens()));
  std::sort(offsets.begin(), offsets.end());
  offsets.erase(std::unique(offsets.begin(), offsets.end()), offsets.end());
  PricedMask mask = priced_mask(offsets, offsets);
  const std::int64_t blocks = (s.video() + kBlock - 1) / kBlock;
  const auto end = from_zero ? std::min(s.tokens(), blocks * kBlock) : s.video_begin + s.video();
  const auto block_of = [&](std::int64_t position) -> std::int64_t {
    return position < start || position >= end ? -1 : (position - start) / kBlock;
  };
  for (std::int64_t i = 0; i < mask.rows(); ++i) {
    for (std::int64_t j = 0; j < mask.columns(); ++j) {
      const auto a = block_of(offsets[static_cast<std::size_t>(i)]);
      const auto b = block_of(offsets[static_cast<std::size_t>(j)]);
      if (a >= 0 && b >= 0 && in_profile_band(s, a, b)) {
        mask.prices[static_cast<std::size_t>(i * mask.columns() + j)] = 0.0;
      }
    }
  }
  const bool text = s.model != Model::cogvideox || !temporal;
  if (text) {  // padding counts as text here (hunyuan's context)
    force_positions(mask, true, true, [&](std::int64_t p) {
      return p < s.video_begin || p >= s.video_begin + s.video();
    });
  }
  if (s.model == Model::wan) {
    force_positions(mask, false, true, [&](std::int64_t p) { return p < s.frame_size; });
  }
  return mask;
}

}  // namespace raingauge::svg
