// SPDX-License-Identifier: Apache-2.0
#include "methods/selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <queue>

#include "data/error.h"
#include "data/random.h"

namespace raingauge {
namespace {

// The candidates of one row in rank order with their prices, and what is kept before any choice.
struct RowState {
  std::vector<std::int32_t> candidates;
  std::vector<double> prices;
  std::int64_t blocks = 0;
  std::size_t nominal = 0;  // candidates that the authors' setting keeps
  std::size_t taken = 0;    // candidates kept: the first `taken`
};

// Ascending keys are descending scores, NaN last; -0 equals +0, and equal scores go by column.
std::uint64_t rank_key(float score, std::int32_t column) {
  std::uint32_t descending = 0xffffffffU;
  if (!std::isnan(score)) {
    const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);  // -0 + 0 = +0
    descending = (bits & 0x80000000U) != 0 ? bits : ~(bits | 0x80000000U);
  }
  return (std::uint64_t{descending} << 32) | static_cast<std::uint32_t>(column);
}

// The row's shares over its `columns`; the others are 0, and all are when no score is above -inf.
std::vector<double> row_probability(const ScoreMatrix& scores, std::int64_t row,
                                    const std::vector<std::int32_t>& columns) {
  std::vector<double> probability(static_cast<std::size_t>(scores.columns), 0.0);
  const float* values = scores.row(row);
  double top = -INFINITY;
  for (const auto column : columns) {
    if (values[column] > top) top = values[column];
  }
  if (top == -INFINITY) return probability;
  double sum = 0.0;
  for (const auto column : columns) {
    const auto j = static_cast<std::size_t>(column);
    if (std::isnan(values[j])) continue;
    probability[j] = scores.probabilities ? double{values[j]} : std::exp(double{values[j]} - top);
    sum += probability[j];
  }
  if (sum > 0.0) {
    for (auto& p : probability) p /= sum;
  }
  return probability;
}

class HeadSelection {
 public:
  explicit HeadSelection(const SelectionRequest& request)
      : request_(request),
        least_(request.selector_params.value("at_least", std::size_t{0})),
        rows_(static_cast<std::size_t>(request.scores.rows)) {
    for (std::size_t i = 0; i < rows_.size(); ++i) prepare_row(i);
    const std::vector<std::int32_t> order = rows_by_rank(rows_.size(), request.row_seed);
    row_rank_.resize(rows_.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      row_rank_[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
    }
  }

  void take_nominal() {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      auto& row = rows_[i];
      row.taken = std::max(row.nominal, least_of(i));
    }
  }

  // Walks up the prices of all rows; equal prices go by the seeded row rank, then by candidate rank.
  void solve() {
    double kept = 0.0;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      kept += forced_pairs(i);
      rows_[i].taken = least_of(i);
      for (std::size_t j = 0; j < rows_[i].taken; ++j) kept += pairs(i, rows_[i].candidates[j]);
    }
    const double all = total_pairs();
    const double target = request_.density * all;
    const double block_pair = largest_pair();
    if (kept > target + 0.5 * block_pair) refuse(kept / all);
    std::priority_queue<Offer> offers;  // the next candidate of every row: prices never fall
    for (std::size_t i = 0; i < rows_.size(); ++i) offer_next(i, offers);
    while (!offers.empty()) {
      const auto i = static_cast<std::size_t>(offers.top().row);
      offers.pop();
      auto& row = rows_[i];
      const double more = pairs(i, row.candidates[row.taken]);
      if (more > 0.0 && kept + 0.5 * more > target) break;
      kept += more;
      ++row.taken;
      offer_next(i, offers);
    }
  }

