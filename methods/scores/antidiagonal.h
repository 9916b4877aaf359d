// SPDX-License-Identifier: Apache-2.0
// Strided groups of tokens, as XAttention and MindIE's ada_bsa form them: a group of S consecutive
// tokens is one long vector, reversed for queries, so that the product of a query and a key group is
// the sum of an antidiagonal of the S x S tile of Q K^T.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"
#include "data/tensor_view.h"

namespace raingauge {

// What happens where a block does not divide into whole groups.
enum class GroupTail {
  padded,   // the last group is filled up with zeros
  dropped,  // it is left out, and so are its tokens (ada_bsa's keys)
  zero_keys,  // every block is filled up with groups of zeros to the size of the largest one, and they
              // take part in the softmax (XAttention's padding)
};

struct TokenGroups {
  std::int64_t width = 0;                 // stride * head_dim
  std::vector<std::int64_t> block_begin;  // [blocks + 1]: first group of each block
  std::vector<float> values;              // [groups, width]

  std::int64_t count() const { return block_begin.back(); }
  const float* row(std::int64_t group) const { return values.data() + group * width; }
};

// Groups of one head in block order. `reversed`: the tokens of a group last to first (queries).
// `key_valid` [N] leaves tokens out before groups are formed; null = all count.
TokenGroups group_tokens(const TensorView& x, std::int64_t head, const Orders& order,
                         const Layout& layout, int stride, bool reversed, GroupTail tail,
                         const std::uint8_t* key_valid = nullptr);

}  // namespace raingauge
