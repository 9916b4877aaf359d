// SPDX-License-Identifier: Apache-2.0
// How bad are the bad rows? A global norm hides a few ruined tokens; this does not.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry p99_row_error_metric() {
  return {
      .spec = {.name = "p99_row_error",
               .unit = "1",
               .help = "99th percentile over rows of the row's relative L2 error",
               .formula = "quantile_0.99 over i of ||sparse_i - dense_i|| / ||dense_i||, linear "
                          "between order statistics",
               .better = Better::lower,
               .bootstrap = true},
      .terms = 1,
      .missing = nothing_missing,
      .contribute = [](const RowEvidence& evidence, std::int64_t row,
                       double* terms) { terms[0] = row_relative_error(evidence, row); },
      .quantile = 0.99,
      .undefined = "the dense output is zero on a judged row"};
}

}  // namespace raingauge
