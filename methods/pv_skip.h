// SPDX-License-Identifier: Apache-2.0
// SpargeAttn's second filter (arXiv 2502.18137, section 3.4): inside the kernel, a key block whose
// scores lie far below the running maximum of every row is not multiplied with V.
#pragma once

#include <cstdint>

#include "methods/block_logits.h"
#include "methods/plan_heads.h"

namespace raingauge {

// Takes out of `kept` (one head) the pairs that the kernel would skip. It walks a query block's key
// blocks in ascending order with the running row maxima of scale * log2(e) * q.k, and skips one when
// max over rows(its row maximum - running maximum) + bits <= 0, the first and the last excepted. The
// skipped pair leaves the numerator and the denominator of the softmax. Costs the Q K^T of `kept`.
void skip_pv(const RecordView& record, std::int64_t head, const PlanBlocks& blocks, double bits,
             KeptRows& kept);

}  // namespace raingauge
