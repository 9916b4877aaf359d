// SPDX-License-Identifier: Apache-2.0
// Is a capture what it claims to be? Reads every element; behind `raingauge capture validate`.
#pragma once

#include <string>
#include <vector>

namespace raingauge {

enum class Severity { error, warning, note };
std::string_view name_of(Severity severity);

struct Finding {
  Severity severity = Severity::note;
  std::string object;   // "/records/000042/q", "/" for the file
  std::string message;  // what is wrong and what to do
};

// Never throws for a bad file: what prevents reading is a finding as well. Checked: format,
// completeness, shapes, segments, finite values, sha256 (as recorded), all-zero heads, score scale
// against 1/sqrt(head_dim), rope_applied, storage layout, sites recorded twice, numbers against
// their totals, and `o` against softmax(scale * QK^T) V on sampled rows.
std::vector<Finding> validate_capture(const std::string& path);

// True when no finding is an error.
bool is_valid(const std::vector<Finding>& findings);

}  // namespace raingauge
