// SPDX-License-Identifier: Apache-2.0
// How bad is the worst row?
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry worst_row_metric() {
  return {.spec = {.name = "worst_row",
                   .unit = "1",
                   .help = "largest relative L2 error of a row",
                   .formula = "max_i ||sparse_i - dense_i|| / ||dense_i||",
                   .better = Better::lower,
                   .needs_all_rows = true},
          .terms = 1,
          .missing = nothing_missing,
          .contribute = [](const RowEvidence& evidence, std::int64_t row,
                           double* terms) { terms[0] = row_relative_error(evidence, row); },
          .quantile = 1.0,
          .undefined = "the dense output is zero on a judged row"};
}

}  // namespace raingauge
