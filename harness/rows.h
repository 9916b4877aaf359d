// SPDX-License-Identifier: Apache-2.0
// The rows of a run's folder: one vocabulary of outcomes, what every row of an arm shares, and the
// content hashes by which a second `run` knows what is done.
#pragma once

#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/record.h"
#include "harness/experiment.h"

namespace raingauge {

inline constexpr const char* kRowSchema = "raingauge/1";

enum class Outcome {
  ok,
  incorrect,
  unsupported,
  infeasible,
  invalid_plan,
  not_finite,
  failed,
  skipped
};

const char* name_of(Outcome outcome);
Outcome outcome_of(const std::exception& error);
// Outcomes that make the exit code 2; `strict` adds unsupported, infeasible and skipped.
bool is_bad(const std::string& outcome, bool strict);

// A finite number, or null.
nlohmann::json number_or_null(double value);

// schema, cell, capture, record, generation, step, layer, branch, arm, method, params, outcome, reason.
nlohmann::json base_row(const std::string& cell, const RecordInfo& record, const Arm& arm);

// What an arm is: its settings, and the content of the files that it reads. Part of every cell.
nlohmann::json arm_identity(const Arm& arm);
// Adds `calibration_sha256` where the arm reads a calibration.
void add_calibration(nlohmann::json& row, const Arm& arm);

// A row that has no numbers: the outcome and its reason, and the least density when infeasible.
nlohmann::json failed_row(nlohmann::json base, Outcome outcome, const std::string& reason,
                          double least_density = std::nan(""));

// "clip 3, layer 2, step 5, cond"
std::string record_label(const RecordInfo& record);

// What a fidelity cell depends on: the record's content, the arm, how it is matched and judged.
std::string fidelity_cell(const Experiment& experiment, const Arm& arm, const std::string& content,
                          const std::vector<int>& heads, bool floors = false);
std::string conformance_cell(const Arm& arm, const std::string& content, const std::string& kernel,
                             const std::string& device, std::int64_t heads, Match match);
// All contenders of one record are timed together.
std::string latency_cell(const Experiment& experiment, const std::string& content,
                         const std::string& device, int threads);

}  // namespace raingauge
