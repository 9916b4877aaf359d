// SPDX-License-Identifier: Apache-2.0
#include "methods/static_mask.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>

#include "data/error.h"
#include "methods/selection.h"

namespace raingauge {
namespace {

// Below every real price, and still a number: NaN has no place in a sort.
constexpr float kNever = std::numeric_limits<float>::lowest();

std::size_t at(std::int64_t value) { return static_cast<std::size_t>(value); }

ScoreMatrix scores_of(const PricedMask& mask) {
  ScoreMatrix scores;
  scores.rows = mask.rows();
  scores.columns = mask.columns();
  for (const double price : mask.prices) {
    scores.values.push_back(std::isinf(price) ? kNever : static_cast<float>(-price));
  }
  return scores;
}

std::vector<std::int64_t> sizes_of(const std::vector<std::int32_t>& offsets,
                                   const std::vector<std::uint8_t>& valid) {
  std::vector<std::int64_t> sizes;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    sizes.push_back(valid.empty()
                        ? offsets[b + 1] - offsets[b]
                        : std::count_if(valid.begin() + offsets[b], valid.begin() + offsets[b + 1],
                                        [](std::uint8_t v) { return v != 0; }));
  }
  return sizes;
}

std::vector<std::uint8_t> exist(const std::vector<std::int64_t>& sizes) {
  std::vector<std::uint8_t> exists;
  for (const auto size : sizes) exists.push_back(size > 0 ? 1 : 0);
  return exists;
}

[[noreturn]] void beyond_reach(const PricedMask& mask, const std::vector<std::int64_t>& rows,
                               const std::vector<std::int64_t>& columns, double density,
                               const std::string& method) {
  double kept = 0.0;
  double all = 0.0;
  for (std::int64_t i = 0; i < mask.rows(); ++i) {
    for (std::int64_t j = 0; j < mask.columns(); ++j) {
      const double pairs = static_cast<double>(rows[at(i)] * columns[at(j)]);
      all += pairs;
      if (mask.forced.at(i, j) || !std::isinf(mask.price(i, j))) kept += pairs;
    }
  }
  char text[160];
  std::snprintf(text, sizeof text,
                ": density %.4f is beyond its rule, which keeps %.4f of all pairs at most", density,
                kept / all);
  throw Unsupported(method + text);
}

}  // namespace

PricedMask priced_mask(std::vector<std::int32_t> q_offsets, std::vector<std::int32_t> k_offsets) {
  PricedMask mask;
  mask.q_offsets = std::move(q_offsets);
  mask.k_offsets = std::move(k_offsets);
  mask.forced.rows = mask.rows();
  mask.forced.columns = mask.columns();
  const auto pairs = at(mask.rows() * mask.columns());
  mask.forced.mask.assign(pairs, 0);
  mask.prices.assign(pairs, std::numeric_limits<double>::infinity());
  return mask;
}

std::vector<std::int32_t> uniform_offsets(std::int64_t tokens, int block,
                                          const std::vector<std::int64_t>& cuts) {
  std::vector<std::int32_t> offsets;
  for (std::int64_t p = 0; p < tokens; p += block) offsets.push_back(static_cast<std::int32_t>(p));
  for (const auto cut : cuts) offsets.push_back(static_cast<std::int32_t>(cut));
  offsets.push_back(static_cast<std::int32_t>(tokens));
  std::sort(offsets.begin(), offsets.end());
  offsets.erase(std::unique(offsets.begin(), offsets.end()), offsets.end());
  return offsets;
}

std::int64_t least_distance(const PricedMask& mask, std::int64_t row, std::int64_t column) {
  const std::int64_t q_first = mask.q_offsets[at(row)];
  const std::int64_t q_last = mask.q_offsets[at(row) + 1] - 1;
  const std::int64_t k_first = mask.k_offsets[at(column)];
  const std::int64_t k_last = mask.k_offsets[at(column) + 1] - 1;
  return std::max({std::int64_t{0}, k_first - q_last, q_first - k_last});
}

void force_positions(PricedMask& mask, bool rows, bool columns,
                     const std::function<bool(std::int64_t)>& pick) {
  const auto holds = [&](const std::vector<std::int32_t>& offsets, std::int64_t block) {
    for (auto p = offsets[at(block)]; p < offsets[at(block) + 1]; ++p) {
      if (pick(p)) return true;
    }
    return false;
  };
  for (std::int64_t i = 0; rows && i < mask.rows(); ++i) {
    if (!holds(mask.q_offsets, i)) continue;
    std::fill_n(mask.forced.mask.begin() + i * mask.columns(), mask.columns(), std::uint8_t{1});
  }
  for (std::int64_t j = 0; columns && j < mask.columns(); ++j) {
    if (!holds(mask.k_offsets, j)) continue;
    for (std::int64_t i = 0; i < mask.rows(); ++i) mask.forced.mask[at(i * mask.columns() + j)] = 1;
  }
}

KeptRows keep_at(const PricedMask& mask, double knob) {
  KeptRows kept(at(mask.rows()));
  for (std::int64_t i = 0; i < mask.rows(); ++i) {
    std::int64_t cheapest = 0;
    for (std::int64_t j = 0; j < mask.columns(); ++j) {
      if (mask.price(i, j) < mask.price(i, cheapest)) cheapest = j;
      if (mask.forced.at(i, j) || mask.price(i, j) <= knob) {
        kept[at(i)].push_back(static_cast<std::int32_t>(j));
      }
    }
    if (kept[at(i)].empty()) kept[at(i)].push_back(static_cast<std::int32_t>(cheapest));
  }
  return kept;
}

KeptRows keep_density(const PricedMask& mask, double density, std::uint64_t row_seed,
                      const std::vector<std::uint8_t>& key_valid, const std::string& method) {
  const auto rows = sizes_of(mask.q_offsets, {});
  const auto columns = sizes_of(mask.k_offsets, key_valid);
  const auto row_exists = exist(rows);
  const auto column_exists = exist(columns);
  const ScoreMatrix scores = scores_of(mask);
  const nlohmann::json no_params = nlohmann::json::object();
  const KeptRows kept = select_blocks({scores, mask.forced, rows, columns, row_exists,
                                       column_exists, find_selector("head_top_k"), no_params,
                                       Budget::inside, density, true, row_seed});
  for (std::int64_t i = 0; i < mask.rows(); ++i) {
    for (const auto j : kept[at(i)]) {
      if (!mask.forced.at(i, j) && std::isinf(mask.price(i, j))) {
        beyond_reach(mask, rows, columns, density, method);
      }
    }
  }
  return kept;
}

KeptRows forced_part(const PricedMask& mask, const KeptRows& kept) {
  KeptRows rows(kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (const auto j : kept[i]) {
      if (mask.forced.at(static_cast<std::int64_t>(i), j)) rows[i].push_back(j);
    }
  }
  return rows;
}

}  // namespace raingauge
