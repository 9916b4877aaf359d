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

// `authors` rounding: density arrives as 1 - sparsity, and they take ceil(n * (1 - sparsity)).
double nominal_limit(const RankedRow& row, double density, const nlohmann::json& params) {
  const auto n = static_cast<double>(row.blocks);
  if (params.at("rounding") == "authors") return std::ceil(n * (1.0 - (1.0 - density)));
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
            .help = "k = ceil(n * density), or ceil(n * (1 - sparsity)) in double as released",
            .choices = {"exact", "authors"}}},
          false,
          price,
          nominal_limit};
}

}  // namespace raingauge
