// SPDX-License-Identifier: Apache-2.0
// K and V of one head in the packed form of ops.h, blocks in plan order. The token order is part of
// the gather; keys that are not valid are left out; every block starts a new unit, so a unit never
// mixes blocks and what an unselected block holds cannot reach a result.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/plan.h"
#include "data/tensor_view.h"
#include "methods/kernels/cpu/buffer.h"
#include "methods/kernels/cpu/ops.h"

namespace raingauge::cpu {

// Which token stands at which place of which unit: one head's, or shared by all heads.
struct UnitMap {
  std::vector<std::int64_t> block_units;  // [blocks + 1]: first unit of each block
  std::vector<std::int32_t> tokens;       // [units, 16]; -1 = padding
  std::vector<float> bias;                // [units, 16]: 0, or -inf where padding
  std::vector<std::uint8_t> full;         // [units]

  std::int64_t unit_count() const { return block_units.back(); }
};

// `multiple`: every block gets a multiple of so many units (PackShape::unit_multiple()).
UnitMap map_units(const Orders& order, const Layout& layout, std::int64_t head,
                  const std::uint8_t* key_valid, int multiple = 1);

// Packs heads one after another into the same memory.
class HeadPacker {
 public:
  // The value shape is absent when only scores are wanted.
  HeadPacker(const LevelOps& ops, const PackShape& key_shape, std::optional<PackShape> value_shape);

  void pack(const TensorView& k, const TensorView* v, std::int64_t head, const UnitMap& map,
            int threads);
  const std::uint32_t* k() const { return k_.get(); }
  const std::uint32_t* v() const { return v_.get(); }

 private:
  const LevelOps& ops_;
  PackShape key_shape_;
  std::optional<PackShape> value_shape_;
  std::int64_t capacity_ = 0;  // units
  Buffer<std::uint32_t> k_, v_;
};

// How the sign of the softmax scale reaches the scores: scores = (factor * q) . k, times `positive`.
struct ScaleParts {
  float factor = 1.0F;    // 1, -1 or 0
  double positive = 1.0;  // > 0
  float log2_scale() const { return static_cast<float>(positive * 1.44269504088896340736); }
};
ScaleParts split_scale(double scale);  // throws Error unless finite

}  // namespace raingauge::cpu
