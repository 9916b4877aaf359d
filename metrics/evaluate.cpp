// SPDX-License-Identifier: Apache-2.0
#include "metrics/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>

#include "data/error.h"
#include "data/random.h"

namespace raingauge {
namespace {

template <typename Number>
void require_finite(const char* name, const Number* values, std::int64_t rows, std::int64_t width,
                    bool minus_infinity_allowed = false) {
  if (values == nullptr) return;
  for (std::int64_t i = 0; i < rows * width; ++i) {
    if (std::isfinite(values[i])) continue;
    if (minus_infinity_allowed && std::isinf(values[i]) && values[i] < 0) continue;
    throw NotFinite(std::string("metric evidence '") + name + "': judged row " +
                    std::to_string(i / width) + " holds " + std::to_string(values[i]));
  }
}

void require_array(const char* name, const void* values) {
  if (values == nullptr) throw Error(std::string("metric evidence lacks '") + name + "'");
}

void require_finite(const RowMoments* moments, std::int64_t rows) {
  for (std::int64_t i = 0; moments != nullptr && i < rows; ++i) {
    // Squares of floats are finite in fp64, so these are not exactly where an output is not.
    if (std::isfinite(moments[i].dense_l2) && std::isfinite(moments[i].sparse_l2)) continue;
    throw NotFinite("metric evidence 'moments': an output of judged row " + std::to_string(i) +
                    " is not finite");
  }
}

void check_evidence(const RowEvidence& e) {
  if (e.moments == nullptr) {
    require_array("o_dense", e.o_dense);
    require_array("o_sparse", e.o_sparse);
  }
  require_finite(e.moments, e.rows);
  require_array("lse_dense", e.lse_dense);
  require_finite("o_dense", e.o_dense, e.rows, e.head_dim);
  require_finite("o_sparse", e.o_sparse, e.rows, e.head_dim);
  require_finite("lse_dense", e.lse_dense, e.rows, 1);
  require_finite("lse_sparse", e.lse_sparse, e.rows, 1, true);
  require_finite("lse_oracle_row", e.lse_oracle_row, e.rows, 1, true);
  require_finite("mass_first_frame_dense", e.mass_first_frame_dense, e.rows, 1);
  require_finite("mass_first_frame_sparse", e.mass_first_frame_sparse, e.rows, 1);
  require_finite("mass_text_dense", e.mass_text_dense, e.rows, 1);
  require_finite("mass_text_sparse", e.mass_text_sparse, e.rows, 1);
}

// sum[r] += value * times[r]. Where a run spends its time once the kernels are fast, hence a version
// for wide registers; all versions round alike (no contraction).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
void add_scaled(double value, const float* times, double* sum, std::size_t count) {
  for (std::size_t r = 0; r < count; ++r) sum[r] += value * static_cast<double>(times[r]);
}

// Linear between order statistics.
double quantile_of(std::vector<double>& values, double q) {
  const double place = q * static_cast<double>(values.size() - 1);
  const auto whole = static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), values.begin() + whole, values.end());
  const double low = values[static_cast<std::size_t>(whole)];
  const double share = place - static_cast<double>(whole);
  if (!(share > 0.0)) return low;
  return low + share * (*std::min_element(values.begin() + whole + 1, values.end()) - low);
}

// How often each resample draws each row.
class Resamples {
 public:
  Resamples(const Bootstrap& bootstrap, std::size_t rows)
      : count_(static_cast<std::size_t>(bootstrap.resamples)), times_(rows * count_, 0.0F) {
    const std::uint64_t stream = hash_seed({bootstrap.seed, rows});
    for (std::size_t draw = 0; draw < times_.size(); ++draw) {
      const std::uint64_t row = below(mix64(stream ^ mix64(draw)), rows);
      times_[row * count_ + draw % count_] += 1.0F;  // exact: at most `rows` < 2^24
    }
  }
  std::size_t count() const { return count_; }
  const float* of_row(std::size_t row) const { return &times_[row * count_]; }

 private:
  std::size_t count_;
  std::vector<float> times_;  // [rows, resamples]: all resamples advance together over the rows
};

// The draws of the last call on this thread serve again: all heads and arms of a record share them, and
// drawing costs more than evaluating.
const Resamples& resamples_of(const Bootstrap& bootstrap, std::size_t rows) {
  thread_local std::optional<Resamples> kept;
  thread_local std::tuple<std::uint64_t, int, std::size_t> key;
  const std::tuple wanted{bootstrap.seed, bootstrap.resamples, rows};
  if (!kept || key != wanted) {
    kept.emplace(bootstrap, rows);
    key = wanted;
  }
  return *kept;
}

// The contributions of all rows, reduced over the rows themselves and over resamples of them.
class Contributions {
 public:
  Contributions(const MetricEntry& metric, const RowEvidence& evidence)
      : metric_(metric),
        rows_(static_cast<std::size_t>(evidence.rows)),
        terms_(rows_ * metric.terms) {
    for (std::size_t row = 0; row < rows_; ++row) {
      metric.contribute(evidence, static_cast<std::int64_t>(row), &terms_[row * metric.terms]);
    }
  }

  double of_all() const {
    if (metric_.of_sums == nullptr) {
      std::vector<double> values = terms_;
      return quantile_of(values, metric_.quantile);
    }
    std::vector<double> sums(metric_.terms);
    for (std::size_t i = 0; i < terms_.size(); ++i) sums[i % metric_.terms] += terms_[i];
    return metric_.of_sums(sums, static_cast<double>(rows_));
  }

