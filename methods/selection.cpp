// SPDX-License-Identifier: Apache-2.0
#include "methods/selection.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <numeric>
#include <queue>

#include "data/error.h"
#include "data/random.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

// The candidates of one row in rank order with their prices, and what is kept before any choice.
struct RowState {
  std::vector<std::int32_t> candidates;
  std::vector<double> prices;
  std::vector<double> pairs_before;  // new pairs of the first j candidates: whole numbers, exact
  double forced_pairs = 0.0;
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

// Ascending by the upper halves; equal ones stay in their order. Byte by byte, the lowest first; bytes
// that all keys share are skipped.
void sort_by_score(std::vector<std::uint64_t>& keys) {
  std::array<std::array<std::uint32_t, 256>, 4> places{};
  for (const auto key : keys) {
    for (std::size_t byte = 0; byte < 4; ++byte) ++places[byte][(key >> (32 + 8 * byte)) & 0xffU];
  }
  std::vector<std::uint64_t> sorted(keys.size());
  for (std::size_t byte = 0; byte < 4; ++byte) {
    auto& place = places[byte];
    const auto shift = 32 + 8 * byte;
    if (place[(keys.front() >> shift) & 0xffU] == keys.size()) continue;
    std::exclusive_scan(place.begin(), place.end(), place.begin(), 0U);
    for (const auto key : keys) sorted[place[(key >> shift) & 0xffU]++] = key;
    keys.swap(sorted);
  }
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
    by_row([this](std::size_t i) { prepare_row(i); });
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
    const double all = total_pairs();
    const double target = request_.density * all;
    double kept = take_up_to(-HUGE_VAL);
    if (kept > target + 0.5 * largest_pair()) refuse(kept / all);
    kept = take_up_to(affordable_price(target));
    std::priority_queue<Offer> offers;  // the next candidate of every row: prices never fall
    for (std::size_t i = 0; i < rows_.size(); ++i) offer_next(i, offers);
    while (!offers.empty()) {
      const auto i = static_cast<std::size_t>(offers.top().row);
      offers.pop();
      auto& row = rows_[i];
      const double more = row.pairs_before[row.taken + 1] - row.pairs_before[row.taken];
      if (more > 0.0 && kept + 0.5 * more > target) break;
      kept += more;
      ++row.taken;
      offer_next(i, offers);
    }
  }

  std::vector<std::vector<std::int32_t>> kept() const {
    std::vector<std::vector<std::int32_t>> lists(rows_.size());
    by_row([&](std::size_t i) {
      if (request_.row_exists[i] == 0) return;
      const auto& row = rows_[i];
      std::vector<std::uint8_t> keeps(static_cast<std::size_t>(request_.scores.columns));
      for (std::size_t j = 0; j < row.taken; ++j) keeps[std::size_t(row.candidates[j])] = 1;
      for (std::size_t j = 0; j < keeps.size(); ++j) {
        const auto column = static_cast<std::int32_t>(j);
        if (keeps[j] != 0 || forced(i, column)) lists[i].push_back(column);
      }
    });
    return lists;
  }

 private:
  template <class Each>
  void by_row(const Each& each) const {
    constexpr std::size_t kRowsPerItem = 64;  // less is not worth waking a thread
    const std::size_t items = (rows_.size() + kRowsPerItem - 1) / kRowsPerItem;
    parallel_for(request_.threads, static_cast<std::int64_t>(items), [&](std::int64_t item, int) {
      const auto first = static_cast<std::size_t>(item) * kRowsPerItem;
      const auto last = std::min(rows_.size(), first + kRowsPerItem);
      for (std::size_t i = first; i < last; ++i) each(i);
    });
  }

