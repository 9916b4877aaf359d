// SPDX-License-Identifier: Apache-2.0
// How far are two tensors apart? For commands that compare files.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace raingauge {

struct Distance {
  double max_abs = 0.0;
  double rel_l2 = 0.0;  // |a - b| / |a|; infinite when only the reference is zero
  double cosine = 1.0;
};

// Sums in float64. NaN in either tensor makes every field NaN.
inline Distance distance(std::span<const float> reference, std::span<const float> test) {
  double difference = 0.0;
  double own = 0.0;
  double other = 0.0;
  double dot = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double a = reference[i];
    const double b = test[i];
    difference += (a - b) * (a - b);
    own += a * a;
    other += b * b;
    dot += a * b;
    largest = std::max(largest, std::abs(a - b));
  }
  if (std::isnan(difference)) {
    constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
    return {kNaN, kNaN, kNaN};
  }
  if (difference == 0.0) return {};
  return {largest, std::sqrt(difference / own), dot / std::sqrt(own * other)};
}

}  // namespace raingauge
