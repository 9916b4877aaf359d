// SPDX-License-Identifier: Apache-2.0
// What one instruction-set level of the CPU offers: packing, the attention tile, the fp32 row tile,
// the block-mass tile, pooling. One template source (level_impl.h) is compiled once per level; these
// plain structs are all that passes between it and code compiled for the baseline machine.
//
// Packed form. Keys are packed in units of 16, every unit of one block, the last one padded. A word
// is 32 bits: one float, or a pair of neighbouring bf16.
//   K unit: [depth][16 keys] words; depth = head_dim, or head_dim / 2 with pairs
//   V unit: [panels][steps][16 columns] words; panels = ceil(head_dim / 16); steps = 16 keys, or
//           8 pairs of keys
// For matrix tiles head_dim is padded to 32, a block fills an even number of units, and the V of two
// units that follow each other is one group, [panels][16 pairs of keys][16 columns].
// Padding is zero in both, and -inf in the additive bias of the scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "data/dtype.h"

namespace raingauge::cpu {

inline constexpr int kUnit = 16;       // keys in a packed unit
inline constexpr int kChunkUnits = 8;  // units whose scores are held at once
inline constexpr int kChunkKeys = kUnit * kChunkUnits;
inline constexpr int kMaxTileRows = 128;  // query rows of one work item
inline constexpr int kMaxHeadDim = 256;

// What multiplies the packed words: fp32 multiply-adds, dot products of bf16 pairs (VDPBF16PS), or
// products of bf16 matrix tiles (AMX's TDPBF16PS). All add up in fp32.
enum class Products : std::uint8_t { floats, pairs, tiles };

struct PackShape {
  DType dtype = DType::f32;  // of the source rows
  int head_dim = 0;
  Products products = Products::floats;

  friend bool operator==(const PackShape&, const PackShape&) = default;
  bool pairs() const { return products != Products::floats; }  // words of two bf16
  bool tiles() const { return products == Products::tiles; }
  int words() const { return pairs() ? head_dim / 2 : head_dim; }  // of a row, without padding
  int depth() const { return tiles() ? padded_dim() / 2 : words(); }
  int padded_dim() const {
    const int multiple = tiles() ? 2 * kUnit : kUnit;
    return (head_dim + multiple - 1) / multiple * multiple;
  }
  int panels() const { return padded_dim() / kUnit; }
  int steps() const { return pairs() ? kUnit / 2 : kUnit; }
  int unit_multiple() const {
    return tiles() ? 2 : 1;
  }  // the units of a block come in such numbers
  std::size_t k_unit_words() const { return static_cast<std::size_t>(depth()) * kUnit; }
  std::size_t v_unit_words() const {
    return static_cast<std::size_t>(panels()) * static_cast<std::size_t>(steps()) * kUnit;
  }
};

// Attention of up to kMaxTileRows query rows over a list of packed units.
struct AttendTile {
  PackShape shape;
  int rows = 0;
  const std::uint32_t* q = nullptr;     // [rows, depth] words; tiles read whole groups of 32 rows
  const std::uint32_t* k = nullptr;     // [units][k_unit_words]
  const std::uint32_t* v = nullptr;     // [units][v_unit_words]
  const float* bias = nullptr;          // [units][16]: 0 or -inf
  const std::uint8_t* full = nullptr;   // [units]: 1 when the unit has no padding
  const std::int32_t* units = nullptr;  // the list: unit numbers
  std::int64_t unit_count = 0;
  float log2_scale = 1.0F;      // scale * log2(e) > 0; the sign of the scale is in q
  float* scratch = nullptr;     // scratch_floats(head_dim), 64-byte aligned
  float* const* out = nullptr;  // [rows]: where each row of head_dim floats goes
  float* lse = nullptr;         // [rows]
};

// One tile of at most kChunkKeys keys for some rows of a batch: fp32 sums, fp64 carries.
struct RowTile {
  PackShape shape;                       // products: floats or tiles
  const std::uint32_t* q = nullptr;      // [batch rows, depth] words, 31 more rows readable
  const std::int32_t* active = nullptr;  // batch rows that attend this tile, ascending
  std::int64_t active_count = 0;
  const std::uint32_t* k = nullptr;  // [unit_count] packed units
  const std::uint32_t* v = nullptr;
  const float* bias = nullptr;                        // [unit_count][16]
  bool full = false;                                  // no padding in any unit
  const float* class_weight[2] = {nullptr, nullptr};  // [unit_count][16] of 0 and 1, or null
  int unit_count = 0;
  float log2_scale = 1.0F;
  float* scratch = nullptr;
  // State of every batch row: the largest score so far (before scaling), and sums of
  // exp2((score - largest) * log2_scale) over all keys and over two classes of keys.
  float* largest = nullptr;  // [batch rows]
  double* sum = nullptr;     // [batch rows]
  double* class_sum[2] = {nullptr, nullptr};
  double* o = nullptr;  // [batch rows, padded_dim]
};

// Local maximum and sum of every (key block, query row) pair of one query tile.
struct MassTile {
  PackShape shape;
  int rows = 0;
  const std::uint32_t* q = nullptr;
  const std::uint32_t* k = nullptr;
  const float* bias = nullptr;
  const std::uint8_t* full = nullptr;
  const std::int64_t* block_units = nullptr;  // [blocks + 1]
  std::int64_t blocks = 0;
  float log2_scale = 1.0F;
  float* scratch = nullptr;
  float* largest = nullptr;  // [blocks, kMaxTileRows], in log2 units
  float* sum = nullptr;      // [blocks, kMaxTileRows]
  double* mass = nullptr;    // [blocks]: += sum over rows of the softmax mass of the block
};

struct LevelOps {
  std::string_view name;
  Products bf16 = Products::floats;  // how two bf16 inputs are multiplied