  std::vector<std::vector<std::int32_t>> kept() const {
    std::vector<std::vector<std::int32_t>> lists(rows_.size());
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (request_.row_exists[i] == 0) continue;
      auto& list = lists[i];
      list.assign(rows_[i].candidates.begin(),
                  rows_[i].candidates.begin() + static_cast<std::ptrdiff_t>(rows_[i].taken));
      for (std::int64_t j = 0; j < request_.scores.columns; ++j) {
        if (forced(i, j)) list.push_back(static_cast<std::int32_t>(j));
      }
      std::sort(list.begin(), list.end());
      list.erase(std::unique(list.begin(), list.end()), list.end());
    }
    return lists;
  }

 private:
  bool forced(std::size_t row, std::int64_t column) const {
    return request_.column_exists[static_cast<std::size_t>(column)] != 0 &&
           request_.forced.at(static_cast<std::int64_t>(row), column);
  }

  // Cheapest on top; equal prices go by row rank.
  struct Offer {
    double price;
    std::int32_t row_rank;
    std::int32_t row;
    bool operator<(const Offer& other) const {
      return price != other.price ? price > other.price : row_rank > other.row_rank;
    }
  };

  void offer_next(std::size_t i, std::priority_queue<Offer>& offers) const {
    const auto& row = rows_[i];
    if (row.taken >= row.candidates.size()) return;
    const double price = row.prices[row.taken];
    offers.push({std::isnan(price) ? HUGE_VAL : price, row_rank_[i], static_cast<std::int32_t>(i)});
  }

  // New pairs that keeping this candidate adds (none when it is forced anyway).
  double pairs(std::size_t row, std::int32_t column) const {
    if (forced(row, column)) return 0.0;
    return static_cast<double>(request_.row_tokens[row]) *
           static_cast<double>(request_.column_tokens[static_cast<std::size_t>(column)]);
  }

  double forced_pairs(std::size_t row) const {
    std::int64_t tokens = 0;
    for (std::int64_t j = 0; j < request_.scores.columns; ++j) {
      if (forced(row, j)) tokens += request_.column_tokens[static_cast<std::size_t>(j)];
    }
    return static_cast<double>(request_.row_tokens[row]) * static_cast<double>(tokens);
  }

  double total_pairs() const {
    const auto sum = [](const std::vector<std::int64_t>& sizes) {
      return static_cast<double>(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}));
    };
    return sum(request_.row_tokens) * sum(request_.column_tokens);
  }

  double largest_pair() const {
    return static_cast<double>(
               *std::max_element(request_.row_tokens.begin(), request_.row_tokens.end())) *
           static_cast<double>(
               *std::max_element(request_.column_tokens.begin(), request_.column_tokens.end()));
  }

  // A row whose forced blocks hold no token needs one candidate that does; ranked candidates with
  // tokens come first for such rows' sake only when the best is empty, which layouts never produce.
  bool must_take_one(std::size_t row) const {
    return request_.row_exists[row] != 0 && !rows_[row].candidates.empty() &&
           forced_pairs(row) == 0.0;
  }

  // Candidates kept whatever the limit: what the selector's rule takes at least, and one where
  // nothing else is kept.
  std::size_t least_of(std::size_t row) const {
    const auto wanted = std::max<std::size_t>(least_, must_take_one(row) ? 1 : 0);
    return request_.row_exists[row] == 0 ? 0 : std::min(wanted, rows_[row].candidates.size());
  }

  void prepare_row(std::size_t i) {
    auto& row = rows_[i];
    if (request_.row_exists[i] == 0) return;
    const auto index = static_cast<std::int64_t>(i);
    const bool inside = request_.budget == Budget::inside;
    std::int64_t forced_count = 0;
    std::vector<std::int32_t> competing;
    for (std::int64_t j = 0; j < request_.scores.columns; ++j) {
      const auto column = static_cast<std::size_t>(j);
      if (request_.column_exists[column] == 0) continue;
      const bool is_forced = forced(i, j);
      forced_count += is_forced ? 1 : 0;
      if (request_.competes != nullptr && (*request_.competes)[column] == 0) continue;
      competing.push_back(static_cast<std::int32_t>(j));
      if (!inside || !is_forced) row.candidates.push_back(static_cast<std::int32_t>(j));
    }
    row.blocks = static_cast<std::int64_t>(competing.size());
    row.candidates = rank_columns(request_.scores.row(index), row.candidates);
    price_row(i, competing, inside ? forced_count : 0);
  }

  void price_row(std::size_t i, const std::vector<std::int32_t>& competing,
                 std::int64_t already_kept) {
    auto& row = rows_[i];
    const float* scores = request_.scores.row(static_cast<std::int64_t>(i));
    std::vector<float> ranked;
    std::vector<double> probability;
    double already_mass = 0.0;
    for (const auto column : row.candidates) ranked.push_back(scores[column]);
    if (request_.selector.needs_probability) {
      const auto all = row_probability(request_.scores, static_cast<std::int64_t>(i), competing);
      for (const auto column : row.candidates) probability.push_back(all[std::size_t(column)]);
      if (request_.budget == Budget::inside) {
        for (std::int64_t j = 0; j < request_.scores.columns; ++j) {
          if (forced(i, j)) already_mass += all[static_cast<std::size_t>(j)];
        }
      }
    }
    const RankedRow ranked_row{row.blocks, already_kept, already_mass, &ranked, &probability};
    request_.selector.price(ranked_row, request_.selector_params, row.prices);
    if (!request_.solve) row.nominal = nominal_count(ranked_row, row.prices);
  }

  std::size_t nominal_count(const RankedRow& row, const std::vector<double>& prices) const {
    const auto& selector = request_.selector;
    if (selector.nominal_count != nullptr) {
      return std::min(prices.size(),
                      selector.nominal_count(row, request_.density, request_.selector_params));
    }
    const double limit = selector.nominal_limit(row, request_.density, request_.selector_params);
    std::size_t count = 0;
    while (count < prices.size() && prices[count] < limit) ++count;
    return count;
  }

  [[noreturn]] void refuse(double least) const {
    char text[160];
    std::snprintf(
        text, sizeof text,
        "the forced blocks alone are %.4f of all pairs, the density asked for is %.4f; the "
        "least possible density here is %.4f",
        least, request_.density, least);
    throw Infeasible(text, least);
  }

  const SelectionRequest& request_;
  std::size_t least_;
  std::vector<RowState> rows_;
  std::vector<std::int32_t> row_rank_;
};

}  // namespace

std::vector<std::int32_t> rows_by_rank(std::size_t rows, std::uint64_t row_seed) {
  std::vector<std::int32_t> order(rows);
  std::iota(order.begin(), order.end(), 0);
  seeded_shuffle(order, hash_seed({row_seed, 0x9035ULL}));
  return order;
}

std::vector<std::int32_t> rank_columns(const float* scores,
                                       const std::vector<std::int32_t>& columns) {
  std::vector<std::uint64_t> keys;
  keys.reserve(columns.size());
  for (const auto column : columns) keys.push_back(rank_key(scores[column], column));
  std::sort(keys.begin(), keys.end());
  std::vector<std::int32_t> ranked(columns.size());
  std::transform(keys.begin(), keys.end(), ranked.begin(),
                 [](std::uint64_t key) { return static_cast<std::int32_t>(key & 0xffffffffU); });
  return ranked;
}

std::vector<std::vector<std::int32_t>> select_blocks(const SelectionRequest& request) {
  HeadSelection selection(request);
  if (request.solve) {
    selection.solve();
  } else {
    selection.take_nominal();
  }
  return selection.kept();
}

}  // namespace raingauge
