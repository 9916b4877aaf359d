// SPDX-License-Identifier: Apache-2.0
// How alike are the tokens that an order puts into one block? What a permutation is meant to raise,
// so that a block's mean stands for its tokens (RainFusion2.0, section 3.3).
#pragma once

#include <cstdint>

#include "data/plan.h"
#include "data/tensor_view.h"

namespace raingauge {

// Mean over the blocks of two or more tokens of the mean cosine of two different tokens of the block:
// (|sum_i u_i|^2 - n) / (n (n - 1)), u_i = x_i / |x_i|, n tokens. Zero vectors have cosine 0 to all.
// `tensor` [H, N, D] in host memory; `head` indexes it and the rows of `orders` and `layout`. NaN when
// no block has two tokens.
double block_similarity(const TensorView& tensor, std::int64_t head, const Orders& orders,
                        const Layout& layout);

}  // namespace raingauge
