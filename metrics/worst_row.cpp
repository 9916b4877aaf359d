// SPDX-License-Identifier: Apache-2.0
// How bad is the worst row?
#include <algorithm>

#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry worst_row_metric() {
  return {
      .spec = {.name = "worst_row",
               .unit = "1",
               .help = "largest relative L2 error of a row",
               .formula = "max_i ||sparse_i - dense_i|| / ||dense_i||",
               .better = Better::lower,
               .needs_all_rows = true},
      .terms = 1,
      .missing = nothing_missing,
      .contribute = [](const RowEvidence& evidence, std::int64_t row,
                       double* terms) { terms[0] = row_relative_error(evidence, row); },
      .of_rows =
          [](std::span<double> values) { return *std::max_element(values.begin(), values.end()); },
      .undefined = "the dense output is zero on a judged row"};
}

}  // namespace raingauge
