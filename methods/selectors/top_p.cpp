// SPDX-License-Identifier: Apache-2.0
// Blocks of every row until their predicted probability reaches p. The block that crosses p is kept
// (as in Jenga, XAttention, SVG2) or not (as in SpargeAttn).
#include <cmath>

#include "methods/selectors/selector.h"

namespace raingauge {
namespace {

// Crossing in: a candidate costs the mass ahead of it. Crossing out: the mass including it.
void price(const RankedRow& row, const nlohmann::json& params, std::vector<double>& prices) {
  const bool crossing_in = params.at("crossing") == "in";
  double mass = row.already_mass;
  const auto at_least = params.value("at_least", std::size_t{0});
  prices.clear();
  for (const double probability : *row.probability) {
    const double price = crossing_in ? mass : mass + probability;
    prices.push_back(prices.size() < at_least ? -1.0 : price);
    mass += probability;
  }
}

double nominal_limit(const RankedRow& /*row*/, double /*density*/, const nlohmann::json& params) {
  const double p = params.at("p").get<double>();
  if (p >= 1.0) return 2.0;  // keeps everything, whatever the rounding of the sum
  // Crossing out: sums equal to p are still in.
  return params.at("crossing") == "in" ? p : std::nextafter(p, 2.0);
}

}  // namespace

SelectorEntry top_p_selector() {
  return {
      "top_p",
      "blocks of every row until their predicted probability reaches p",
      "methods with cumulative thresholds: XAttention, Jenga, SpargeAttn",
      {{.name = "p",
        .type = ParamType::real,
        .default_value = 0.9,
        .help = "probability to reach (re-solved under match: density)",
        .min = 0.0,
        .max = 1.0,
        .min_open = true},
       {.name = "crossing",
        .type = ParamType::choice,
        .default_value = "in",
        .help = "whether the block that crosses p is kept",
        .choices = {"in", "out"}},
       {.name = "at_least",
        .type = ParamType::integer,
        .default_value = 0,
        .help = "blocks of every row that are kept whatever p (SVG2: a tenth of the key clusters)",
        .min = 0}},
      true,
      price,
      nominal_limit};
}

}  // namespace raingauge
