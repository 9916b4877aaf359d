// SPDX-License-Identifier: Apache-2.0
// Does the arm move attention to frame 0 of the video, or away? Kept keys share what the dropped
// ones lose, so blocks that are always kept gain.
#include "metrics/row_terms.h"

namespace raingauge {

MetricEntry mass_first_frame_shift_metric() {
  return {
      .spec = {.name = "mass_first_frame_shift",
               .unit = "1",
               .help =
                   "share of the arm's own softmax on frame 0 of the video, minus the dense share",
               .formula =
                   "mean_i sum_{j in frame 0 of the video} (S_ij - P_ij), S the arm's softmax",
               .better = Better::neither,
               .bootstrap = true},
      .terms = 1,
      .missing =
          [](const RowEvidence& evidence) {
            if (evidence.mass_first_frame_dense == nullptr) {
              return std::string_view("the record has no video of several frames");
            }
            return std::string_view(evidence.mass_first_frame_sparse == nullptr
                                        ? "no mask defines the arm's softmax"
                                        : "");
          },
      .contribute =
          [](const RowEvidence& evidence, std::int64_t row, double* terms) {
            terms[0] = evidence.mass_first_frame_sparse[row] - evidence.mass_first_frame_dense[row];
          },
      .of_sums = mean_of_rows};
}

}  // namespace raingauge
