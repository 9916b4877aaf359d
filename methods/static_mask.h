// SPDX-License-Identifier: Apache-2.0
// Masks that follow from positions alone (bands, tiles, frame distances), as prices: the smallest
// value of the method's knob at which a block pair is kept. At the authors' knob the mask is every
// pair with price <= knob; for a given density the prices are walked up until it is reached, and the
// rows that share the last price are filled by the seeded row rank.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "methods/forced.h"
#include "methods/plan_heads.h"

namespace raingauge {

struct PricedMask {
  std::vector<std::int32_t> q_offsets, k_offsets;  // block boundaries over positions
  std::vector<double> prices;                      // [rows, columns]; +inf: never kept
  ForcedBlocks forced;                             // kept whatever the knob

  std::int64_t rows() const { return static_cast<std::int64_t>(q_offsets.size()) - 1; }
  std::int64_t columns() const { return static_cast<std::int64_t>(k_offsets.size()) - 1; }
  double price(std::int64_t row, std::int64_t column) const {
    return prices[static_cast<std::size_t>(row * columns() + column)];
  }
};

// Nothing forced, every price +inf.
PricedMask priced_mask(std::vector<std::int32_t> q_offsets, std::vector<std::int32_t> k_offsets);

// Blocks of `block` positions over [0, tokens), the last one ragged; `cuts` are further boundaries.
std::vector<std::int32_t> uniform_offsets(std::int64_t tokens, int block,
                                          const std::vector<std::int64_t>& cuts = {});

// The least |q - k| over the positions of two blocks: a token-level band |q - k| <= w touches the
// pair (and so its cover keeps it) when w reaches this.
std::int64_t least_distance(const PricedMask& mask, std::int64_t row, std::int64_t column);

// Forces the rows and the columns that hold any position p with pick(p).
void force_positions(PricedMask& mask, bool rows, bool columns,
                     const std::function<bool(std::int64_t)>& pick);

// Forced pairs and those with price <= knob. Rows left without a pair get their cheapest one.
KeptRows keep_at(const PricedMask& mask, double knob);

// The knob solved for: kept pairs / all pairs = density to within half a block pair. `key_valid`
// [positions] or null counts valid keys only. Throws Infeasible when the forced pairs exceed the
// density, Unsupported (naming `method` and the most it can keep) when no knob keeps that much.
KeptRows keep_density(const PricedMask& mask, double density, std::uint64_t row_seed,
                      const std::vector<std::uint8_t>& key_valid, const std::string& method);

// The forced pairs among `kept` (a forced column without a valid key is never kept).
KeptRows forced_part(const PricedMask& mask, const KeptRows& kept);

}  // namespace raingauge
