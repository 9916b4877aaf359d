// SPDX-License-Identifier: Apache-2.0
// Does a block's mean speak for its tokens? The self-similarity of a block, by which SpargeAttn
// (arXiv 2502.18137, section 3.2) decides which blocks may be predicted at all.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"
#include "data/tensor_view.h"

namespace raingauge {

enum class SimilarityMeasure {
  cosine,         // mean over all pairs of tokens of their cosine (released code)
  mean_over_max,  // mean(X X^T) / |max(X X^T)| (paper)
};

// The similarity of every block of one head, fp32 inputs, fp64 sums: [blocks]. Both measures cost
// N d: the sum over all pairs of tokens is the squared norm of the sum of tokens, and the largest
// product stands on the diagonal. NaN for blocks without tokens, and for blocks with a zero token
// under `cosine` (as in the released code: such blocks are never trusted). `centre`: subtract this
// [head_dim] vector from every token first; null: none. `key_valid`: tokens left out; null: none.
std::vector<double> self_similarity(const TensorView& x, std::int64_t head, const Orders& order,
                                    const Layout& layout, SimilarityMeasure measure,
                                    const float* centre = nullptr,
                                    const std::uint8_t* key_valid = nullptr);

// Mean over the (valid) tokens of one head: [head_dim].
std::vector<float> token_mean(const TensorView& x, std::int64_t head,
                              const std::uint8_t* key_valid = nullptr);

}  // namespace raingauge
