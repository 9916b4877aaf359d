// SPDX-License-Identifier: Apache-2.0
#include "methods/selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "data/error.h"
#include "data/random.h"
#include "tests/methods/fixtures.h"
#include "tests/methods/kernels/cpu_test_support.h"

namespace raingauge {
namespace {

using nlohmann::json;

// A square problem of `blocks` blocks of 10 tokens with given scores; tests change its parts.
struct Problem {
  ScoreMatrix scores;
  ForcedBlocks forced;
  std::vector<std::int64_t> row_tokens, column_tokens;
  std::vector<std::uint8_t> row_exists, column_exists;
  std::string selector = "top_k";
  json params = {{"ties", "lowest_index"}, {"rounding", "exact"}};
  Budget budget = Budget::inside;
  double density = 0.3;
  bool solve = true;

  Problem(std::int64_t blocks, std::uint64_t seed) {
    scores.rows = scores.columns = blocks;
    for (std::int64_t i = 0; i < blocks * blocks; ++i) {
      scores.values.push_back(testing::gaussian(seed, static_cast<std::uint64_t>(i)));
    }
    forced = {blocks, blocks,
              std::vector<std::uint8_t>(static_cast<std::size_t>(blocks * blocks), 0)};
    row_tokens.assign(static_cast<std::size_t>(blocks), 10);
    column_tokens = row_tokens;
    row_exists.assign(static_cast<std::size_t>(blocks), 1);
    column_exists = row_exists;
  }
  std::vector<std::vector<std::int32_t>> run() const {
    return select_blocks({scores, forced, row_tokens, column_tokens, row_exists, column_exists,
                          find_selector(selector), params, budget, density, solve, 5});
  }
  double pairs(const std::vector<std::vector<std::int32_t>>& kept) const {
    double sum = 0.0;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      for (const auto j : kept[i])
        sum += double(row_tokens[i]) * double(column_tokens[std::size_t(j)]);
    }
    return sum;
  }
  double all_pairs() const {
    return double(std::accumulate(row_tokens.begin(), row_tokens.end(), std::int64_t{0})) *
           double(std::accumulate(column_tokens.begin(), column_tokens.end(), std::int64_t{0}));
  }
};

TEST(Ranking, TiesGoToTheLowestIndexNaNRanksLastAndMinusZeroEqualsZero) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float scores[] = {1.0F, nan, 3.0F, 1.0F, -0.0F, 0.0F, 3.0F, nan};
  std::vector<std::int32_t> all(8);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(rank_columns(scores, all), (std::vector<std::int32_t>{2, 6, 0, 3, 4, 5, 1, 7}));
}

TEST(Ranking, AgreesWithAStableSort) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<float> scores(97);
    for (std::size_t i = 0; i < scores.size(); ++i) {
      scores[i] = static_cast<float>(below(mix64(seed * 1000 + i), 12));  // many ties
    }
    std::vector<std::int32_t> expected(scores.size());
    std::iota(expected.begin(), expected.end(), 0);
    const auto columns = expected;
    std::stable_sort(expected.begin(), expected.end(), [&](std::int32_t a, std::int32_t b) {
      return scores[std::size_t(a)] > scores[std::size_t(b)];
    });
    EXPECT_EQ(rank_columns(scores.data(), columns), expected);
  }
}

TEST(Ranking, OrdersEveryKindOfFloat) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float kinds[] = {kInf,   -kInf,   0.0F, -0.0F, std::numeric_limits<float>::quiet_NaN(),
                         1e-40F, -1e-40F, 3.0F, -3.0F, std::numeric_limits<float>::lowest()};
  std::vector<float> scores(200);
  std::vector<std::int32_t> columns;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = kinds[below(mix64(i), std::size(kinds))];
    if (i % 3 != 0) columns.push_back(static_cast<std::int32_t>(i));
  }
  std::vector<std::int32_t> expected = columns;
  std::stable_sort(expected.begin(), expected.end(), [&](std::int32_t a, std::int32_t b) {
    const float x = scores[std::size_t(a)], y = scores[std::size_t(b)];
    return !std::isnan(x) && (std::isnan(y) || x > y);
  });
  EXPECT_EQ(rank_columns(scores.data(), columns), expected);
}

