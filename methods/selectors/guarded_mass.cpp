// SPDX-License-Identifier: Apache-2.0
// MindIE-SD's ada_bsa: sort the row's scores, walk until the share tau of their sum is reached (tau < 1)
// or take all (tau = 1); cap the count at n * density when there are 10 blocks or more; keep every block
// whose score is above the last one's minus 1e-5 (sparse_block_estimate.h, ScoreCompute).
//
// `columns` is n: it also counts the blocks that the method takes out of the ranking (the first and
// the last), whose zeroed scores stand at the end of the sorted row.
#include <algorithm>
#include <cmath>

#include "methods/selectors/selector.h"

namespace raingauge {
namespace {

constexpr double kSlack = 1e-5;
constexpr double kCapFrom = 10;  // blocks from which the cap applies

void price(const RankedRow& row, const nlohmann::json& params, std::vector<double>& prices) {
  const bool by_mass = params.at("cdf_threshold").get<double>() < 1.0;
  double mass = 0.0;
  prices.clear();
  for (std::size_t j = 0; j < row.probability->size(); ++j) {
    prices.push_back(by_mass ? mass : static_cast<double>(j));
    mass += (*row.probability)[j];
  }
}

// Their `cnt` (0-based rank reached) and the score there; the end of the row when tau = 1.
std::pair<double, double> walk(const RankedRow& row, double tau, double columns) {
  if (tau >= 1.0) return {columns, 0.0};
  double mass = 0.0;
  for (std::size_t j = 0; j < row.probability->size(); ++j) {
    mass += (*row.probability)[j];
    if (mass >= tau) return {static_cast<double>(j), (*row.scores)[j]};
  }
  return {columns, 0.0};
}

std::size_t nominal_count(const RankedRow& row, double density, const nlohmann::json& params) {
  const double columns = params.at("columns").get<double>();
  const float cap = static_cast<float>(columns) * static_cast<float>(density);
  auto [reached, guard] = walk(row, params.at("cdf_threshold").get<double>(), columns);
  if (reached > static_cast<double>(cap) && columns >= kCapFrom) {
    const auto last = static_cast<std::int64_t>(cap) - 1;
    const auto ranked = static_cast<std::int64_t>(row.scores->size());
    // A cap below one block reads before the row in their code; the best block is the nearest sense.
    guard = last < ranked ? (*row.scores)[static_cast<std::size_t>(std::max<std::int64_t>(last, 0))]
                          : 0.0;
  }
  std::size_t count = 0;
  while (count < row.scores->size() && (*row.scores)[count] > guard - kSlack) ++count;
  return count;
}

}  // namespace

SelectorEntry guarded_mass_selector() {
  return {"guarded_mass",
          "blocks down to a guard score: a share of the row's sum, capped at a share of its blocks",
          "MindIE-SD ada_bsa, sparse_block_estimate.h",
          {{.name = "cdf_threshold",
            .type = ParamType::real,
            .default_value = 1.0,
            .help = "share of the row's summed scores to reach; 1 leaves the cap alone",
            .min = 0.0,
            .max = 1.0,
            .min_open = true},
           {.name = "columns",
            .type = ParamType::integer,
            .default_value = 1,
            .help = "key blocks in all, ranked or not",
            .min = 1}},
          true,
          price,
          nullptr,
          nominal_count};
}

}  // namespace raingauge
