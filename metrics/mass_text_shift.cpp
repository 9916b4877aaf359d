// SPDX-License-Identifier: Apache-2.0
// Does the arm move attention to text, or away? Kept keys share what the dropped ones lose, so
// blocks that are always kept gain.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry mass_text_shift_metric() {
  return {.spec = {.name = "mass_text_shift",
                   .unit = "1",
                   .help = "share of the arm's own softmax on text, minus the dense share",
                   .formula = "mean_i sum_{j in text} (S_ij - P_ij), S the arm's softmax",
                   .better = Better::neither,
                   .bootstrap = true},
          .terms = 1,
          .missing =
              [](const RowEvidence& evidence) {
                if (evidence.mass_text_dense == nullptr) {
                  return std::string_view("the record has no text");
                }
                return std::string_view(evidence.mass_text_sparse == nullptr
                                            ? "no mask defines the arm's softmax"
                                            : "");
              },
          .contribute =
              [](const RowEvidence& evidence, std::int64_t row, double* terms) {
                terms[0] = evidence.mass_text_sparse[row] - evidence.mass_text_dense[row];
              },
          .of_sums = mean_of_rows};
}

}  // namespace raingauge
