// SPDX-License-Identifier: Apache-2.0
// block_mass() on a CUDA device: the exact mass of every block pair, and the rows' dense log-sum-exps.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"
#include "data/tensor_view.h"
#include "methods/kernels/kernel.h"

namespace raingauge {

struct DeviceMass {
  std::vector<float> mass;  // [heads, query blocks, key blocks], as block_mass() gives it per head
  std::vector<float> lse;   // [heads, tokens] in record order, natural log
};

// Why device_block_mass() does not cover this; nullopt: it does. It covers compute capability 9.0, bf16
// and f16, multiples of 8 up to 128 as head_dim, a positive scale, layouts and orders that all heads share.
Support device_mass_supports(const TensorView& q, const TensorView& k, const Plan& plan,
                             float scale);

// q, k [H, N, D] in CUDA memory; orders and layouts come from `plan`, its lists are not read.
// key_valid [tokens], host, or null. Works through the heads in groups that fit `workspace_bytes`.
// Scores are fp32 sums of the stored values' products, as everywhere. Throws Unsupported with the reason
// above, and NotFinite as block_mass() does.
DeviceMass device_block_mass(const TensorView& q, const TensorView& k, const Plan& plan,
                             const std::uint8_t* key_valid, float scale,
                             std::int64_t workspace_bytes = std::int64_t{4} << 30);

}  // namespace raingauge
