// SPDX-License-Identifier: Apache-2.0
// Which share of the dense softmax is lost? 1 - recall, kept exact where recall is close to 1, for
// analysis on a log scale. Rounding of the two sums may leave a value a little below 0.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry lost_mass_metric() {
  return {.spec = {.name = "lost_mass",
                   .unit = "1",
                   .help = "mean share of a row's dense softmax on the keys dropped: 1 - recall",
                   .formula = "mean_i (1 - exp(lse_sparse_i - lse_dense_i))",
                   .better = Better::lower,
                   .bootstrap = true},
          .terms = 1,
          .missing = missing_recall,
          .contribute =
              [](const RowEvidence& evidence, std::int64_t row, double* terms) {
                terms[0] = -std::expm1(evidence.lse_sparse[row] - evidence.lse_dense[row]);
              },
          .of_sums = mean_of_rows};
}

}  // namespace raingauge
