// SPDX-License-Identifier: Apache-2.0
// Fidelity: how far a plan's output is from dense attention, judged on sampled (or all) query rows in
// fp32. A finding about the method, whatever kernel will execute it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/plan.h"
#include "harness/experiment.h"
#include "harness/record_judge.h"

namespace raingauge {

// One row of fidelity.jsonl per head (metrics, densities), and one per control and head.
// `base` holds what all rows of the cell share (capture, record, arm …). `second`: another sample of
// rows; the arm judged on it is the control `second_rows`, a floor. Null: no such row.
std::vector<nlohmann::json> judge_arm(RecordJudge& judge, RecordJudge* second, const Plan& plan,
                                      const Controls& controls,
                                      const std::vector<std::string>& metrics,
                                      const nlohmann::json& base);

}  // namespace raingauge