// One threshold for the whole head: nothing left out beats anything kept, but for the one block that
// every row must have; NaN is worst.
TEST(Selection, HeadTopKKeepsTheBestPairsOfTheWholeHead) {
  for (const double density : {0.2, 0.5, 0.9}) {
    Problem problem(31, 11);
    problem.selector = "head_top_k";
    problem.params = json::object();
    problem.density = density;
    for (std::size_t i = 0; i < 31; ++i) problem.scores.values[i * 31 + i % 7] = std::nanf("");
    const auto kept = problem.run();
    EXPECT_LE(std::abs(problem.pairs(kept) - density * problem.all_pairs()), 0.5 * 100 + 1e-9);
    float worst = std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < 31; ++i) {
      if (kept[i].size() < 2) continue;
      for (const auto j : kept[i]) worst = std::min(worst, problem.scores.row(std::int64_t(i))[j]);
    }
    for (std::size_t i = 0; i < 31; ++i) {
      for (std::int32_t j = 0; j < 31; ++j) {
        if (std::binary_search(kept[i].begin(), kept[i].end(), j)) continue;
        EXPECT_FALSE(problem.scores.row(std::int64_t(i))[j] > worst) << i << ", " << j;
      }
    }
  }
}

TEST(Selection, SolvesForTheDensityWithinHalfABlockPairAndSpendsAlmostEquallyOnRows) {
  for (const double density : {0.05, 0.123, 0.3, 0.777, 1.0}) {
    Problem problem(23, 1);
    problem.density = density;
    const auto kept = problem.run();
    EXPECT_LE(std::abs(problem.pairs(kept) - density * problem.all_pairs()), 0.5 * 100 + 1e-9);
    std::size_t least = 1000, most = 0;
    for (const auto& row : kept) {
      least = std::min(least, row.size());
      most = std::max(most, row.size());
    }
    EXPECT_LE(most - least, 1U) << density;
  }
}

// The rule as selection.h states it, one candidate at a time: always the row whose next candidate is the
// cheapest, equal prices by row rank, until one more would pass the target by half of it.
std::vector<std::vector<std::int32_t>> walk(const Problem& problem) {
  const auto n = problem.row_tokens.size();
  std::vector<std::vector<std::int32_t>> ranked(n), kept(n);
  std::vector<std::size_t> next(n, 0);
  double pairs = 0.0;
  const auto keep = [&](std::size_t i, std::int32_t j) {
    kept[i].push_back(j);
    pairs += double(problem.row_tokens[i]) * double(problem.column_tokens[std::size_t(j)]);
  };
  std::vector<std::size_t> already(n, 0);
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<std::int32_t> columns;
    for (std::size_t j = 0; j < n; ++j) {
      const auto column = static_cast<std::int32_t>(j);
      if (problem.column_exists[j] == 0 || problem.row_exists[i] == 0) continue;
      if (problem.forced.at(std::int64_t(i), column)) {
        keep(i, column);
        ++already[i];
      } else {
        columns.push_back(column);
      }
    }
    ranked[i] = rank_columns(problem.scores.row(std::int64_t(i)), columns);
    if (kept[i].empty() && !ranked[i].empty()) keep(i, ranked[i][next[i]++]);
  }
  const auto order = rows_by_rank(n, 5);
  for (;;) {
    std::size_t best = n;
    for (const auto row : order) {
      const auto i = static_cast<std::size_t>(row);
      if (next[i] >= ranked[i].size()) continue;
      if (best == n || already[i] + next[i] < already[best] + next[best]) best = i;
    }
    if (best == n) break;
    const auto column = ranked[best][next[best]];
    const double more =
        double(problem.row_tokens[best]) * double(problem.column_tokens[std::size_t(column)]);
    if (more > 0.0 && pairs + 0.5 * more > problem.density * problem.all_pairs()) break;
    keep(best, column);
    ++next[best];
  }
  for (auto& row : kept) std::sort(row.begin(), row.end());
  return kept;
}

