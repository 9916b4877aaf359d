// SPDX-License-Identifier: Apache-2.0
// What the attention of a trained model looks like: how concentrated it is, and how much of it
// falls on frame 0. Streams over query blocks: no N x N tensor of all heads exists.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "data/demo/model.h"

namespace raingauge::demo {

struct HeadStatistics {
  double frame0_mass = 0;     // mean share that queries of frames >= 1 give to frame 0
  double top_block_mass = 0;  // mean over query blocks of the mass in their top 20 % key blocks
};

inline constexpr int64_t kStatisticsBlock = 128;
inline constexpr double kStatisticsTop = 0.2;

// q, k [N, 64]; the first `frame_tokens` are frame 0, the first `video_tokens` video.
HeadStatistics head_statistics(const at::Tensor& q, const at::Tensor& k, int64_t frame_tokens,
                               int64_t video_tokens);

// The same for Q and K of independent normal numbers: what no structure at all would give.
HeadStatistics gaussian_statistics(int64_t tokens, int64_t frame_tokens, int64_t video_tokens,
                                   at::Device device);

// An attention function that runs the native one and appends [layer][head] to `found`, for batch
// item 0.
AttentionFn observing_attention(int64_t frame_tokens, int64_t video_tokens,
                                std::vector<std::vector<HeadStatistics>>& found);

}  // namespace raingauge::demo
