// SPDX-License-Identifier: Apache-2.0
// RainFusion2.0's released scores as they come out of their framework: pooling, product, scaling and
// softmax each round to the record's dtype, and in bf16 that makes ties which `>= threshold` keeps.
// libtorch's CPU operators are used because their order of summation is part of the result.
#include "methods/scores/score.h"

#ifdef RAINGAUGE_WITH_TORCH
#include <ATen/ATen.h>

#include <cstring>
#endif

namespace raingauge {

#ifdef RAINGAUGE_WITH_TORCH
namespace {

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return at::kHalf;
    case DType::bf16:
      return at::kBFloat16;
    case DType::f32:
      return at::kFloat;
  }
  throw Error("unknown dtype");
}

at::Tensor gather_positions(const TensorView& x, std::int64_t head, const Orders& order,
                            std::int64_t begin, std::int64_t end) {
  at::Tensor rows = at::empty({end - begin, x.head_dim}, scalar_type(x.dtype));
  const auto row_bytes = static_cast<std::size_t>(x.head_dim) * size_of(x.dtype);
  auto* target = static_cast<char*>(rows.data_ptr());
  for (auto position = begin; position < end; ++position, target += row_bytes) {
    std::memcpy(target, x.row(head, order.token(head, position)), row_bytes);
  }
  return rows;
}

// Runs of equally long blocks are pooled by one operator, as the released code pools all whole blocks
// at once and the short tail by itself.
at::Tensor pooled_means(const TensorView& x, std::int64_t head, const Orders& order,
                        const Layout& layout) {
  std::vector<at::Tensor> parts;
  for (std::int64_t block = 0; block < layout.blocks;) {
    const auto size = layout.size(head, block);
    auto last = block;
    while (last < layout.blocks && layout.size(head, last) == size) ++last;
    if (size == 0) {
      parts.push_back(at::zeros({last - block, x.head_dim}, scalar_type(x.dtype)));
    } else {
      const auto rows =
          gather_positions(x, head, order, layout.begin(head, block), layout.end(head, last - 1));
      parts.push_back(rows.view({last - block, size, x.head_dim}).mean(1));
    }
    block = last;
  }
  return at::cat(parts, 0);
}

}  // namespace

ScoreMatrix faithful_pooled_scores(const ScoreRequest& request) {
  if (request.record.key_valid != nullptr) {
    throw Unsupported("faithful scores: the released code knows no masked keys; trim them first");
  }
  const auto q = pooled_means(request.record.q, request.head, request.q_order, request.q_blocks);
  const auto k = pooled_means(request.record.k, request.head, request.k_order, request.k_blocks);
  const auto logits = at::matmul(q, k.transpose(0, 1)) * request.scale;
  const auto probabilities = at::softmax(logits, -1).to(at::kFloat).contiguous();
  ScoreMatrix scores;
  scores.rows = request.q_blocks.blocks;
  scores.columns = request.k_blocks.blocks;
  const float* values = probabilities.data_ptr<float>();
  scores.values.assign(values, values + probabilities.numel());
  scores.probabilities = true;
  return scores;
}

#else

ScoreMatrix faithful_pooled_scores(const ScoreRequest& /*request*/) {
  throw Unsupported(
      "score: faithful needs libtorch, which this build does not have (configure with "
      "RAINGAUGE_WITH_TORCH=ON, or use score: fp32)");
}

#endif

}  // namespace raingauge
