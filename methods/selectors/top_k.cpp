// SPDX-License-Identifier: Apache-2.0
// The k best blocks of every row (RainFusion2.0 eq. 8). Nominal k = ceil(n * density); the 1e-9 keeps
// a density like 0.3 from counting one block more through its binary representation.
#include <cmath>

#include "methods/selectors/selector.h"

namespace raingauge {
namespace {

// Tie rule `lowest_index`: equal scores rank by index, so exactly k are kept. `keep_all`: every block
// whose score is not below the k-th is kept (the released code's `>= threshold`): a tied candidate
// costs what the first of its group costs.
void price(const RankedRow& row, const nlohmann::json& params, std::vector<double>& prices) {
  const auto& scores = *row.scores;
  const bool keep_all = params.at("ties") == "keep_all";
  prices.resize(scores.size());
  for (std::size_t j = 0; j < scores.size(); ++j) {
    const bool tied = keep_all && j > 0 && scores[j] == scores[j - 1];
    prices[j] =
        tied ? prices[j - 1] : static_cast<double>(row.already_kept) + static_cast<double>(j);
  }
}

// `authors`: density arrives as 1 - sparsity, and RainFusion2.0's code takes ceil(n * (1 - sparsity)).
// `floor`: int(n * density) in double (SLA). `floor_f32`: the product in fp32 (SpargeAttn).
double nominal_limit(const RankedRow& row, double density, const nlohmann::json& params) {
  const auto n = static_cast<double>(row.blocks);
  const auto& rounding = params.at("rounding");
  if (rounding == "authors") return std::ceil(n * (1.0 - (1.0 - density)));
  if (rounding == "floor") return std::floor(n * density);
  if (rounding == "floor_f32") {
    return std::floor(static_cast<float>(density) * static_cast<float>(row.blocks));
  }
  return std::ceil(n * density - 1e-9);
}

}  // namespace

SelectorEntry top_k_selector() {
  return {"top_k",
          "the k best blocks of every row",
          "RainFusion2.0 (arXiv 2512.24086) eq. 8",
          {{.name = "ties",
            .type = ParamType::choice,
            .default_value = "lowest_index",
            .help = "equal scores: the lowest block index wins, or all are kept",
            .choices = {"lowest_index", "keep_all"}},
           {.name = "rounding",
            .type = ParamType::choice,
            .default_value = "exact",
            .help = "k = ceil(n * density); ceil(n * (1 - sparsity)) in double as RainFusion2.0 "
                    "released it; int(n * density) in double (SLA) or in fp32 (SpargeAttn)",
            .choices = {"exact", "authors", "floor", "floor_f32"}},
           {.name = "at_least",
            .type = ParamType::integer,
            .default_value = 0,
            .help = "candidates of a row kept in any case",
            .min = 0,
            .max = 65536}},
          false,
          price,
          nominal_limit};
}

}  // namespace raingauge
