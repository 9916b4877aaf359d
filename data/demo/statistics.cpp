// SPDX-License-Identifier: Apache-2.0
#include "data/demo/statistics.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "data/demo/sampler.h"

namespace raingauge::demo {
namespace {

constexpr int64_t kBlocksAtOnce = 8;

// Softmax rows [rows, N] -> mass a key block, [rows, key blocks].
at::Tensor mass_by_block(const at::Tensor& probability) {
  const int64_t tokens = probability.size(1);
  const int64_t blocks = (tokens + kStatisticsBlock - 1) / kStatisticsBlock;
  const at::Tensor padded =
      at::constant_pad_nd(probability, {0, blocks * kStatisticsBlock - tokens});
  return padded.view({probability.size(0), blocks, kStatisticsBlock}).sum(2);
}

// The summed top share over the query blocks among these rows (the last may be ragged).
double top_mass(const at::Tensor& by_block) {
  const int64_t keep =
      std::max<int64_t>(1, std::lround(kStatisticsTop * static_cast<double>(by_block.size(1))));
  double sum = 0;
  for (int64_t row = 0; row < by_block.size(0); row += kStatisticsBlock) {
    const int64_t rows = std::min(kStatisticsBlock, by_block.size(0) - row);
    const at::Tensor mean = by_block.narrow(0, row, rows).mean(0);
    sum += std::get<0>(mean.topk(keep)).sum().item<double>();
  }
  return sum;
}

}  // namespace

HeadStatistics head_statistics(const at::Tensor& q, const at::Tensor& k, int64_t frame_tokens,
                               int64_t video_tokens) {
  const c10::NoGradGuard no_grad;
  const at::Tensor keys = k.to(at::kFloat).t();
  const int64_t tokens = q.size(0), stride = kBlocksAtOnce * kStatisticsBlock;
  HeadStatistics found;
  for (int64_t start = 0; start < tokens; start += stride) {
    const at::Tensor queries = q.narrow(0, start, std::min(stride, tokens - start)).to(at::kFloat);
    const at::Tensor probability =
        at::softmax(at::matmul(queries, keys).mul_(1.0 / std::sqrt(kHeadDim)), -1);
    found.top_block_mass += top_mass(mass_by_block(probability));
    const int64_t from = std::max(start, frame_tokens);
    const int64_t to = std::min(start + stride, video_tokens);
    if (from >= to) continue;
    found.frame0_mass += probability.narrow(0, from - start, to - from)
                             .narrow(1, 0, frame_tokens)
                             .sum()
                             .item<double>();
  }
  const int64_t blocks = (tokens + kStatisticsBlock - 1) / kStatisticsBlock;
  found.top_block_mass /= static_cast<double>(blocks);
  found.frame0_mass /= static_cast<double>(std::max<int64_t>(1, video_tokens - frame_tokens));
  return found;
}

HeadStatistics gaussian_statistics(int64_t tokens, int64_t frame_tokens, int64_t video_tokens,
                                   at::Device device) {
  const at::Tensor q = gaussian_noise(1, {tokens, kHeadDim}).to(device);
  const at::Tensor k = gaussian_noise(2, {tokens, kHeadDim}).to(device);
  return head_statistics(q, k, frame_tokens, video_tokens);
}

AttentionFn observing_attention(int64_t frame_tokens, int64_t video_tokens,
                                std::vector<std::vector<HeadStatistics>>& found) {
  return
      [=, &found](const Site& site, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        std::vector<HeadStatistics> heads;
        for (int64_t h = 0; h < q.size(1); ++h) {
          heads.push_back(head_statistics(q[0][h], k[0][h], frame_tokens, video_tokens));
        }
        found.push_back(std::move(heads));
        return native_attention(site, q, k, v);
      };
}

}  // namespace raingauge::demo
