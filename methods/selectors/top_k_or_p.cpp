// SPDX-License-Identifier: Apache-2.0
// Jenga: of every row the k best blocks, or as many as reach the probability p, whichever is more.
// The block that crosses p is kept: #(cumulative sums <= p) + 1 blocks.
//
// Solving for a density scales k and p by one common factor: a candidate costs the factor at which
// the rule takes it up, min(rank / k, mass ahead / p), and the authors' setting is the factor 1.
#include <algorithm>
#include <limits>

#include "methods/selectors/selector.h"

namespace raingauge {
namespace {

double ratio(double part, double whole) {
  if (whole > 0.0) return part / whole;
  return part > 0.0 ? std::numeric_limits<double>::infinity() : 0.0;
}

void price(const RankedRow& row, const nlohmann::json& params, std::vector<double>& prices) {
  const double k = params.at("k").get<double>();
  const double p = params.at("p").get<double>();
  double mass_ahead = row.already_mass;
  prices.clear();
  for (std::size_t j = 0; j < row.probability->size(); ++j) {
    const double by_rank = ratio(static_cast<double>(j), k);
    const double by_mass = ratio(mass_ahead, p);
    // Where both are switched off (k = p = 0) the rank alone decides.
    prices.push_back(k > 0.0 || p > 0.0 ? std::min(by_rank, by_mass) : static_cast<double>(j));
    mass_ahead += (*row.probability)[j];
  }
}

std::size_t nominal_count(const RankedRow& row, double /*density*/, const nlohmann::json& params) {
  const double p = params.at("p").get<double>();
  if (p >= 1.0) return row.probability->size();
  std::size_t reached = 1;
  double sum = row.already_mass;
  for (const double probability : *row.probability) {
    sum += probability;
    if (sum > p) break;
    ++reached;
  }
  return std::max(reached, params.at("k").get<std::size_t>());
}

}  // namespace

SelectorEntry top_k_or_p_selector() {
  return {"top_k_or_p",
          "the k best blocks of every row, or those that reach probability p, whichever is more",
          "Jenga (arXiv 2505.16864), attention_block_triton_diffres.py",
          {{.name = "k",
            .type = ParamType::integer,
            .default_value = 1,
            .help = "blocks of a row at least",
            .min = 0},
           {.name = "p",
            .type = ParamType::real,
            .default_value = 0.3,
            .help = "probability to reach at least",
            .min = 0.0,
            .max = 1.0}},
          true,
          price,
          nullptr,
          nominal_count};
}

}  // namespace raingauge
