// SPDX-License-Identifier: Apache-2.0
// Two runs over the same captures: is B better, worse, the same, or cannot one tell? Paired within
// generations, metric by metric, arm by arm.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/report/run_data.h"

namespace raingauge {

enum class CompareVerdict { better, worse, same, undecided };
const char* name_of(CompareVerdict verdict);

struct ComparedValue {
  std::string arm, metric, note;
  double a = 0.0, b = 0.0;
  Estimate difference;     // B - A; of latency relative, (B - A) / A
  double tolerance = 0.0;  // what counts as no difference
  CompareVerdict verdict = CompareVerdict::undecided;
};

struct RunComparison {
  std::vector<ComparedValue> values;
  std::vector<std::string> notes;  // unlike hardware, settings, arms of one run only
  int count(CompareVerdict verdict) const;
};

// `tolerance`: metric -> absolute difference that counts as none (latency: relative). Default: 1 % of
// the value of A, latency 10 %. From 8 generations on a metric is `same` when the 95 % interval of the
// difference lies within the tolerance, better or worse when it lies outside, else undecided; with
// fewer all (or none) of the differences must. Throws Error when the captures, or the rows judged,
// are not the same, and when the runs share no arm.
RunComparison compare_runs(const RunData& a, const RunData& b,
                           const std::map<std::string, double>& tolerance);

}  // namespace raingauge
