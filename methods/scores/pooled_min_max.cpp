// SPDX-License-Identifier: Apache-2.0
// Products of block means, brought to [0, 1] in every row by its least and largest value: the shares
// that VMoBA's threshold accumulates (it routes single queries; here a query block stands for them).
// The ranking is that of `pooled`; what changes is how many blocks a top_p takes.
#include <algorithm>

#include "methods/scores/score.h"

namespace raingauge {
namespace {

ScoreMatrix pooled_min_max(const ScoreRequest& request) {
  ScoreMatrix scores = find_score("pooled").score(request);
  if (scores.columns == 0) return scores;
  for (std::int64_t i = 0; i < scores.rows; ++i) {
    float* row = scores.values.data() + i * scores.columns;
    const auto [least, most] = std::minmax_element(row, row + scores.columns);
    const float low = *least;
    const float width = *most - low;
    for (std::int64_t j = 0; j < scores.columns; ++j) {
      row[j] = width > 0.0F ? (row[j] - low) / width : 1.0F;
    }
  }
  scores.probabilities = true;
  return scores;
}

}  // namespace

ScoreEntry pooled_min_max_score() {
  return {"pooled_min_max",
          "products of block means, from 0 to 1 in every row",
          "VMoBA, released vmoba.py (threshold type query_head)",
          {},
          pooled_min_max};
}

}  // namespace raingauge
