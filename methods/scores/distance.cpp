// SPDX-License-Identifier: Apache-2.0
// Nearness in block order: minus the distance between the middles of the two blocks, in tokens.
#include <cmath>

#include "methods/scores/score.h"

namespace raingauge {
namespace {

double middle(const Layout& layout, std::int64_t block) {
  return 0.5 * (static_cast<double>(layout.begin(0, block)) + layout.end(0, block));
}

ScoreMatrix distance(const ScoreRequest& request) {
  ScoreMatrix scores;
  scores.rows = request.q_blocks.blocks;
  scores.columns = request.k_blocks.blocks;
  scores.values.resize(static_cast<std::size_t>(scores.rows * scores.columns));
  for (std::int64_t i = 0; i < scores.rows; ++i) {
    for (std::int64_t j = 0; j < scores.columns; ++j) {
      const double gap = std::abs(middle(request.q_blocks, i) - middle(request.k_blocks, j));
      scores.values[static_cast<std::size_t>(i * scores.columns + j)] = static_cast<float>(-gap);
    }
  }
  return scores;
}

}  // namespace

ScoreEntry distance_score() { return {"distance", "nearness in block order", "", {}, distance}; }

}  // namespace raingauge
