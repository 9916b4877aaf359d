// SPDX-License-Identifier: Apache-2.0
// From scores to kept blocks, for one head: ranking, forced blocks, budget, and the solve for a
// density counted in token pairs.
#pragma once

#include <cstdint>
#include <vector>

#include "methods/forced.h"
#include "methods/scores/score.h"
#include "methods/selectors/selector.h"

namespace raingauge {

enum class Budget {
  inside,   // forced blocks count toward the density asked for
  outside,  // they come on top (as the authors shipped)
};

struct SelectionRequest {
  const ScoreMatrix& scores;
  const ForcedBlocks& forced;
  // Tokens per row block and valid tokens per column block, as executed (0 = empty or dropped).
  const std::vector<std::int64_t>& row_tokens;
  const std::vector<std::int64_t>& column_tokens;
  // Score blocks that exist (have tokens when scored); a missing one is never a candidate.
  const std::vector<std::uint8_t>& row_exists;
  const std::vector<std::uint8_t>& column_exists;
  const SelectorEntry& selector;
  const nlohmann::json& selector_params;
  Budget budget = Budget::inside;
  double density = 1.0;
  bool solve = true;           // false: the selector's nominal limit
  std::uint64_t row_seed = 0;  // which rows get the remainder
  // Columns that are ranked, counted and part of the softmax; null: all that exist. The others are
  // kept when forced and never otherwise.
  const std::vector<std::uint8_t>* competes = nullptr;
  int threads = 1;  // that share the rows
};

// Kept columns of every row, ascending. When solving, kept pairs differ from density * all pairs by
// at most one block pair. Ties of equal scores go to the lowest index; NaN ranks last; -0 = +0.
// Every existing row keeps at least one column. Throws Infeasible when what must be kept exceeds the
// density by more than half a block pair.
std::vector<std::vector<std::int32_t>> select_blocks(const SelectionRequest& request);

// The seeded order in which rows are offered one block more at the same price.
std::vector<std::int32_t> rows_by_rank(std::size_t rows, std::uint64_t row_seed);

// Column indices (given in ascending order) by falling score; ties to the lowest index; NaN last.
std::vector<std::int32_t> rank_columns(const float* scores,
                                       const std::vector<std::int32_t>& columns);

}  // namespace raingauge
