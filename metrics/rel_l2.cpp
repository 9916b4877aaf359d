// SPDX-License-Identifier: Apache-2.0
// Relative L2 error of the attention output.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry rel_l2_metric() {
  return {
      .spec = {.name = "rel_l2",
               .unit = "1",
               .help = "L2 norm of the output error over that of the dense output",
               .formula = "sqrt(sum_id (sparse - dense)^2 / sum_id dense^2)",
               .better = Better::lower,
               .bootstrap = true},
      .terms = 2,
      .missing = nothing_missing,
      .contribute =
          [](const RowEvidence& evidence, std::int64_t row, double* terms) {
            terms[0] = evidence.moments[row].error_l2;
            terms[1] = evidence.moments[row].dense_l2;
          },
      .of_sums = [](std::span<const double> sums, double) { return std::sqrt(sums[0] / sums[1]); },
      .undefined = "the dense output is zero on the judged rows"};
}

}  // namespace raingauge
