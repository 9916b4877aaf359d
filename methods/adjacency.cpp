// SPDX-License-Identifier: Apache-2.0
#include "methods/adjacency.h"

#include <algorithm>

namespace raingauge {
namespace {

// Block of every token of the record.
std::vector<std::int32_t> blocks_of_tokens(const Orders& order, std::int64_t head,
                                           const Layout& layout) {
  std::vector<std::int32_t> block_of(static_cast<std::size_t>(order.tokens), 0);
  for (std::int64_t block = 0; block < layout.blocks; ++block) {
    for (auto p = layout.begin(0, block); p < layout.end(0, block); ++p) {
      block_of[static_cast<std::size_t>(order.token(head, p))] = static_cast<std::int32_t>(block);
    }
  }
  return block_of;
}

class NeighbourMarks {
 public:
  NeighbourMarks(const Segment& grid, const std::vector<std::int32_t>& q_block,
                 const std::vector<std::int32_t>& k_block, ForcedBlocks& forced)
      : grid_(grid), q_block_(q_block), k_block_(k_block), forced_(forced) {}

  void mark_around(int t, int y, int x) {
    const auto row = q_block_[token(t, y, x)];
    for (int tt = std::max(t - 1, 0); tt <= std::min(t + 1, grid_.frames - 1); ++tt) {
      for (int yy = std::max(y - 1, 0); yy <= std::min(y + 1, grid_.height - 1); ++yy) {
        for (int xx = std::max(x - 1, 0); xx <= std::min(x + 1, grid_.width - 1); ++xx) {
          const auto column = k_block_[token(tt, yy, xx)];
          forced_.mask[static_cast<std::size_t>(row * forced_.columns + column)] = 1;
        }
      }
    }
  }

 private:
  std::size_t token(int t, int y, int x) const {
    return static_cast<std::size_t>(grid_.start +
                                    (std::int64_t{t} * grid_.height + y) * grid_.width + x);
  }

  const Segment& grid_;
  const std::vector<std::int32_t>& q_block_;
  const std::vector<std::int32_t>& k_block_;
  ForcedBlocks& forced_;
};

}  // namespace

void force_neighbours(const Segments& segments, std::int64_t head, const Orders& q_order,
                      const Orders& k_order, const Layout& q_blocks, const Layout& k_blocks,
                      ForcedBlocks& forced) {
  const auto q_block = blocks_of_tokens(q_order, head, q_blocks);
  const auto k_block = blocks_of_tokens(k_order, head, k_blocks);
  for (const auto& segment : segments) {
    if (!segment.visual()) continue;
    NeighbourMarks marks(segment, q_block, k_block, forced);
    for (int t = 0; t < segment.frames; ++t) {
      for (int y = 0; y < segment.height; ++y) {
        for (int x = 0; x < segment.width; ++x) marks.mark_around(t, y, x);
      }
    }
  }
}

}  // namespace raingauge
