// SPDX-License-Identifier: Apache-2.0
// Heads that a classifier must recognise: Q = K = a one-hot code of the token's frame, or of its place
// in the frame, times `strength`.
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "tests/methods/fixtures.h"

namespace raingauge::testing {

// Heads of a video (from token 0) whose token t has channel code(head, t) set in Q and in K. V is the
// noise it was.
inline void plant(NoiseRecord& record, float strength,
                  const std::function<std::int64_t(std::int64_t head, std::int64_t token)>& code) {
  const auto dim = static_cast<std::size_t>(record.info().head_dim);
  const auto tokens = record.info().tokens;
  const auto element = size_of(record.info().dtype);
  for (const int tensor : {0, 1}) {
    auto& bytes = record.bytes(tensor);
    for (std::int64_t head = 0; head < record.info().head_count(); ++head) {
      for (std::int64_t token = 0; token < tokens; ++token) {
        std::vector<float> row(dim, 0.0F);
        const auto channel = code(head, token);
        if (channel >= 0) row[static_cast<std::size_t>(channel) % dim] = strength;
        convert_from_float(
            row.data(),
            bytes.data() + static_cast<std::size_t>(head * tokens + token) * dim * element,
            record.info().dtype, dim);
      }
    }
  }
}

// A record without data: for plans that follow from positions alone.
struct ShapeOnly {
  RecordInfo info;
  RecordView view;

  explicit ShapeOnly(Segments segments, int heads = 1) {
    for (const auto& segment : segments) info.tokens += segment.length;
    info.segments = std::move(segments);
    info.head_dim = 64;
    info.scale = 0.125;
    for (int h = 0; h < heads; ++h) info.heads.push_back(h);
    const auto tensor = contiguous_view(nullptr, DType::bf16, heads, info.tokens, 64);
    view = {&info, tensor, tensor, tensor, nullptr};
  }
  ShapeOnly(const ShapeOnly&) = delete;
  ShapeOnly& operator=(const ShapeOnly&) = delete;
};

}  // namespace raingauge::testing