TEST(Selection, SolvingIsAWalkOfOneCandidateAtATime) {
  const std::uint64_t base = test::fresh_seed();
  for (std::uint64_t round = 0; round < 60; ++round) {
    const auto draw = [&](std::uint64_t what, std::uint64_t end) {
      return below(mix64(base + round * 977 + what), end);
    };
    const auto blocks = static_cast<std::int64_t>(3 + draw(0, 80));
    Problem problem(blocks, base + round);
    for (std::size_t i = 0; i < problem.row_tokens.size(); ++i) {
      problem.row_tokens[i] = static_cast<std::int64_t>(1 + draw(100 + i, 128));
      problem.column_tokens[i] = static_cast<std::int64_t>(1 + draw(300 + i, 128));
    }
    for (std::size_t i = 0; i < problem.forced.mask.size(); ++i) {
      problem.forced.mask[i] = draw(1000 + i, 20) == 0 ? 1 : 0;
    }
    if (round % 3 == 0) {  // a missing block, many equal scores
      problem.row_tokens[1] = problem.column_tokens[1] = 0;
      problem.row_exists[1] = problem.column_exists[1] = 0;
      for (auto& score : problem.scores.values) score = std::floor(score);
    }
    problem.density = 0.15 + 0.01 * double(draw(1, 85));
    const auto expected = walk(problem);
    try {  // forced pairs may pass a low density
      EXPECT_EQ(problem.run(), expected) << "seed " << base << " round " << round;
    } catch (const Infeasible&) {
      EXPECT_GT(problem.pairs(expected), problem.density * problem.all_pairs());
    }
  }
}

// Threads share the rows; the lists are the same.
TEST(Selection, IsTheSameForAnyNumberOfThreads) {
  const Problem problem(150, 3);
  const auto with = [&](int threads) {
    return select_blocks({problem.scores, problem.forced, problem.row_tokens, problem.column_tokens,
                          problem.row_exists, problem.column_exists, find_selector("top_k"),
                          problem.params, problem.budget, problem.density, problem.solve, 5,
                          nullptr, threads});
  };
  const auto one = with(1);
  EXPECT_EQ(one, with(2));
  EXPECT_EQ(one, with(5));
}

TEST(Selection, KeepsTheBestBlocks) {
  Problem problem(16, 2);
  problem.density = 0.25;
  const auto kept = problem.run();
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const float* row = problem.scores.row(std::int64_t(i));
    float worst_kept = 1e9F;
    for (const auto j : kept[i]) worst_kept = std::min(worst_kept, row[j]);
    for (std::int32_t j = 0; j < 16; ++j) {
      if (std::binary_search(kept[i].begin(), kept[i].end(), j)) continue;
      EXPECT_LE(row[j], worst_kept);
    }
  }
}

TEST(Selection, ForcedBlocksCountInsideTheBudgetOrComeOnTop) {
  Problem problem(20, 3);
  for (int j = 0; j < 20; ++j) problem.forced.mask[std::size_t(4 * 20 + j)] = 1;  // row 4
  for (int i = 0; i < 20; ++i) problem.forced.mask[std::size_t(i * 20 + 7)] = 1;  // column 7
  problem.density = 0.3;
  const auto inside = problem.run();
  EXPECT_LE(std::abs(problem.pairs(inside) - 0.3 * problem.all_pairs()), 50.0);
  EXPECT_EQ(inside[4].size(), 20U);
  for (const auto& row : inside) EXPECT_TRUE(std::binary_search(row.begin(), row.end(), 7));

  problem.solve = false;
  problem.budget = Budget::outside;
  const auto outside = problem.run();
  for (std::size_t i = 0; i < 20; ++i) {
    if (i == 4) continue;
    EXPECT_TRUE(outside[i].size() == 6 || outside[i].size() == 7)
        << outside[i].size();  // 6 + forced
  }
}

