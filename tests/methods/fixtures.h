// SPDX-License-Identifier: Apache-2.0
// Small records for tests of methods: bf16 or fp32 noise with a segment list, owned by the fixture.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/plan.h"
#include "data/random.h"
#include "data/record.h"

namespace raingauge::testing {

inline float gaussian(std::uint64_t seed, std::uint64_t index) {
  const double u = uniform01(mix64(seed ^ mix64(2 * index))) + 1e-18;
  const double v = uniform01(mix64(seed ^ mix64(2 * index + 1)));
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
}

// Gaussian Q, K, V of any dtype.
class NoiseRecord {
 public:
  NoiseRecord(Segments segments, std::int64_t heads, std::int64_t head_dim, std::uint64_t seed,
              DType dtype = DType::bf16, double sharpness = 1.0) {
    std::int64_t tokens = 0;
    for (const auto& segment : segments) tokens += segment.length;
    info_.segments = std::move(segments);
    info_.tokens = tokens;
    info_.head_dim = head_dim;
    info_.dtype = dtype;
    info_.scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
    info_.generation = "noise";
    for (int h = 0; h < heads; ++h) info_.heads.push_back(h);
    info_.heads_total = static_cast<int>(heads);
    const auto count = static_cast<std::size_t>(heads * tokens * head_dim);
    for (int t = 0; t < 3; ++t) {
      std::vector<float> values(count);
      for (std::size_t i = 0; i < count; ++i) {
        values[i] = gaussian(hash_seed({seed, std::uint64_t(t)}), i) *
                    static_cast<float>(t < 2 ? sharpness : 1.0);
      }
      stored_[t].resize(count * size_of(dtype));
      convert_from_float(values.data(), stored_[t].data(), dtype, count);
    }
  }

  RecordInfo& info() { return info_; }
  std::vector<char>& bytes(int tensor) { return stored_[tensor]; }  // 0 q, 1 k, 2 v
  RecordView view() const {
    const auto tensor = [&](int t) {
      return contiguous_view(stored_[t].data(), info_.dtype, info_.head_count(), info_.tokens,
                             info_.head_dim);
    };
    return {&info_, tensor(0), tensor(1), tensor(2), nullptr};
  }

 private:
  RecordInfo info_;
  std::vector<char> stored_[3];
};

inline Segment video_segment(std::int64_t start, int frames, int height, int width) {
  return {Role::video, start, std::int64_t{frames} * height * width, frames, height, width};
}

inline Segment text_segment(std::int64_t start, std::int64_t length) {
  return {Role::text, start, length, 0, 0, 0};
}

inline Segments video_then_text(int frames, int height, int width, std::int64_t text) {
  Segments segments = {video_segment(0, frames, height, width)};
  if (text > 0) segments.push_back(text_segment(segments[0].length, text));
  return segments;
}

inline Segments text_then_video(int frames, int height, int width, std::int64_t text) {
  return {text_segment(0, text), video_segment(text, frames, height, width)};
}

inline bool keeps(const Plan& plan, std::int64_t head, std::int64_t row, std::int64_t column) {
  const auto* list = plan.lists.begin(head, row);
  for (std::int64_t i = 0; i < plan.lists.count(head, row); ++i) {
    if (list[i] == column) return true;
  }
  return false;
}

}  // namespace raingauge::testing
