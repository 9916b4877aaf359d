// SPDX-License-Identifier: Apache-2.0
#include "methods/controls.h"

#include <algorithm>
#include <numeric>

#include "data/error.h"
#include "data/random.h"
#include "methods/params.h"
#include "methods/plan_heads.h"
#include "methods/selection.h"

namespace raingauge {
namespace {

using Row = std::vector<std::int32_t>;

std::vector<std::int32_t> existing_columns(const Plan& plan, std::int64_t head) {
  std::vector<std::int32_t> columns;
  for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
    if (plan.k_blocks.size(head, j) > 0) columns.push_back(static_cast<std::int32_t>(j));
  }
  return columns;
}

Row random_row(const Plan& plan, std::int64_t head, std::int64_t row,
               const std::vector<std::int32_t>& columns, bool keep_forced, std::uint64_t seed) {
  Row kept;
  if (keep_forced && plan.forced) {
    kept.assign(plan.forced->begin(head, row),
                plan.forced->begin(head, row) + plan.forced->count(head, row));
  }
  Row others;
  for (const auto column : columns) {
    if (!std::binary_search(kept.begin(), kept.end(), column)) others.push_back(column);
  }
  seeded_shuffle(
      others, hash_seed({seed, static_cast<std::uint64_t>(head), static_cast<std::uint64_t>(row)}));
  const auto wanted = static_cast<std::size_t>(plan.lists.count(head, row));
  for (std::size_t i = 0; kept.size() < wanted && i < others.size(); ++i) kept.push_back(others[i]);
  std::sort(kept.begin(), kept.end());
  return kept;
}

Row best_row(const Plan& plan, std::int64_t head, std::int64_t row,
             const std::vector<std::int32_t>& columns, const std::vector<float>& mass) {
  Row ranked = rank_columns(mass.data() + row * plan.k_blocks.blocks, columns);
  ranked.resize(std::min(ranked.size(), static_cast<std::size_t>(plan.lists.count(head, row))));
  std::sort(ranked.begin(), ranked.end());
  return ranked;
}

// Greedy by mass per key token; every query block first gets its best column, as every plan must.
std::vector<Row> best_of_head(const Plan& plan, std::int64_t head,
                              const std::vector<std::int32_t>& columns,
                              const std::vector<float>& mass) {
  struct Offer {
    float worth;
    std::int32_t row, column;
    double pairs;
  };
  std::vector<Row> rows(static_cast<std::size_t>(plan.q_blocks.blocks));
  std::vector<Offer> offers;
  double budget = 0.0;
  for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
    const double q_tokens = plan.q_blocks.size(head, i);
    if (q_tokens == 0.0) continue;
    const auto* list = plan.lists.begin(head, i);
    for (std::int64_t n = 0; n < plan.lists.count(head, i); ++n) {
      budget += q_tokens * plan.k_blocks.size(head, list[n]);
    }
    const float* row_mass = mass.data() + i * plan.k_blocks.blocks;
    const Row ranked = rank_columns(row_mass, columns);
    for (std::size_t n = 0; n < ranked.size(); ++n) {
      const auto size = static_cast<float>(plan.k_blocks.size(head, ranked[n]));
      const Offer offer{row_mass[ranked[n]] / size, static_cast<std::int32_t>(i), ranked[n],
                        q_tokens * static_cast<double>(size)};
      if (n == 0) {
        rows[static_cast<std::size_t>(i)].push_back(ranked[0]);
        budget -= offer.pairs;
      } else {
        offers.push_back(offer);
      }
    }
  }
  std::stable_sort(offers.begin(), offers.end(),
                   [](const Offer& a, const Offer& b) { return a.worth > b.worth; });
  for (const auto& offer : offers) {
    if (offer.pairs > budget) continue;
    budget -= offer.pairs;
    rows[static_cast<std::size_t>(offer.row)].push_back(offer.column);
  }
  for (auto& row : rows) std::sort(row.begin(), row.end());
  return rows;
}

}  // namespace

const std::vector<std::string>& control_names() {
  static const std::vector<std::string> names = {"random", "random_bare", "oracle_row",
                                                 "oracle_head"};
  return names;
}

bool control_needs_mass(const std::string& control) { return control.starts_with("oracle"); }

Plan control_plan(const std::string& control, const Plan& plan, std::int64_t head,
                  const std::vector<float>& mass, std::uint64_t seed) {
  const auto columns = existing_columns(plan, head);
  std::vector<Row> rows;
  if (control == "oracle_head") {
    rows = best_of_head(plan, head, columns, mass);
  } else {
    for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
      if (plan.q_blocks.size(head, i) == 0) {
        rows.emplace_back();
      } else if (control == "random" || control == "random_bare") {
        rows.push_back(random_row(plan, head, i, columns, control == "random", seed));
      } else if (control == "oracle_row") {
        rows.push_back(best_row(plan, head, i, columns, mass));
      } else {
        throw Error("unknown control '" + control + "'" +
                    known_names_hint(control, control_names()));
      }
    }
  }
  Plan result = select_heads(plan, {head});
  result.lists = make_lists({rows});
  result.forced.reset();
  return result;
}

}  // namespace raingauge
