// SPDX-License-Identifier: Apache-2.0
#include "methods/forced.h"

#include <algorithm>

#include "data/error.h"
#include "data/random.h"

namespace raingauge {
namespace {

bool has_rows(const std::string& what) { return what != "none" && what != "cols"; }
bool has_columns(const std::string& what) { return what != "none" && what != "rows"; }

std::vector<std::int64_t> blocks_of(const std::vector<BlockRole>& roles, BlockRole role) {
  std::vector<std::int64_t> blocks;
  for (std::size_t i = 0; i < roles.size(); ++i) {
    if (roles[i] == role) blocks.push_back(static_cast<std::int64_t>(i));
  }
  return blocks;
}

// As many ordinary visual blocks as the pinned frame has, by a seeded shuffle.
std::vector<std::int64_t> random_like_pinned(const std::vector<BlockRole>& roles,
                                             std::uint64_t seed) {
  auto visual = blocks_of(roles, BlockRole::visual);
  const auto wanted = blocks_of(roles, BlockRole::pinned_frame).size();
  seeded_shuffle(visual, hash_seed({seed, 0xb10c5ULL}));
  visual.resize(std::min(visual.size(), wanted));
  return visual;
}

void force_rows(ForcedBlocks& forced, const std::vector<std::int64_t>& rows) {
  for (const auto row : rows) {
    std::fill_n(forced.mask.begin() + row * forced.columns, forced.columns, std::uint8_t{1});
  }
}

void force_columns(ForcedBlocks& forced, const std::vector<std::int64_t>& columns) {
  for (const auto column : columns) {
    for (std::int64_t row = 0; row < forced.rows; ++row) {
      forced.mask[static_cast<std::size_t>(row * forced.columns + column)] = 1;
    }
  }
}

}  // namespace

ForcedBlocks forced_blocks(const Arrangement& arrangement, const ForcedSpec& spec) {
  ForcedBlocks forced;
  forced.rows = arrangement.score_q.blocks;
  forced.columns = arrangement.score_k.blocks;
  forced.mask.assign(static_cast<std::size_t>(forced.rows * forced.columns), 0);
  if (has_rows(spec.text)) force_rows(forced, blocks_of(arrangement.q_roles, BlockRole::text));
  if (has_columns(spec.text))
    force_columns(forced, blocks_of(arrangement.k_roles, BlockRole::text));
  if (spec.sink == "none") return forced;
  if (spec.sink == "random_blocks") {
    force_rows(forced, random_like_pinned(arrangement.q_roles, spec.seed));
    force_columns(forced, random_like_pinned(arrangement.k_roles, spec.seed));
    return forced;
  }
  if (!arrangement.pin_problem.empty()) {
    throw Unsupported("sink: " + spec.sink + ": " + arrangement.pin_problem);
  }
  if (has_rows(spec.sink)) {
    force_rows(forced, blocks_of(arrangement.q_roles, BlockRole::pinned_frame));
  }
  if (has_columns(spec.sink)) {
    force_columns(forced, blocks_of(arrangement.k_roles, BlockRole::pinned_frame));
  }
  return forced;
}

}  // namespace raingauge
