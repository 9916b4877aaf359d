// SPDX-License-Identifier: Apache-2.0
// Which blocks touch each other on the token grid? Jenga keeps such pairs whatever their score.
#pragma once

#include "data/segments.h"
#include "methods/arrangement.h"
#include "methods/forced.h"

namespace raingauge {

// Marks (a, b) when some token of query block a and some token of key block b lie within each other's
// 26-neighbourhood (three axes, the token itself included) of one visual segment.
void force_neighbours(const Segments& segments, std::int64_t head, const Orders& q_order,
                      const Orders& k_order, const Layout& q_blocks, const Layout& k_blocks,
                      ForcedBlocks& forced);

}  // namespace raingauge
