// SPDX-License-Identifier: Apache-2.0
// The best blocks of a whole head, wherever they are: one threshold on the score for all rows. With
// exact mass this is the ceiling `oracle_head`.
#include "methods/selectors/selector.h"

namespace raingauge {
namespace {

void price(const RankedRow& row, const nlohmann::json& /*params*/, std::vector<double>& prices) {
  prices.clear();
  for (const float score : *row.scores) prices.push_back(-static_cast<double>(score));
}

double nominal_limit(const RankedRow& /*row*/, double /*density*/,
                     const nlohmann::json& /*params*/) {
  throw Unsupported("selector head_top_k has no nominal setting: its density is always solved for");
}

}  // namespace

SelectorEntry head_top_k_selector() {
  return {"head_top_k", "the best block pairs of a head, freely allocated over its rows",
          "",           {},
          false,        price,
          nominal_limit};
}

}  // namespace raingauge
