// SPDX-License-Identifier: Apache-2.0
// Fidelity: how far a plan's output is from dense attention, judged on sampled (or all) query rows in
// fp32. A finding about the method, whatever kernel will execute it.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "harness/experiment.h"
#include "methods/kernels/row_evaluator.h"

namespace raingauge {

// Shared by all arms of one record, and computed at most once: dense rows and block masses.
class RecordJudge {
 public:
  RecordJudge(const RecordView& record, const RowPlan& rows, int threads);

  const RecordView& record() const { return record_; }
  bool sampled() const { return sampled_; }
  std::int64_t rows() const { return static_cast<std::int64_t>(sample_.tokens.size()); }

  // Exact dense results of the judged rows of one head.
  const RowResults& dense(std::int64_t head);
  RowResults sparse(std::int64_t head, const Plan& plan) const;
  // True block masses of one head under the plan's order and layout; cached by those.
  const std::vector<float>& mass(std::int64_t head, const Plan& plan);
  // Within-block similarity of queries and keys under the plan's order and layout; cached by those.
  std::pair<double, double> similarity(std::int64_t head, const Plan& plan);

 private:
  RecordView record_;
  int threads_;
  bool sampled_ = false;
  RowSample sample_;
  std::map<std::int64_t, RowResults> dense_;
  std::map<std::pair<std::int64_t, std::uint64_t>, std::vector<float>> masses_;
  std::map<std::pair<std::int64_t, std::uint64_t>, std::pair<double, double>> similarities_;
};

// One row of fidelity.jsonl per head (metrics, densities), and one per control and head.
// `base` holds what all rows of the cell share (capture, record, arm …). `second`: another sample of
// rows; the arm judged on it is the control `second_rows`, a floor. Null: no such row.
std::vector<nlohmann::json> judge_arm(RecordJudge& judge, RecordJudge* second, const Plan& plan,
                                      const Controls& controls,
                                      const std::vector<std::string>& metrics,
                                      const nlohmann::json& base);

}  // namespace raingauge
