// SPDX-License-Identifier: Apache-2.0
// The attention shapes of real models, by name: what `synthetic: {model: …}` stands for.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/dtype.h"

namespace raingauge {

struct ModelShape {
  std::string_view name;
  int layers;
  int heads;
  int head_dim;
  int frames, height, width;  // token grid: after VAE and patching
  int text_tokens;            // inside self-attention
  bool text_first;            // before the visual tokens, otherwise after them
  int references;             // input images of the same grid after the output (image editing)
  DType dtype;
  std::string_view help;
};

std::span<const ModelShape> model_shapes();

// Throws Error naming the nearest known names.
const ModelShape& find_model_shape(std::string_view name);

// `count` names of `known` that are closest to `name` by edit distance, nearest first.
std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& known,
                                       std::size_t count);

}  // namespace raingauge
