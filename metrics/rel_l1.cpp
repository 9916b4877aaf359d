// SPDX-License-Identifier: Apache-2.0
// Relative L1 error of the attention output, SpargeAttn's measure (arXiv 2502.18137).
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry rel_l1_metric() {
  return {.spec = {.name = "rel_l1",
                   .unit = "1",
                   .help = "L1 norm of the output error over that of the dense output",
                   .formula = "sum_id |sparse - dense| / sum_id |dense|",
                   .better = Better::lower,
                   .bootstrap = true},
          .terms = 2,
          .missing = nothing_missing,
          .contribute =
              [](const RowEvidence& evidence, std::int64_t row, double* terms) {
                terms[0] = evidence.moments[row].error_l1;
                terms[1] = evidence.moments[row].dense_l1;
              },
          .of_sums = [](std::span<const double> sums, double) { return sums[0] / sums[1]; },
          .undefined = "the dense output is zero on the judged rows"};
}

}  // namespace raingauge
