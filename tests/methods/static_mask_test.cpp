// SPDX-License-Identifier: Apache-2.0
#include "methods/static_mask.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "data/error.h"

namespace raingauge {
namespace {

PricedMask band(std::int64_t tokens, int block) {
  const auto offsets = uniform_offsets(tokens, block);
  PricedMask mask = priced_mask(offsets, offsets);
  for (std::int64_t i = 0; i < mask.rows(); ++i) {
    for (std::int64_t j = 0; j < mask.columns(); ++j) {
      mask.prices[std::size_t(i * mask.columns() + j)] = double(least_distance(mask, i, j));
    }
  }
  return mask;
}

double pairs(const PricedMask& mask, const KeptRows& kept) {
  double sum = 0.0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (const auto j : kept[i]) {
      sum += double(mask.q_offsets[i + 1] - mask.q_offsets[i]) *
             double(mask.k_offsets[std::size_t(j) + 1] - mask.k_offsets[std::size_t(j)]);
    }
  }
  return sum;
}

TEST(StaticMask, ABandsBlocksAreTheCoverOfItsTokens) {
  const PricedMask mask = band(150, 16);
  for (const int width : {0, 1, 15, 16, 17, 40, 149}) {
    const KeptRows kept = keep_at(mask, width);
    for (std::int64_t i = 0; i < mask.rows(); ++i) {
      std::vector<std::int32_t> expected;
      for (std::int64_t j = 0; j < mask.columns(); ++j) {
        bool any = false;
        for (auto q = mask.q_offsets[std::size_t(i)]; q < mask.q_offsets[std::size_t(i) + 1]; ++q) {
          for (auto k = mask.k_offsets[std::size_t(j)]; k < mask.k_offsets[std::size_t(j) + 1]; ++k)
            any = any || std::abs(q - k) <= width;
        }
        if (any) expected.push_back(std::int32_t(j));
      }
      EXPECT_EQ(kept[std::size_t(i)], expected) << "width " << width << ", row " << i;
    }
  }
}

TEST(StaticMask, SolvingWidensTheBandAndFillsItsLastRing) {
  PricedMask mask = band(150, 16);
  force_positions(mask, false, true, [](std::int64_t p) { return p < 20; });
  for (const double density : {0.35, 0.5, 0.77, 1.0}) {
    const KeptRows kept = keep_density(mask, density, 3, {}, "band");
    EXPECT_LE(std::abs(pairs(mask, kept) - density * 150 * 150), 0.5 * 16 * 16);
    // Nothing cheaper is left out while something dearer is kept.
    double dearest = 0.0;
    double cheapest = INFINITY;
    for (std::int64_t i = 0; i < mask.rows(); ++i) {
      for (std::int64_t j = 0; j < mask.columns(); ++j) {
        if (mask.forced.at(i, j)) continue;
        const auto& row = kept[std::size_t(i)];
        const bool in = std::find(row.begin(), row.end(), j) != row.end();
        if (in) dearest = std::max(dearest, mask.price(i, j));
        if (!in) cheapest = std::min(cheapest, mask.price(i, j));
      }
    }
    EXPECT_LE(dearest, cheapest);
  }
}

TEST(StaticMask, ForcedPairsAboveTheDensityAreInfeasibleAndAbsentOnesUnsupported) {
  PricedMask mask = band(160, 16);
  force_positions(mask, true, true, [](std::int64_t p) { return p < 48; });
  EXPECT_THROW(keep_density(mask, 0.3, 1, {}, "band"), Infeasible);
  for (auto& price : mask.prices) {
    if (price > 32.0) price = std::numeric_limits<double>::infinity();
  }
  try {
    keep_density(mask, 0.95, 1, {}, "band");
    FAIL() << "accepted";
  } catch (const Unsupported& refusal) {
    EXPECT_NE(std::string(refusal.what()).find("band: density 0.9500 is beyond its rule"),
              std::string::npos);
  }
}

TEST(StaticMask, ForcedPartIsWhatIsKept) {
  PricedMask mask = band(64, 16);
  force_positions(mask, true, false, [](std::int64_t p) { return p == 17; });
  const KeptRows kept = keep_at(mask, 0.0);
  const KeptRows forced = forced_part(mask, kept);
  EXPECT_EQ(forced[1], (std::vector<std::int32_t>{0, 1, 2, 3}));
  EXPECT_TRUE(forced[0].empty());
  EXPECT_EQ(kept[0], (std::vector<std::int32_t>{0}));
}

}  // namespace
}  // namespace raingauge
