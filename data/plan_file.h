// SPDX-License-Identifier: Apache-2.0
// Plans on disk, HDF5, version 1: masks made by anybody's program come in here and are checked like
// our own; ours go out for anybody's program to read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/plan.h"

namespace raingauge {

constexpr int kPlanVersion = 1;

struct PlanFile {
  Plan plan;
  std::string capture;  // path of the capture it was made for
  std::string record;   // its number in /records/, as text
  std::string arm;      // canonical YAML
  std::string method;
  std::vector<int> heads;               // original head numbers, [plan.heads]
  std::vector<double> nominal_density;  // [plan.heads]; NaN: the arm has no such knob
  Density density;                      // counted from the lists, never read from the file
  std::vector<std::string> warnings;    // what the file said that turned out different
};

// Throws Error for a file that cannot be read or lacks a required dataset, InvalidPlan for a plan
// that breaks an invariant (both name file and object). `key_valid` [tokens] of the record, or
// null: it enters the check and the densities.
PlanFile read_plan(const std::string& path, const std::uint8_t* key_valid = nullptr);

// Writes `file`: densities are counted here, file.density and file.warnings are not read;
// nominal_density may be empty (then plan.nominal_density stands for every head). Checks the plan
// first. Output terms have no place in the format: a plan with terms is refused as Unsupported.
void write_plan(const std::string& path, const PlanFile& file, bool overwrite = false,
                const std::uint8_t* key_valid = nullptr);

}  // namespace raingauge
