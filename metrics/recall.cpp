// SPDX-License-Identifier: Apache-2.0
// Which share of the dense softmax do the kept keys hold? (AdaSpa, arXiv 2502.21079; SVG2 as well.)
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry recall_metric() {
  return {.spec = {.name = "recall",
                   .unit = "1",
                   .help = "mean share of a row's dense softmax on the keys kept",
                   .formula = "mean_i exp(lse_sparse_i - lse_dense_i)",
                   .better = Better::higher,
                   .bootstrap = true},
          .terms = 1,
          .missing = missing_recall,
          .contribute =
              [](const RowEvidence& evidence, std::int64_t row, double* terms) {
                terms[0] = std::exp(evidence.lse_sparse[row] - evidence.lse_dense[row]);
              },
          .of_sums = mean_of_rows};
}

}  // namespace raingauge
