// SPDX-License-Identifier: Apache-2.0
// How far one row of an attention output is from the same row of another: the sums that every metric of
// outputs is made of. One pass over the row, and all that has to leave a device.
#pragma once

#include <cmath>
#include <cstdint>

namespace raingauge {

struct RowMoments {
  double error_l1 = 0.0;   // sum_d |sparse - dense|
  double error_l2 = 0.0;   // sum_d (sparse - dense)^2
  double error_max = 0.0;  // max_d |sparse - dense|; NaN is no maximum, but turns the sums into NaN
  double dense_l1 = 0.0;   // sum_d |dense|
  double dense_l2 = 0.0;   // sum_d dense^2
  double sparse_l2 = 0.0;  // sum_d sparse^2
  double product = 0.0;    // sum_d dense sparse
};

// Adds one element. Every sum rounds once a product and once a sum, in ascending d, so that a device
// that does the same has the same bits.
inline void add_element(RowMoments& row, double dense, double sparse) {
  const double error = sparse - dense;
  const double size = std::abs(error);
  row.error_l1 += size;
  row.error_l2 += error * error;
  row.error_max = size > row.error_max ? size : row.error_max;
  row.dense_l1 += std::abs(dense);
  row.dense_l2 += dense * dense;
  row.sparse_l2 += sparse * sparse;
  row.product += dense * sparse;
}

inline RowMoments row_moments(const float* dense, const float* sparse, std::int64_t head_dim) {
  RowMoments row;
  for (std::int64_t d = 0; d < head_dim; ++d) {
    add_element(row, static_cast<double>(dense[d]), static_cast<double>(sparse[d]));
  }
  return row;
}

}  // namespace raingauge
