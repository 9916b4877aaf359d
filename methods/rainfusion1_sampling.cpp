// SPDX-License-Identifier: Apache-2.0
#include "methods/rainfusion1_sampling.h"

#include <algorithm>
#include <cmath>

#include "methods/head_plans.h"
#include "methods/pooling.h"

namespace raingauge::rf1 {

Parts parts_of(const Segments& segments) {
  const Segment& video = only_video(segments, "RainFusion v1");
  Parts parts;
  parts.frames = video.frames;
  parts.frame_size = video.frame_size();
  parts.height = video.height;
  parts.width = video.width;
  const auto later = parts.frames - 1;
  for (std::int64_t i = 0; i < later * parts.frame_size; ++i) {
    const auto frame = 1 + i % later;
    parts.raster.push_back(static_cast<std::int32_t>(video.start + parts.frame_size + i));
    parts.patch_major.push_back(
        static_cast<std::int32_t>(video.start + frame * parts.frame_size + i / later));
  }
  parts.tail = tokens_of(segments, Role::text);
  for (std::int64_t i = 0; i < parts.frame_size; ++i) {
    parts.tail.push_back(static_cast<std::int32_t>(video.start + i));
  }
  const auto pad = tokens_of(segments, Role::pad);
  parts.tail.insert(parts.tail.end(), pad.begin(), pad.end());
  return parts;
}

Tokens checkerboard(const Parts& parts, int stride, std::size_t* first) {
  Tokens keys;
  for (int residue = 0; residue < stride; ++residue) {
    for (std::size_t i = 0; i < parts.raster.size(); ++i) {
      const auto place = static_cast<std::int64_t>(i) % parts.frame_size;
      const auto difference = place / parts.width - place % parts.width;
      if (((difference % stride) + stride) % stride == residue) keys.push_back(parts.raster[i]);
    }
    if (residue == 0) *first = keys.size();
  }
  return keys;
}

double band_recall(const RecordView& record, std::int64_t head, const Tokens& tokens,
                   std::int64_t half_width) {
  constexpr std::int64_t kRows = 256;
  const auto d = record.head_dim();
  const auto n = static_cast<std::int64_t>(tokens.size());
  const auto gather = [&](const TensorView& x, std::int64_t first, std::int64_t count) {
    std::vector<float> rows(static_cast<std::size_t>(count * d));
    for (std::int64_t i = 0; i < count; ++i) {
      convert_to_float(x.row(head, tokens[static_cast<std::size_t>(first + i)]), x.dtype,
                       rows.data() + i * d, static_cast<std::size_t>(d));
    }
    return rows;
  };
  const auto keys = gather(record.k, 0, n);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  std::vector<float> scores(static_cast<std::size_t>(std::min(kRows, n) * n));
  double inside = 0.0;
  for (std::int64_t first = 0; first < n; first += kRows) {
    const auto count = std::min(kRows, n - first);
    pooled_scores(gather(record.q, first, count).data(), count, keys.data(), n, d, scale,
                  scores.data(), 1);
    for (std::int64_t i = 0; i < count; ++i) {
      const float* row = scores.data() + i * n;
      const float top = *std::max_element(row, row + n);
      double all = 0.0;
      double kept = 0.0;
      for (std::int64_t j = 0; j < n; ++j) {
        const double p = std::exp(double{row[j]} - double{top});
        all += p;
        if (std::abs(first + i - j) <= half_width) kept += p;
      }
      inside += kept / all;
    }
  }
  return inside / static_cast<double>(n);
}

}  // namespace raingauge::rf1
