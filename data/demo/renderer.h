// SPDX-License-Identifier: Apache-2.0
// Scenes to pixels, on any device, at any subset of the timeline's frames.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/demo/scene.h"

namespace raingauge::demo {

inline constexpr int kPatch = 8;  // pixels a token, each way

// What is rendered: frames of the timeline (0 … 20) and a grid of tokens.
struct View {
  std::vector<int> frames;
  int grid_h = 0;
  int grid_w = 0;
};

View full_view(int frames, int grid_h, int grid_w);  // frames 0 … frames - 1

struct Rendered {
  at::Tensor pixels;  // [B, F, grid_h * 8, grid_w * 8, 3], fp32 in [-1, 1]
  at::Tensor prompt;  // [B, kPromptTokens, kPromptFeatures], fp32
};

Rendered render(const std::vector<std::uint64_t>& seeds, const View& view, at::Device device);

}  // namespace raingauge::demo
