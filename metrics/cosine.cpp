// SPDX-License-Identifier: Apache-2.0
// Cosine between the two outputs, flattened over rows and dimensions of a head.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry cosine_metric() {
  return {.spec = {.name = "cosine",
                   .unit = "1",
                   .help = "cosine of dense and sparse output, flattened over the judged rows",
                   .formula = "sum_id dense sparse / sqrt(sum_id dense^2 sum_id sparse^2)",
                   .better = Better::higher,
                   .bootstrap = true},
          .terms = 3,
          .missing = nothing_missing,
          .contribute =
              [](const RowEvidence& evidence, std::int64_t row, double* terms) {
                terms[0] = evidence.moments[row].product;
                terms[1] = evidence.moments[row].dense_l2;
                terms[2] = evidence.moments[row].sparse_l2;
              },
          .of_sums = [](std::span<const double> sums,
                        double) { return sums[0] / (std::sqrt(sums[1]) * std::sqrt(sums[2])); },
          .undefined = "one of the outputs is zero on the judged rows"};
}

}  // namespace raingauge
