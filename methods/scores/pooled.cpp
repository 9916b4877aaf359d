// SPDX-License-Identifier: Apache-2.0
// RainFusion2.0 section 3, eq. 5-7: a block pair is worth the dot product of its mean query and its
// mean key. Scaling and the softmax of the released code keep the ranking; they matter to top_p and
// to the ties of `faithful` arithmetic.
#include "methods/pooling.h"
#include "methods/scores/score.h"
#include "methods/self_similarity.h"

namespace raingauge {
namespace {

// Takes `centre` off every row of `means`.
void subtract(const std::vector<float>& centre, std::vector<float>& means) {
  for (std::size_t i = 0; i < means.size(); ++i) means[i] -= centre[i % centre.size()];
}

ScoreMatrix pooled(const ScoreRequest& request) {
  if (request.arithmetic == Arithmetic::faithful) return faithful_pooled_scores(request);
  const auto d = request.record.head_dim();
  ScoreMatrix scores;
  scores.rows = request.q_blocks.blocks;
  scores.columns = request.k_blocks.blocks;
  scores.values.resize(static_cast<std::size_t>(scores.rows * scores.columns));
  std::vector<float> q_means(static_cast<std::size_t>(scores.rows * d));
  std::vector<float> k_means(static_cast<std::size_t>(scores.columns * d));
  pool_blocks(request.record.q, request.head, request.q_order, request.q_blocks, q_means.data(),
              nullptr, request.threads);
  pool_blocks(request.record.k, request.head, request.k_order, request.k_blocks, k_means.data(),
              request.record.key_valid, request.threads);
  if (request.params.value("smooth_k", false)) {
    subtract(token_mean(request.record.k, request.head, request.record.key_valid), k_means);
  }
  pooled_scores(q_means.data(), scores.rows, k_means.data(), scores.columns, d,
                static_cast<float>(request.scale), scores.values.data(), request.threads);
  return scores;
}

}  // namespace

ScoreEntry pooled_score() {
  return {
      "pooled",
      "dot product of block means",
      "RainFusion2.0 (arXiv 2512.24086) eq. 5-7",
      {{.name = "smooth_k",
        .type = ParamType::boolean,
        .default_value = false,
        .help = "take the mean key off all keys first (SLA, SpargeAttn): a constant a row, so the "
                "ranking stays"}},
      pooled};
}

}  // namespace raingauge
