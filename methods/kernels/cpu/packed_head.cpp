// SPDX-License-Identifier: Apache-2.0
// Gathering and packing of a head's keys and values.
#include "methods/kernels/cpu/packed_head.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "data/error.h"
#include "methods/kernels/threads.h"

namespace raingauge::cpu {

UnitMap map_units(const Orders& order, const Layout& layout, std::int64_t head,
                  const std::uint8_t* key_valid, int multiple) {
  UnitMap map;
  const std::size_t group = std::size_t{kUnit} * static_cast<std::size_t>(multiple);
  map.block_units.reserve(static_cast<std::size_t>(layout.blocks) + 1);
  map.block_units.push_back(0);
  const auto most = static_cast<std::size_t>(layout.end(head, layout.blocks - 1)) +
                    static_cast<std::size_t>(layout.blocks) * group;
  map.tokens.reserve(most);
  for (std::int64_t b = 0; b < layout.blocks; ++b) {
    for (std::int32_t position = layout.begin(head, b); position < layout.end(head, b);
         ++position) {
      const std::int32_t token = order.token(head, position);
      if (key_valid == nullptr || key_valid[token] != 0) {
        map.tokens.push_back(token);
      }
    }
    map.tokens.resize((map.tokens.size() + group - 1) / group * group, -1);
    map.block_units.push_back(static_cast<std::int64_t>(map.tokens.size() / kUnit));
  }
  map.bias.resize(map.tokens.size(), 0.0F);
  map.full.resize(map.tokens.size() / kUnit, 1);
  for (std::size_t i = 0; i < map.tokens.size(); ++i) {
    if (map.tokens[i] < 0) {
      map.bias[i] = -std::numeric_limits<float>::infinity();
      map.full[i / kUnit] = 0;
    }
  }
  return map;
}

HeadPacker::HeadPacker(const LevelOps& ops, const PackShape& key_shape,
                       std::optional<PackShape> value_shape)
    : ops_(ops), key_shape_(key_shape), value_shape_(value_shape) {}

void HeadPacker::pack(const TensorView& k, const TensorView* v, std::int64_t head,
                      const UnitMap& map, int threads) {
  const std::int64_t units = map.unit_count();
  const std::size_t k_words = key_shape_.k_unit_words();
  const std::size_t v_words = value_shape_ ? value_shape_->v_unit_words() : 0;
  if (units > capacity_) {
    k_ = make_buffer<std::uint32_t>(static_cast<std::size_t>(units) * k_words);
    v_ = v_words == 0 ? nullptr
                      : make_buffer<std::uint32_t>(static_cast<std::size_t>(units) * v_words);
    capacity_ = units;
  }
  constexpr std::int64_t kUnitsPerItem = 32;
  parallel_for(threads, (units + kUnitsPerItem - 1) / kUnitsPerItem, [&](std::int64_t item, int) {
    const std::int64_t last = std::min(units, (item + 1) * kUnitsPerItem);
    for (std::int64_t unit = item * kUnitsPerItem; unit < last; ++unit) {
      const std::int32_t* tokens = map.tokens.data() + unit * kUnit;
      const void* rows[kUnit];
      for (int i = 0; i < kUnit; ++i) {
        rows[i] = tokens[i] < 0 ? nullptr : k.row(head, tokens[i]);
      }
      ops_.pack_k(key_shape_, rows, k_.get() + static_cast<std::size_t>(unit) * k_words);
      if (v_words == 0) {
        continue;
      }
      for (int i = 0; i < kUnit; ++i) {
        rows[i] = tokens[i] < 0 ? nullptr : v->row(head, tokens[i]);
      }
      ops_.pack_v(*value_shape_, rows, unit, v_.get() + static_cast<std::size_t>(unit) * v_words);
    }
  });
}

ScaleParts split_scale(double scale) {
  if (!std::isfinite(scale)) {
    throw Error("attention: the softmax scale is " + std::to_string(scale) +
                "; it must be a finite number (records: attribute `scale`)");
  }
  if (scale == 0.0) {
    return {0.0F, 1.0};
  }
  return {scale > 0.0 ? 1.0F : -1.0F, std::abs(scale)};
}

}  // namespace raingauge::cpu
