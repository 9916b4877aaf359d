// SPDX-License-Identifier: Apache-2.0
// The value of a metric, its interval, or why there is none.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "metrics/metric.h"

namespace raingauge {

// Percentile bootstrap over rows: every resample draws `rows` rows with replacement. The draws
// depend on the seed and the number of rows alone, so all metrics and all arms of a record share
// them.
struct Bootstrap {
  int resamples = 1000;  // 0: no intervals
  double level = 0.95;
  std::uint64_t seed = 0;
};

// Throws NotFinite, naming array and row, when the evidence holds NaN or Inf (lse_sparse and
// lse_oracle_row may be -Inf: a row that kept no key), and Error when it lacks an array that has no
// meaning of null.
std::vector<MetricValue> evaluate_metrics(std::span<const MetricEntry* const> metrics,
                                          const RowEvidence& evidence,
                                          const Bootstrap& bootstrap = {});

MetricValue evaluate_metric(const MetricEntry& metric, const RowEvidence& evidence,
                            const Bootstrap& bootstrap = {});

}  // namespace raingauge
