// SPDX-License-Identifier: Apache-2.0
// Root mean square error of the attention output, in units of V.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry rmse_metric() {
  return {.spec = {.name = "rmse",
                   .unit = "units of V",
                   .help = "root mean square of the output error",
                   .formula = "sqrt(mean_id (sparse - dense)^2)",
                   .better = Better::lower,
                   .bootstrap = true},
          .terms = 1,
          .missing = nothing_missing,
          .contribute =
              [](const RowEvidence& evidence, std::int64_t row, double* terms) {
                terms[0] = evidence.moments[row].error_l2 / static_cast<double>(evidence.head_dim);
              },
          .of_sums = [](std::span<const double> sums,
                        double rows) { return std::sqrt(sums[0] / rows); }};
}

}  // namespace raingauge
