// SPDX-License-Identifier: Apache-2.0
// How alike are the queries of one block under the arm's order? The mechanism that a permutation claims
// (RainFusion2.0, section 3.3). A property of order and record, the same whatever is kept.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry block_similarity_q_metric() {
  return {.spec = {.name = "block_similarity_q",
                   .unit = "1",
                   .help = "mean cosine of two different queries of one block",
                   .formula = "mean_blocks mean_{i != j in block} cos(q_i, q_j)",
                   .better = Better::neither},
          .terms = 1,
          .missing =
              [](const RowEvidence& evidence) {
                return std::string_view(
                    std::isnan(evidence.block_similarity_q) ? "no block has two tokens" : "");
              },
          .contribute = [](const RowEvidence& evidence, std::int64_t /*row*/,
                           double* terms) { terms[0] = evidence.block_similarity_q; },
          .of_sums = mean_of_rows};
}

}  // namespace raingauge
