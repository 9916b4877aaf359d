// SPDX-License-Identifier: Apache-2.0
// What does a block look like from afar? Block means of Q and K, and the products of the means: the
// prediction path of RainFusion2.0 (arXiv 2512.24086, eq. 5-7) and of every other pooled score.
// fp32, in a fixed order of summation: equal results for any number of threads and, for the means,
// at every instruction-set level.
#pragma once

#include <cstdint>

#include "data/plan.h"
#include "data/tensor_view.h"

namespace raingauge {

// means[b] = mean over the tokens of block b of one head, in fp32; a block without (valid) tokens is
// 0. `key_valid` [N] leaves tokens out; null = all count. threads 0 = all.
void pool_blocks(const TensorView& x, std::int64_t head, const Orders& order, const Layout& layout,
                 float* means /* [blocks, head_dim] */, const std::uint8_t* key_valid = nullptr,
                 int threads = 0);

// scores[i, j] = scale * dot(qmeans[i], kmeans[j]), plain fp32, the sum over d ascending.
void pooled_scores(const float* qmeans, std::int64_t nq, const float* kmeans, std::int64_t nk,
                   std::int64_t d, float scale, float* scores /* [nq, nk] */, int threads = 0);

}  // namespace raingauge