  // What candidates up to a price, and the least of every row, keep: pairs, forced ones among them.
  double take_up_to(double price) {
    double kept = 0.0;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      auto& row = rows_[i];
      row.taken = std::max(least_of(i), count_up_to(row, price));
      kept += row.forced_pairs + row.pairs_before[row.taken];
    }
    return kept;
  }
  static std::size_t count_up_to(const RowState& row, double price) {
    const auto end = std::partition_point(row.prices.begin(), row.prices.end(),
                                          [&](double each) { return each <= price; });
    return static_cast<std::size_t>(end - row.prices.begin());
  }

  // A price up to which the walk certainly takes everything, near the last such one: a walk that keeps
  // at most the target in all has not stopped before. It spares the walk most of its steps.
  double affordable_price(double target) {
    double low = HUGE_VAL;
    double high = -HUGE_VAL;
    for (const auto& row : rows_) {
      const auto finite = count_up_to(row, std::numeric_limits<double>::max());
      if (finite == 0) continue;
      low = std::min(low, row.prices.front());
      high = std::max(high, row.prices[finite - 1]);
    }
    double affordable = -HUGE_VAL;
    for (int halving = 0; halving < 16 && low < high; ++halving) {
      const double middle = low + (high - low) / 2;
      const double kept = take_up_to(middle);
      if (kept > target) {
        high = middle;
        continue;
      }
      affordable = low = middle;
      if (target - kept <= static_cast<double>(rows_.size()) * largest_pair()) break;
    }
    return affordable;
  }

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
           rows_[row].forced_pairs == 0.0;
  }

  // Candidates kept whatever the limit: what the selector's rule takes at least, and one where
  // nothing else is kept.
  std::size_t least_of(std::size_t row) const {
    const auto wanted = std::max<std::size_t>(least_, must_take_one(row) ? 1 : 0);
    return request_.row_exists[row] == 0 ? 0 : std::min(wanted, rows_[row].candidates.size());
  }

  void prepare_row(std::size_t i) {
    auto& row = rows_[i];
    row.pairs_before.reserve(static_cast<std::size_t>(request_.scores.columns) + 1);
    row.pairs_before.push_back(0.0);
    const bool inside = request_.budget == Budget::inside;
    std::int64_t forced_count = 0;
    std::int64_t forced_tokens = 0;
    const auto columns = static_cast<std::size_t>(request_.scores.columns);
    std::vector<std::int32_t> competing;
    competing.reserve(columns);
    row.candidates.reserve(columns);
    for (std::int64_t j = 0; j < request_.scores.columns; ++j) {
      const auto column = static_cast<std::size_t>(j);
      if (request_.column_exists[column] == 0) continue;
      const bool is_forced = forced(i, j);
      forced_count += is_forced ? 1 : 0;
      forced_tokens += is_forced ? request_.column_tokens[column] : 0;
      if (request_.competes != nullptr && (*request_.competes)[column] == 0) continue;
      competing.push_back(static_cast<std::int32_t>(j));
      if (!inside || !is_forced) row.candidates.push_back(static_cast<std::int32_t>(j));
    }
    const auto tokens = static_cast<double>(request_.row_tokens[i]);
    row.forced_pairs = tokens * static_cast<double>(forced_tokens);
    if (request_.row_exists[i] == 0) {
      row.candidates.clear();
      return;
    }
    row.blocks = static_cast<std::int64_t>(competing.size());
    row.candidates =
        rank_columns(request_.scores.row(static_cast<std::int64_t>(i)), row.candidates);
    // A candidate that is forced anyway adds nothing.
    for (const auto column : row.candidates) {
      const auto more = forced(i, column) ? 0 : request_.column_tokens[std::size_t(column)];
      row.pairs_before.push_back(row.pairs_before.back() + tokens * static_cast<double>(more));
    }
    price_row(i, competing, inside ? forced_count : 0);
  }

  void price_row(std::size_t i, const std::vector<std::int32_t>& competing,
                 std::int64_t already_kept) {
    auto& row = rows_[i];
    const float* scores = request_.scores.row(static_cast<std::int64_t>(i));
    std::vector<float> ranked;
    std::vector<double> probability;
    double already_mass = 0.0;
    ranked.reserve(row.candidates.size());
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
  constexpr std::size_t kFew = 32;  // sorted faster by comparisons
  std::vector<std::uint64_t> keys;
  keys.reserve(columns.size());
  for (const auto column : columns) keys.push_back(rank_key(scores[column], column));
  if (keys.size() <= kFew) {
    std::sort(keys.begin(), keys.end());
  } else {
    sort_by_score(keys);
  }
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
