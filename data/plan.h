// SPDX-License-Identifier: Apache-2.0
// A plan is all that a method decides: token orders, block layout, block lists. A kernel executes
// it. Everything is explicit: ragged tails, text blocks and variable clusters are offsets.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace raingauge {

// Permutations: position in block order -> token index of the record. `rows` is 1 (shared by all
// heads) or the number of heads. Identity orders hold no indices.
struct Orders {
  int rows = 1;
  std::int64_t tokens = 0;
  bool identity = true;
  std::vector<std::int32_t> index;  // [rows, tokens]; empty when identity

  const std::int32_t* row(std::int64_t head) const {
    return identity ? nullptr : index.data() + (rows == 1 ? 0 : head) * tokens;
  }
  std::int32_t token(std::int64_t head, std::int64_t position) const {
    return identity ? static_cast<std::int32_t>(position) : row(head)[position];
  }
};

// Block boundaries over positions: block b holds [offset(b), offset(b+1)). Equal consecutive
// offsets are an empty block. `rows` is 1 or the number of heads.
struct Layout {
  int rows = 1;
  std::int64_t blocks = 0;
  std::vector<std::int32_t> offsets;  // [rows, blocks + 1]

  const std::int32_t* row(std::int64_t head) const {
    return offsets.data() + (rows == 1 ? 0 : head) * (blocks + 1);
  }
  std::int32_t begin(std::int64_t head, std::int64_t block) const { return row(head)[block]; }
  std::int32_t end(std::int64_t head, std::int64_t block) const { return row(head)[block + 1]; }
  std::int32_t size(std::int64_t head, std::int64_t block) const {
    return end(head, block) - begin(head, block);
  }
};

// Which key blocks each (head, query block) attends: ascending, no duplicates. CSR over the rows
// (head * query_blocks + query_block).
struct BlockLists {
  std::int64_t heads = 0;
  std::int64_t query_blocks = 0;
  std::vector<std::int64_t> row_offsets;  // [heads * query_blocks + 1]
  std::vector<std::int32_t> columns;

  std::int64_t row_index(std::int64_t head, std::int64_t block) const {
    return head * query_blocks + block;
  }
  const std::int32_t* begin(std::int64_t head, std::int64_t block) const {
    return columns.data() + row_offsets[static_cast<std::size_t>(row_index(head, block))];
  }
  std::int64_t count(std::int64_t head, std::int64_t block) const {
    const auto row = static_cast<std::size_t>(row_index(head, block));
    return row_offsets[row + 1] - row_offsets[row];
  }
};

// When the order is boxes of the grid, kernels may load boxes instead of permuting.
struct Windows {
  int frames = 1, height = 1, width = 1;  // window size in tokens
};

// Something a few methods add to the masked output (coarse branch, rescaled reuse, cached output).
struct OutputTerm {
  std::string name;
};

// What a method says about its decision, one value a head: the kind of a head, a sampled recall, the
// overlap with the step before. `words` or `numbers` holds [heads] values, the other is empty.
struct PlanNote {
  std::string name;
  std::vector<double> numbers;
  std::vector<std::string> words;
};

struct Plan {
  std::int64_t heads = 0;
  std::int64_t tokens = 0;
  Orders q_order, k_order;
  Layout q_blocks, k_blocks;
  BlockLists lists;
  std::optional<BlockLists> forced;  // the part of `lists` that was kept whatever the score
  std::optional<Windows> windows;
  std::vector<OutputTerm> terms;
  std::vector<PlanNote> notes;  // for reports; changes nothing that is computed
  // The density asked for; NaN for arms without that knob.
  double nominal_density = std::numeric_limits<double>::quiet_NaN();
};

// A plan in which every query sees every key: one layout for all heads, blocks of `block` tokens.
Plan dense_plan(std::int64_t heads, std::int64_t tokens, int block);

// Blocks of `block` tokens over [0, tokens), the last one ragged.
Layout uniform_layout(std::int64_t tokens, int block);

// Throws InvalidPlan (naming head, block, position) unless: orders are bijective; offsets start at
// 0, never fall and end at `tokens`; lists are ascending, in range, without duplicates; every
// non-empty query block has at least one non-empty key block; no query row sees only invalid keys.
// `key_valid` is [tokens] in record order or null.
void check_plan(const Plan& plan, const std::uint8_t* key_valid = nullptr);

// Kept (q, k) pairs / valid pairs, counted from the lists, per head and over all heads.
// `key_valid`: only valid keys count, in both numerator and denominator.
struct Density {
  std::vector<double> pairs;   // [heads]
  std::vector<double> blocks;  // [heads]; empty blocks are left out
  double mean_pairs = 0.0;
  double mean_blocks = 0.0;
};
Density measure_density(const Plan& plan, const std::uint8_t* key_valid = nullptr);

// Does every query see every key? Orders and layout do not matter then.
bool keeps_every_pair(const Plan& plan);

// Position of every token: inverse of orders.row(head). Identity gives an empty vector.
std::vector<std::int32_t> inverse_order(const Orders& orders, std::int64_t head);

// FNV-1a over every decision of the plan: equal plans, equal value.
std::uint64_t plan_fingerprint(const Plan& plan);

}  // namespace raingauge
