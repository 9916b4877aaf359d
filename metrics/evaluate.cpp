// SPDX-License-Identifier: Apache-2.0
#include "metrics/evaluate.h"

#include <algorithm>
#include <cmath>
#include <string>

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

void check_evidence(const RowEvidence& e) {
  require_array("o_dense", e.o_dense);
  require_array("o_sparse", e.o_sparse);
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

// Row numbers [resamples, rows].
std::vector<std::uint32_t> draw_resamples(const Bootstrap& bootstrap, std::int64_t rows) {
  const auto n = static_cast<std::uint64_t>(rows);
  const std::uint64_t stream = hash_seed({bootstrap.seed, n});
  std::vector<std::uint32_t> drawn(static_cast<std::size_t>(bootstrap.resamples) * n);
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    drawn[i] = static_cast<std::uint32_t>(below(mix64(stream ^ mix64(i)), n));
  }
  return drawn;
}

// The contributions of all rows, reduced over any choice of them.
class Contributions {
 public:
  Contributions(const MetricEntry& metric, const RowEvidence& evidence)
      : metric_(metric),
        rows_(static_cast<std::size_t>(evidence.rows)),
        terms_(rows_ * metric.terms),
        sums_(metric.terms),
        values_(rows_) {
    for (std::int64_t row = 0; row < evidence.rows; ++row) {
      metric.contribute(evidence, row, &terms_[static_cast<std::size_t>(row) * metric.terms]);
    }
  }

  double of_all() {
    return reduce([](std::size_t i) { return i; });
  }
  double of_drawn(const std::uint32_t* rows) {
    return reduce([rows](std::size_t i) { return std::size_t{rows[i]}; });
  }

 private:
  template <typename Pick>
  double reduce(Pick pick) {
    if (metric_.of_rows != nullptr) {
      for (std::size_t i = 0; i < rows_; ++i) values_[i] = terms_[pick(i)];
      return metric_.of_rows(values_);
    }
    std::fill(sums_.begin(), sums_.end(), 0.0);
    for (std::size_t i = 0; i < rows_; ++i) {
      const double* row = &terms_[pick(i) * metric_.terms];
      for (std::size_t term = 0; term < metric_.terms; ++term) sums_[term] += row[term];
    }
    return metric_.of_sums(sums_, static_cast<double>(rows_));
  }

  const MetricEntry& metric_;
  std::size_t rows_;
  std::vector<double> terms_;  // [rows, terms]
  std::vector<double> sums_;
  std::vector<double> values_;
};

std::string why_not(const MetricEntry& metric, const RowEvidence& evidence) {
  if (evidence.rows < 1 || evidence.head_dim < 1) return "no rows were judged";
  if (metric.spec.needs_all_rows && evidence.sampled) {
    return "a sample of rows does not show the worst one; `rows: all` does";
  }
  return std::string(metric.missing(evidence));
}

// A resample on which the metric is undefined leaves no interval: the rest would be a biased
// choice.
void add_interval(Contributions& contributions, const Bootstrap& bootstrap,
                  const std::vector<std::uint32_t>& drawn, MetricValue& result) {
  const std::size_t count = static_cast<std::size_t>(bootstrap.resamples);
  const std::size_t rows = drawn.size() / count;
  std::vector<double> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = contributions.of_drawn(&drawn[i * rows]);
    if (!std::isfinite(values[i])) return;
  }
  const double tail = (1.0 - bootstrap.level) / 2.0;
  result.lo = quantile(values, tail);
  result.hi = quantile(values, 1.0 - tail);
}

}  // namespace

double quantile(std::span<double> values, double q) {
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), values.begin() + below, values.end());
  const double low = values[static_cast<std::size_t>(below)];
  const double share = place - static_cast<double>(below);
  if (!(share > 0.0)) return low;
  return low + share * (*std::min_element(values.begin() + below + 1, values.end()) - low);
}

std::vector<MetricValue> evaluate_metrics(std::span<const MetricEntry* const> metrics,
                                          const RowEvidence& evidence, const Bootstrap& bootstrap) {
  if (bootstrap.resamples < 1 || !(bootstrap.level > 0.0 && bootstrap.level < 1.0)) {
    throw Error("bootstrap: needs at least one resample and a level inside (0, 1)");
  }
  check_evidence(evidence);
  std::vector<std::uint32_t> drawn;
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
    if (!evidence.sampled || !metric.spec.bootstrap) continue;
    if (drawn.empty()) drawn = draw_resamples(bootstrap, evidence.rows);
    add_interval(contributions, bootstrap, drawn, results[i]);
  }
  return results;
}

MetricValue evaluate_metric(const MetricEntry& metric, const RowEvidence& evidence,
                            const Bootstrap& bootstrap) {
  const MetricEntry* const entry = &metric;
  return evaluate_metrics({&entry, 1}, evidence, bootstrap).front();
}

}  // namespace raingauge
