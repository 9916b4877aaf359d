// SPDX-License-Identifier: Apache-2.0
// A selector says how many of a row's best block pairs are kept. It does so by pricing: the j-th
// candidate of a row gets a price that never falls with j, and the kept ones are those up to a limit.
// The authors' setting is one limit (nominal); solving for a density walks up the prices of all rows.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "methods/params.h"

namespace raingauge {

// The candidates of one row, best first.
struct RankedRow {
  std::int64_t blocks = 0;           // non-empty key blocks in all (n of the authors' formulas)
  std::int64_t already_kept = 0;     // forced blocks that count inside the budget
  double already_mass = 0.0;         // … and their share of the row's probability
  const std::vector<float>* scores;  // by rank
  const std::vector<double>* probability;  // by rank, of the row's softmax; empty unless needed
};

struct SelectorEntry {
  std::string_view name;
  std::string_view help;
  std::string_view section;
  std::vector<ParamSpec> params;
  bool needs_probability;
  // Fills prices[j] (j = rank), non-decreasing.
  void (*price)(const RankedRow& row, const nlohmann::json& params, std::vector<double>& prices);
  // Candidates with price < limit are kept. `density` is the arm's density knob. A parameter `at_least`
  // (optional) is the number of candidates kept whatever their price.
  double (*nominal_limit)(const RankedRow& row, double density, const nlohmann::json& params);
  // For rules that are no limit on a price: how many of the ranked candidates the authors keep. Takes
  // the place of nominal_limit.
  std::size_t (*nominal_count)(const RankedRow& row, double density,
                               const nlohmann::json& params) = nullptr;
};

const std::vector<SelectorEntry>& selector_registry();
const SelectorEntry& find_selector(const std::string& name);

}  // namespace raingauge
