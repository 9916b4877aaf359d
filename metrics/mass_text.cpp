// SPDX-License-Identifier: Apache-2.0
// How much do rows look at text? What keeping all text blocks can save.
// A property of the record, the same for every arm.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry mass_text_metric() {
  return {.spec = {.name = "mass_text",
                   .unit = "1",
                   .help = "mean share of a row's dense softmax on text",
                   .formula = "mean_i sum_{j in text} P_ij, P the dense softmax",
                   .better = Better::neither,
                   .bootstrap = true},
          .terms = 1,
          .missing =
              [](const RowEvidence& evidence) {
                return std::string_view(
                    evidence.mass_text_dense == nullptr ? "the record has no text" : "");
              },
          .contribute = [](const RowEvidence& evidence, std::int64_t row,
                           double* terms) { terms[0] = evidence.mass_text_dense[row]; },
          .of_sums = mean_of_rows};
}

}  // namespace raingauge
