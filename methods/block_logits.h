// SPDX-License-Identifier: Apache-2.0
// Exact scores of one query block against one key block at a time, for methods that look at the
// scores themselves. One head; fp32.
#pragma once

#include <cstdint>
#include <vector>

#include "data/record.h"
#include "methods/kernels/cpu/buffer.h"
#include "methods/kernels/cpu/packed_head.h"

namespace raingauge {

// Where the tokens of a plan's blocks stand.
struct PlanBlocks {
  const Orders& q_order;
  const Orders& k_order;
  const Layout& q_blocks;
  const Layout& k_blocks;
};

class BlockLogits {
 public:
  // Packs the valid keys of the head: 4 * tokens * head_dim bytes. The record must outlive this.
  BlockLogits(const RecordView& record, std::int64_t head, const PlanBlocks& blocks, double scale);

  void load_queries(std::int64_t block);
  std::int64_t rows() const { return rows_; }
  // Slots of a key block in scores(): valid keys and padding, see holds_key().
  std::int64_t slots(std::int64_t key_block) const;
  bool holds_key(std::int64_t key_block, std::int64_t slot) const;
  // target[r * slots + s] = scale * q.k of the loaded query block.
  void scores(std::int64_t key_block, float* target);

 private:
  std::int64_t first_unit(std::int64_t key_block) const {
    return map_.block_units[static_cast<std::size_t>(key_block)];
  }

  const RecordView& record_;
  std::int64_t head_;
  PlanBlocks blocks_;
  float scale_;
  cpu::PackShape shape_;
  cpu::UnitMap map_;
  cpu::HeadPacker packer_;
  cpu::Buffer<float> scratch_;
  std::int64_t rows_ = 0;
  std::vector<float> queries_;
};

}  // namespace raingauge