  std::vector<double> of_resamples(const Resamples& resamples) {
    std::vector<double> values(resamples.count());
    if (metric_.of_sums == nullptr) {
      sort_rows();
      for (std::size_t r = 0; r < values.size(); ++r) {
        values[r] = quantile(
            [&](std::size_t row) { return static_cast<std::size_t>(resamples.of_row(row)[r]); });
      }
      return values;
    }
    const std::vector<double> sums = resampled_sums(resamples);
    std::vector<double> of_one(metric_.terms);
    for (std::size_t r = 0; r < values.size(); ++r) {
      for (std::size_t term = 0; term < metric_.terms; ++term) {
        of_one[term] = sums[term * values.size() + r];
      }
      values[r] = metric_.of_sums(of_one, static_cast<double>(rows_));
    }
    return values;
  }

 private:
  void sort_rows() {
    descending_.resize(rows_);
    std::iota(descending_.begin(), descending_.end(), std::size_t{0});
    std::stable_sort(descending_.begin(), descending_.end(),
                     [this](std::size_t a, std::size_t b) { return terms_[a] > terms_[b]; });
  }

  // [terms, resamples]
  std::vector<double> resampled_sums(const Resamples& resamples) const {
    const std::size_t count = resamples.count();
    std::vector<double> sums(metric_.terms * count);
    for (std::size_t row = 0; row < rows_; ++row) {
      const float* times = resamples.of_row(row);
      for (std::size_t term = 0; term < metric_.terms; ++term) {
        add_scaled(terms_[row * metric_.terms + term], times, &sums[term * count], count);
      }
    }
    return sums;
  }

  // Linear between order statistics at quantile * (n - 1), when each row counts times(row) times.
  template <typename Times>
  double quantile(Times times) const {
    const double place = metric_.quantile * static_cast<double>(rows_ - 1);
    const auto whole = static_cast<std::size_t>(place);
    const double share = place - static_cast<double>(whole);
    const double low = largest(rows_ - 1 - whole, times);
    if (!(share > 0.0)) return low;
    return low + share * (largest(rows_ - 2 - whole, times) - low);
  }

  // The value at `place` in descending order, 0 the largest. The times add up to the rows.
  template <typename Times>
  double largest(std::size_t place, Times times) const {
    std::size_t passed = 0;
    for (const std::size_t row : descending_) {
      passed += times(row);
      if (passed > place) return terms_[row];
    }
    return std::numeric_limits<double>::quiet_NaN();
  }

  const MetricEntry& metric_;
  std::size_t rows_;
  std::vector<double> terms_;            // [rows, terms]
  std::vector<std::size_t> descending_;  // rows by value, for quantiles of resamples
};

std::string why_not(const MetricEntry& metric, const RowEvidence& evidence) {
  if (evidence.rows < 1 || evidence.head_dim < 1) return "no rows were judged";
  if (metric.spec.needs_all_rows && evidence.sampled) {
    return "a sample of rows does not show the worst one; `rows: all` does";
  }
  return std::string(metric.missing(evidence));
}

// The evidence with its moments; `storage` holds those that had to be made.
RowEvidence with_moments(const RowEvidence& given, std::vector<RowMoments>& storage) {
  RowEvidence evidence = given;
  if (evidence.moments != nullptr) return evidence;
  for (std::int64_t row = 0; row < given.rows; ++row) {
    const std::int64_t first = row * given.head_dim;
    storage.push_back(row_moments(given.o_dense + first, given.o_sparse + first, given.head_dim));
  }
  evidence.moments = storage.data();
  return evidence;
}

// A resample on which the metric is undefined leaves no interval: the rest would be a biased choice.
void add_interval(Contributions& contributions, const Bootstrap& bootstrap,
                  const Resamples& resamples, MetricValue& result) {
  std::vector<double> values = contributions.of_resamples(resamples);
  for (const double value : values) {
    if (!std::isfinite(value)) return;
  }
  const double tail = (1.0 - bootstrap.level) / 2.0;
  result.lo = quantile_of(values, tail);
  result.hi = quantile_of(values, 1.0 - tail);
}

}  // namespace

std::vector<MetricValue> evaluate_metrics(std::span<const MetricEntry* const> metrics,
                                          const RowEvidence& given, const Bootstrap& bootstrap) {
  if (bootstrap.resamples < 0 || !(bootstrap.level > 0.0 && bootstrap.level < 1.0)) {
    throw Error("bootstrap: needs 0 (none) or more resamples and a level inside (0, 1)");
  }
  check_evidence(given);
  std::vector<RowMoments> moments;
  const RowEvidence evidence = with_moments(given, moments);
  std::vector<MetricValue> results(metrics.size());
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const MetricEntry& metric = *metrics[i];
    results[i].reason = why_not(metric, evidence);
    if (!results[i].reason.empty()) continue;
    Contributions contributions(metric, evidence);
    const double value = contributions.of_all();
    if (!std::isfinite(value)) {
      results[i].reason =
          "undefined: " + std::string(metric.undefined.empty() ? "not finite" : metric.undefined);
      continue;
    }
    results[i].value = value;
    if (!evidence.sampled || !metric.spec.bootstrap || bootstrap.resamples == 0) continue;
    add_interval(contributions, bootstrap,
                 resamples_of(bootstrap, static_cast<std::size_t>(evidence.rows)), results[i]);
  }
  return results;
}

MetricValue evaluate_metric(const MetricEntry& metric, const RowEvidence& evidence,
                            const Bootstrap& bootstrap) {
  const MetricEntry* const entry = &metric;
  return evaluate_metrics({&entry, 1}, evidence, bootstrap).front();
}

}  // namespace raingauge
