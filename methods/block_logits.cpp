// SPDX-License-Identifier: Apache-2.0
#include "methods/block_logits.h"

#include "methods/kernels/cpu/dispatch.h"

namespace raingauge {

BlockLogits::BlockLogits(const RecordView& record, std::int64_t head, const PlanBlocks& blocks,
                         double scale)
    : record_(record),
      head_(head),
      blocks_(blocks),
      scale_(static_cast<float>(scale)),
      shape_{record.k.dtype, static_cast<int>(record.head_dim()), cpu::Products::floats},
      map_(cpu::map_units(blocks.k_order, blocks.k_blocks, head, record.key_valid)),
      packer_(cpu::level_ops(), shape_, std::nullopt),
      scratch_(cpu::make_buffer<float>(cpu::scratch_floats(shape_.head_dim))) {
  packer_.pack(record.k, nullptr, head, map_, 1);
}

void BlockLogits::load_queries(std::int64_t block) {
  const auto& layout = blocks_.q_blocks;
  rows_ = layout.size(head_, block);
  const auto d = static_cast<std::size_t>(shape_.head_dim);
  queries_.resize(static_cast<std::size_t>(rows_) * d);
  for (std::int64_t r = 0; r < rows_; ++r) {
    const auto position = layout.begin(head_, block) + r;
    convert_to_float(record_.q.row(head_, blocks_.q_order.token(head_, position)), record_.q.dtype,
                     queries_.data() + static_cast<std::size_t>(r) * d, d);
  }
}

std::int64_t BlockLogits::slots(std::int64_t key_block) const {
  return (first_unit(key_block + 1) - first_unit(key_block)) * cpu::kUnit;
}

bool BlockLogits::holds_key(std::int64_t key_block, std::int64_t slot) const {
  return map_.tokens[static_cast<std::size_t>(first_unit(key_block) * cpu::kUnit + slot)] >= 0;
}

void BlockLogits::scores(std::int64_t key_block, float* target) {
  const auto words = static_cast<std::size_t>(first_unit(key_block)) * shape_.k_unit_words();
  cpu::level_ops().scores(queries_.data(), rows_, shape_.head_dim, packer_.k() + words,
                          slots(key_block), scale_, scratch_.get(), target, slots(key_block));
}

}  // namespace raingauge
