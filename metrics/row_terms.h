// SPDX-License-Identifier: Apache-2.0
// What several metrics share: errors of one row, and what evidence they need.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "metrics/metric.h"

namespace raingauge {

inline std::string_view nothing_missing(const RowEvidence&) { return ""; }

inline std::string_view missing_recall(const RowEvidence& evidence) {
  return evidence.lse_sparse != nullptr
             ? ""
             : "the arm's output is more than a masked softmax: no mask defines its recall";
}

inline double mean_of_rows(std::span<const double> sums, double rows) { return sums[0] / rows; }

// ||sparse - dense|| / ||dense|| of one row. A row that is zero in both has no error; an error
// against a zero row is infinite.
inline double row_relative_error(const RowEvidence& evidence, std::int64_t row) {
  const RowMoments& moments = evidence.moments[row];
  if (moments.error_l2 == 0.0) return 0.0;
  if (moments.dense_l2 == 0.0) return std::numeric_limits<double>::infinity();
  return std::sqrt(moments.error_l2 / moments.dense_l2);
}

}  // namespace raingauge
