// SPDX-License-Identifier: Apache-2.0
// Rectified flow: x_t = (1 - t) data + t noise, the model predicts noise - data, Euler steps from
// t = 1 to 0 on a schedule shifted towards the noise.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "data/demo/model.h"

namespace raingauge::demo {

struct SamplerOptions {
  int steps = 8;
  double guidance = 1.0;  // 1 = one pass; else a second one without the prompt, branch `uncond`
  double shift = 3.0;
};

std::vector<double> schedule(const SamplerOptions& options);  // steps + 1 times, 1 … 0

// Standard normal, fp32, on the CPU: the same numbers on every device.
at::Tensor gaussian_noise(std::uint64_t seed, at::IntArrayRef shape);

// t of each item, [B]; frame 0 is kept clean where clean_first is 1.
at::Tensor noised(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& time,
                  const at::Tensor& clean_first);

struct SampleRequest {
  at::Tensor noise;        // [B, F, h, w, 33]
  at::Tensor first_frame;  // [B, h, w, 33], or undefined for text-to-video
  at::Tensor prompt;       // [B, kPromptTokens, kPromptFeatures]
};

// Returns latents like `noise`. `progress(steps done, steps)` may be empty.
at::Tensor sample(const Model& model, const SampleRequest& request, const Positions& positions,
                  const SamplerOptions& options, const AttentionFn& attention,
                  const std::function<void(int, int)>& progress);

}  // namespace raingauge::demo