TEST(Selection, ForcedBlocksBeyondTheDensityAreInfeasibleAndSayTheLeastDensity) {
  Problem problem(10, 4);
  for (int i = 0; i < 10; ++i) {
    for (int j = 0; j < 4; ++j) problem.forced.mask[std::size_t(i * 10 + j)] = 1;
  }
  problem.density = 0.3;
  try {
    problem.run();
    FAIL() << "not refused";
  } catch (const Infeasible& error) {
    EXPECT_NEAR(error.least_density(), 0.4, 1e-12);
    EXPECT_NE(std::string(error.what()).find("0.4000"), std::string::npos) << error.what();
  }
}

TEST(Selection, NominalTopKTiesAreOneRuleEach) {
  Problem problem(8, 5);
  std::fill(problem.scores.values.begin(), problem.scores.values.end(), 1.0F);
  problem.solve = false;
  problem.density = 0.25;
  EXPECT_EQ(problem.run()[3], (std::vector<std::int32_t>{0, 1}));
  problem.params["ties"] = "keep_all";
  EXPECT_EQ(problem.run()[3].size(), 8U);
}

TEST(Selection, AuthorsRoundingHasTheirQuirk) {
  // 1 - 0.7 is 0.30000000000000004 in double: 10 columns give 4 blocks as released, 3 exactly.
  Problem problem(10, 6);
  problem.solve = false;
  problem.density = 1.0 - 0.7;
  EXPECT_EQ(problem.run()[0].size(), 3U);
  problem.params["rounding"] = "authors";
  EXPECT_EQ(problem.run()[0].size(), 4U);
  problem.density = 1.0 - 0.8;
  EXPECT_EQ(problem.run()[0].size(), 2U);
}

TEST(Selection, TopPReachesPWithOrWithoutTheCrossingBlock) {
  Problem problem(4, 7);
  problem.scores.probabilities = true;
  for (int i = 0; i < 4; ++i) {
    const float row[] = {0.5F, 0.25F, 0.125F, 0.125F};
    std::copy_n(row, 4, problem.scores.values.begin() + i * 4);
  }
  problem.selector = "top_p";
  problem.solve = false;
  problem.params = {{"p", 0.6}, {"crossing", "in"}};
  EXPECT_EQ(problem.run()[0], (std::vector<std::int32_t>{0, 1}));
  problem.params["crossing"] = "out";
  EXPECT_EQ(problem.run()[0], (std::vector<std::int32_t>{0}));
  problem.params = {{"p", 1.0}, {"crossing", "in"}};
  EXPECT_EQ(problem.run()[0].size(), 4U);
}

TEST(Selection, RaggedBlocksAreCountedInTokens) {
  Problem problem(11, 8);
  problem.column_tokens.back() = problem.row_tokens.back() = 1;
  problem.density = 0.4;
  EXPECT_LE(std::abs(problem.pairs(problem.run()) - 0.4 * problem.all_pairs()), 50.0 + 1e-9);
}

TEST(Selection, MissingBlocksAreNeverKeptAndEmptyRowsHaveNoList) {
  Problem problem(6, 9);
  problem.column_exists[2] = 0;
  problem.column_tokens[2] = 0;
  problem.row_exists[5] = 0;
  problem.row_tokens[5] = 0;
  problem.density = 1.0;
  const auto kept = problem.run();
  EXPECT_EQ(kept[0], (std::vector<std::int32_t>{0, 1, 3, 4, 5}));
  EXPECT_TRUE(kept[5].empty());
}

}  // namespace
}  // namespace raingauge
