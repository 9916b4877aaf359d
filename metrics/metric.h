// SPDX-License-Identifier: Apache-2.0
// A metric turns the judged rows of one head, dense against sparse, into one number. A metric's
// file says what each row contributes and how the contributions reduce; intervals, checks and the
// reasons of missing values are shared (evaluate.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "data/row_moments.h"

namespace raingauge {

enum class Better { lower, higher, neither };

struct MetricSpec {
  std::string_view name;
  std::string_view unit;     // "1" for pure numbers
  std::string_view help;     // one line for `raingauge list metrics`
  std::string_view formula;  // sums run over the judged rows i and the head's dimensions d
  Better better = Better::neither;
  bool bootstrap = false;       // gets a row-bootstrap interval when the rows are a sample
  bool needs_all_rows = false;  // n/a on a sample
};

// The judged rows of one head: the same query tokens for every arm. Arrays that may be null say
// what null means; all others have `rows` elements.
struct RowEvidence {
  std::int64_t rows = 0;
  std::int64_t head_dim = 0;
  bool sampled = false;  // false: these are all the rows of the head
  // The outputs, or `moments` where whoever computed them has compared them already; evaluate_metrics()
  // makes the moments otherwise. Metrics read the moments alone.
  const float* o_dense = nullptr;       // [rows, head_dim]
  const float* o_sparse = nullptr;      // [rows, head_dim]
  const RowMoments* moments = nullptr;  // [rows]
  // Natural log of the sum of exp(score): over all valid keys, over the keys the arm kept (null:
  // the arm's output is more than a masked softmax, so no mask defines its recall), over the keys
  // that the control oracle_row kept (null: that control was not run).
  const double* lse_dense = nullptr;
  const double* lse_sparse = nullptr;
  const double* lse_oracle_row = nullptr;
  // Softmax mass on frame 0 of the video, and on text, under the dense and under the arm's softmax.
  // Null: the record has no video of several frames, or no text.
  const double* mass_first_frame_dense = nullptr;
  const double* mass_first_frame_sparse = nullptr;
  const double* mass_text_dense = nullptr;
  const double* mass_text_sparse = nullptr;
  // Mean cosine of two different tokens of one block (methods/block_similarity.h); NaN: not defined.
  double block_similarity_q = std::numeric_limits<double>::quiet_NaN();
  double block_similarity_k = std::numeric_limits<double>::quiet_NaN();
};

struct MetricValue {
  double value = std::numeric_limits<double>::quiet_NaN();
  // 95 % interval; NaN when there is none (all rows judged, or the metric has none).
  double lo = std::numeric_limits<double>::quiet_NaN();
  double hi = std::numeric_limits<double>::quiet_NaN();
  std::string reason;  // why there is no value; empty when there is one
};

// What a metric's file defines.
struct MetricEntry {
  MetricSpec spec;
  std::size_t terms;  // doubles that a row contributes
  // Why the evidence does not allow the metric; empty when it does.
  std::string_view (*missing)(const RowEvidence& evidence);
  void (*contribute)(const RowEvidence& evidence, std::int64_t row, double* terms);
  // One of the two. of_sums: a function of the sums of every term over the rows. quantile: of the
  // rows' values (terms = 1), in [0, 1], linear between order statistics; 1 is the largest.
  double (*of_sums)(std::span<const double> sums, double rows) = nullptr;
  double quantile = std::numeric_limits<double>::quiet_NaN();
  std::string_view undefined = "";  // what a non-finite result means
};

}  // namespace raingauge
