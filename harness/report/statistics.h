// SPDX-License-Identifier: Apache-2.0
// What may be concluded from paired differences, one a generation: sign-flip tests, cluster-t
// intervals, Holm's correction. A generation (prompt x seed) is the unit: its records are dependent,
// so they are averaged before they come here.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace raingauge {

// Below this many generations a report is descriptive: no interval, no p.
inline constexpr int kMinGenerations = 8;

// A mean over generations. lo, hi: 95 % interval; p: two-sided sign-flip test against 0. NaN where
// there are fewer than kMinGenerations.
struct Estimate {
  double value = std::numeric_limits<double>::quiet_NaN();
  double lo = std::numeric_limits<double>::quiet_NaN();
  double hi = std::numeric_limits<double>::quiet_NaN();
  double p = std::numeric_limits<double>::quiet_NaN();
  int n = 0;
  bool exact = false;  // p is over all 2^n sign patterns, not a sample of them
};

// P(T <= t) and its inverse for Student's t with whole degrees of freedom, where the distribution is
// a finite sum (Abramowitz & Stegun 26.7.3 and 26.7.4). Throws Error unless df >= 1, 0 < p < 1.
double student_t_cdf(double t, int df);
double student_t_quantile(double p, int df);

// Two-sided p of the mean of `differences` under "signs are exchangeable": the share of sign patterns
// whose |mean| reaches the one seen. All 2^n patterns up to n = 20, else 100,000 drawn ones and
// (b + 1) / (m + 1), Phipson & Smyth 2010. All differences zero: 1. Throws NotFinite.
double sign_flip_p(const std::vector<double>& differences, std::uint64_t seed = 0);

// Mean, cluster-t interval (mean +- t(0.975, n - 1) s / sqrt(n)) and sign-flip p of one value a
// generation. Throws NotFinite.
Estimate estimate_mean(const std::vector<double>& per_generation);
// Mean and interval only, for levels, where "differs from 0" is no question.
Estimate estimate_level(const std::vector<double>& per_generation);

// Holm's step-down adjusted p values, in the order given; NaN stays NaN and counts for nothing.
std::vector<double> holm_adjusted(const std::vector<double>& p);

}  // namespace raingauge
