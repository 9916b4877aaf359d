// SPDX-License-Identifier: Apache-2.0
// How much recall does the selector leave on the table? The control oracle_row fills the arm's own
// per-row counts by true block mass; both recalls come from the same rows.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry oracle_gap_metric() {
  return {.spec = {.name = "oracle_gap",
                   .unit = "1",
                   .help = "recall of oracle_row at the arm's own counts, minus the arm's recall",
                   .formula = "mean_i (exp(lse_oracle_row_i - lse_dense_i) - "
                              "exp(lse_sparse_i - lse_dense_i))",
                   .better = Better::lower,
                   .bootstrap = true},
          .terms = 1,
          .missing =
              [](const RowEvidence& evidence) {
                if (evidence.lse_oracle_row == nullptr) {
                  return std::string_view("needs the control oracle_row on this head");
                }
                return missing_recall(evidence);
              },
          .contribute =
              [](const RowEvidence& evidence, std::int64_t row, double* terms) {
                const double dense = evidence.lse_dense[row];
                terms[0] = std::exp(evidence.lse_oracle_row[row] - dense) -
                           std::exp(evidence.lse_sparse[row] - dense);
              },
          .of_sums = mean_of_rows};
}

}  // namespace raingauge
