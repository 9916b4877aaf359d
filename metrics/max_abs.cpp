// SPDX-License-Identifier: Apache-2.0
// The largest error of a single output element, in units of V.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry max_abs_metric() {
  return {.spec = {.name = "max_abs",
                   .unit = "units of V",
                   .help = "largest absolute error of an output element",
                   .formula = "max_id |sparse - dense|",
                   .better = Better::lower,
                   .needs_all_rows = true},
          .terms = 1,
          .missing = nothing_missing,
          .contribute = [](const RowEvidence& evidence, std::int64_t row,
                           double* terms) { terms[0] = evidence.moments[row].error_max; },
          .quantile = 1.0};
}

}  // namespace raingauge
