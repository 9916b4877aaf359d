// SPDX-License-Identifier: Apache-2.0
// The true softmax mass of every block pair: what a perfect predictor would know. Costs a dense QK^T.
#include "methods/kernels/true_mass.h"
#include "methods/scores/score.h"

namespace raingauge {
namespace {

ScoreMatrix exact(const ScoreRequest& request) {
  Plan plan;
  plan.heads = request.record.heads();
  plan.tokens = request.record.tokens();
  plan.q_order = request.q_order;
  plan.k_order = request.k_order;
  plan.q_blocks = request.q_blocks;
  plan.k_blocks = request.k_blocks;
  ScoreMatrix scores;
  scores.rows = request.q_blocks.blocks;
  scores.columns = request.k_blocks.blocks;
  TrueMass mass = true_block_mass(request.record, request.head, plan, 1);
  scores.values = std::move(mass.values);
  scores.computed_on = std::move(mass.on);
  scores.probabilities = true;
  return scores;
}

}  // namespace

ScoreEntry exact_score() {
  return {"exact",
          "true softmax mass of the block pair (an oracle: costs a dense QK^T)",
          "AdaSpa (arXiv 2502.21079) computes the same",
          {},
          exact};
}

}  // namespace raingauge
