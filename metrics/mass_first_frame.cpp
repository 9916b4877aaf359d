// SPDX-License-Identifier: Apache-2.0
// How much do rows look at frame 0? What a first-frame sink (RainFusion2.0, section 3.4) can save.
// A property of the record, the same for every arm.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry mass_first_frame_metric() {
  return {.spec = {.name = "mass_first_frame",
                   .unit = "1",
                   .help = "mean share of a row's dense softmax on frame 0 of the video",
                   .formula = "mean_i sum_{j in frame 0 of the video} P_ij, P the dense softmax",
                   .better = Better::neither,
                   .bootstrap = true},
          .terms = 1,
          .missing =
              [](const RowEvidence& evidence) {
                return std::string_view(evidence.mass_first_frame_dense == nullptr
                                            ? "the record has no video of several frames"
                                            : "");
              },
          .contribute = [](const RowEvidence& evidence, std::int64_t row,
                           double* terms) { terms[0] = evidence.mass_first_frame_dense[row]; },
          .of_sums = mean_of_rows};
}

}  // namespace raingauge