  // `rows`: 16 pointers to keys of shape.dtype; null = padding.
  void (*pack_k)(const PackShape& shape, const void* const* rows, std::uint32_t* unit) = nullptr;
  // `number`: of the unit; a level may place its panels by it.
  void (*pack_v)(const PackShape& shape, const void* const* rows, std::int64_t number,
                 std::uint32_t* unit) = nullptr;
  // One query row as [depth] words, zero beyond its end, times `factor` (1, -1 or 0).
  void (*pack_q)(const PackShape& shape, const void* row, float factor,
                 std::uint32_t* words) = nullptr;
  void (*attend)(const AttendTile& tile) = nullptr;
  void (*evaluate)(const RowTile& tile) = nullptr;
  void (*mass)(const MassTile& tile) = nullptr;
  // sums[head_dim] += the row, as floats.
  void (*add_rows)(DType dtype, int head_dim, const void* const* rows, std::int64_t count,
                   float* sums) = nullptr;
  // scores[r * stride + j] = scale * dot(q row r, key j of the packed fp32 units), j < keys.
  void (*scores)(const float* q, std::int64_t rows, int head_dim, const std::uint32_t* k,
                 std::int64_t keys, float scale, float* scratch, float* scores,
                 std::int64_t stride) = nullptr;
  // Independent chains of products in registers, for measure_peak(); returns how many FLOPs.
  double (*spin)(Products products, std::int64_t rounds) = nullptr;

  // Of rows of `dtype`, where all that is multiplied with them has the same type.
  PackShape shape(DType dtype, int head_dim) const {
    return {dtype, head_dim, dtype == DType::bf16 && head_dim % 2 == 0 ? bf16 : Products::floats};
  }
};

// Floats of scratch that attend, evaluate, mass and scores need.
std::size_t scratch_floats(int head_dim);

const LevelOps& portable_ops();
#if defined(__x86_64__)
const LevelOps& avx2_ops();
const LevelOps& avx512_ops();
const LevelOps& avx512_bf16_ops();
const LevelOps& amx_bf16_ops();
#endif

}  // namespace raingauge::cpu
