// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace raingauge::demo {

// base + value * scale, where the first `split` tokens take row 0 of `scale` and the others row 1.
//   value [B, N, D], scale [B, 2, D], base [B, 2, D] (rows as in scale) or [B, N, D]
// One pass over the tokens forward: selecting rows per token would build [B, N, D] scales first.
at::Tensor segment_addcmul(const at::Tensor& base, const at::Tensor& value, const at::Tensor& scale,
                           int64_t split);

}  // namespace raingauge::demo
