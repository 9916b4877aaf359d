// SPDX-License-Identifier: Apache-2.0
// What several metrics share: sums over one row in fp64, and what evidence they need.
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

// Sums of squares over one row.
struct RowNorms {
  double error;  // sum_d (sparse - dense)^2
  double dense;  // sum_d dense^2
};

inline RowNorms row_norms(const RowEvidence& evidence, std::int64_t row) {
  RowNorms norms{0.0, 0.0};
  for (std::int64_t d = row * evidence.head_dim; d < (row + 1) * evidence.head_dim; ++d) {
    const double dense = evidence.o_dense[d];
    const double error = evidence.o_sparse[d] - dense;
    norms.error += error * error;
    norms.dense += dense * dense;
  }
  return norms;
}

// ||sparse - dense|| / ||dense|| of one row. A row that is zero in both has no error; an error
// against a zero row is infinite.
inline double row_relative_error(const RowEvidence& evidence, std::int64_t row) {
  const RowNorms norms = row_norms(evidence, row);
  if (norms.error == 0.0) return 0.0;
  if (norms.dense == 0.0) return std::numeric_limits<double>::infinity();
  return std::sqrt(norms.error / norms.dense);
}

}  // namespace raingauge
