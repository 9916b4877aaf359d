// SPDX-License-Identifier: Apache-2.0
#include "harness/report/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <numeric>

#include "data/error.h"
#include "data/random.h"

namespace raingauge {
namespace {

constexpr int kExactLimit = 20;
constexpr int kDraws = 100000;

// Sums that differ by rounding alone count as equal: a pattern that mirrors the observed one must
// count as reaching it.
constexpr double kTie = 1e-9;

void require_finite(const std::vector<double>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      throw NotFinite("statistics: value " + std::to_string(i) + " of " +
                      std::to_string(values.size()) + " is not finite");
    }
  }
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Walks all patterns in Gray order, so that each differs from the last in one sign.
double exact_p(const std::vector<double>& d, double threshold) {
  double sum = std::accumulate(d.begin(), d.end(), 0.0);
  std::vector<double> signs(d.size(), 1.0);
  const std::uint64_t patterns = std::uint64_t{1} << d.size();
  std::uint64_t reached = 1;  // the observed pattern
  for (std::uint64_t i = 1; i < patterns; ++i) {
    const auto flip = static_cast<std::size_t>(std::countr_zero(i));
    signs[flip] = -signs[flip];
    sum += 2.0 * signs[flip] * d[flip];
    if (std::fabs(sum) >= threshold) ++reached;
  }
  return static_cast<double>(reached) / static_cast<double>(patterns);
}

double drawn_p(const std::vector<double>& d, double threshold, std::uint64_t seed) {
  std::uint64_t state = hash_seed({seed, 0x7369676eULL, d.size()});
  int reached = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    double sum = 0.0;
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < d.size(); ++i) {
      if (i % 64 == 0) bits = state = mix64(state + 0x9e3779b97f4a7c15ULL);
      sum += ((bits >> (i % 64)) & 1U) != 0 ? d[i] : -d[i];
    }
    if (std::fabs(sum) >= threshold) ++reached;
  }
  return static_cast<double>(reached + 1) / static_cast<double>(kDraws + 1);
}

}  // namespace

double student_t_cdf(double t, int df) {
  if (df < 1) throw Error("student_t_cdf: " + std::to_string(df) + " degrees of freedom");
  const double theta = std::atan(t / std::sqrt(static_cast<double>(df)));
  const double cosine = std::cos(theta);
  const bool odd = df % 2 == 1;
  double term = odd ? cosine : 1.0;
  double sum = df == 1 ? 0.0 : term;
  for (int k = odd ? 3 : 2; k < df; k += 2) {  // term *= (k-1)/k cos^2
    term *= cosine * cosine * (k - 1) / k;
    sum += term;
  }
  const double within =  // P(|T| <= t), signed
      odd ? 2.0 / std::numbers::pi * (theta + std::sin(theta) * sum) : std::sin(theta) * sum;
  return 0.5 * (1.0 + within);
}

double student_t_quantile(double p, int df) {
  if (!(p > 0.0 && p < 1.0)) throw Error("student_t_quantile: p = " + std::to_string(p));
  double lo = -1.0;
  double hi = 1.0;
  while (student_t_cdf(lo, df) > p) lo *= 2.0;
  while (student_t_cdf(hi, df) < p) hi *= 2.0;
  for (int i = 0; i < 200 && hi - lo > 1e-12 * (1.0 + std::fabs(lo)); ++i) {
    const double middle = 0.5 * (lo + hi);
    (student_t_cdf(middle, df) < p ? lo : hi) = middle;
  }
  return 0.5 * (lo + hi);
}

double sign_flip_p(const std::vector<double>& differences, std::uint64_t seed) {
  if (differences.empty()) return std::numeric_limits<double>::quiet_NaN();
  require_finite(differences);
  const double observed = std::fabs(std::accumulate(differences.begin(), differences.end(), 0.0));
  double scale = 0.0;
  for (const double d : differences) scale += std::fabs(d);
  if (scale == 0.0) return 1.0;
  const double threshold = observed - kTie * scale;
  return static_cast<int>(differences.size()) <= kExactLimit
             ? exact_p(differences, threshold)
             : drawn_p(differences, threshold, seed);
}

Estimate estimate_level(const std::vector<double>& values) {
  Estimate estimate;
  estimate.n = static_cast<int>(values.size());
  if (values.empty()) return estimate;
  require_finite(values);
  estimate.value = mean_of(values);
  if (estimate.n < kMinGenerations) return estimate;
  double squares = 0.0;
  for (const double v : values) squares += (v - estimate.value) * (v - estimate.value);
  const double error = std::sqrt(squares / (estimate.n - 1) / estimate.n);
  const double half = student_t_quantile(0.975, estimate.n - 1) * error;
  estimate.lo = estimate.value - half;
  estimate.hi = estimate.value + half;
  return estimate;
}

Estimate estimate_mean(const std::vector<double>& values) {
  Estimate estimate = estimate_level(values);
  if (estimate.n < kMinGenerations) return estimate;
  estimate.p = sign_flip_p(values);
  estimate.exact = estimate.n <= kExactLimit;
  return estimate;
}

std::vector<double> holm_adjusted(const std::vector<double>& p) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (!std::isnan(p[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return p[a] < p[b]; });
  std::vector<double> adjusted(p.size(), std::numeric_limits<double>::quiet_NaN());
  double running = 0.0;
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    const double scaled = p[order[rank]] * static_cast<double>(order.size() - rank);
    running = std::max(running, std::min(1.0, scaled));
    adjusted[order[rank]] = running;
  }
  return adjusted;
}

}  // namespace raingauge
