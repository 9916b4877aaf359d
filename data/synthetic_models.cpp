// SPDX-License-Identifier: Apache-2.0
// The attention shapes of real models. The text of HunyuanVideo-1.5 and Qwen-Image depends on the
// prompt (masked slots are trimmed on capture); the figure here is a long prompt.
#include "data/synthetic_models.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "data/error.h"

namespace raingauge {
namespace {

constexpr DType kBf16 = DType::bf16;

// name, layers, heads, head_dim, frames, height, width, text, text first, references, dtype, help
constexpr std::array<ModelShape, 14> kModels{{
    {"wan21-14b-720p", 40, 40, 128, 21, 45, 80, 0, false, 0, kBf16,
     "Wan2.1 T2V/I2V 14B, Wan2.2 A14B: 720x1280, 81 frames"},
    {"wan21-14b-480p", 40, 40, 128, 21, 30, 52, 0, false, 0, kBf16,
     "Wan2.1 T2V/I2V 14B, Wan2.2 A14B: 480x832, 81 frames"},
    {"wan21-1.3b-480p", 30, 12, 128, 21, 30, 52, 0, false, 0, kBf16,
     "Wan2.1 T2V 1.3B: 480x832, 81 frames"},
    {"wan22-5b", 30, 24, 128, 31, 22, 40, 0, false, 0, kBf16,
     "Wan2.2 TI2V 5B: 704x1280, 121 frames"},
    {"hunyuan-720p", 60, 24, 128, 33, 45, 80, 256, false, 0, kBf16,
     "HunyuanVideo: 720x1280, 129 frames"},
    {"hunyuan15-480p", 54, 16, 128, 31, 30, 53, 256, false, 0, kBf16,
     "HunyuanVideo-1.5: 480x848, 121 frames"},
    {"cogvideox-2b", 30, 30, 64, 13, 30, 45, 226, true, 0, DType::f16,
     "CogVideoX-2B: 480x720, 49 frames"},
    {"cogvideox-5b", 42, 48, 64, 13, 30, 45, 226, true, 0, kBf16,
     "CogVideoX-5B: 480x720, 49 frames"},
    {"mochi", 48, 24, 128, 28, 30, 53, 256, false, 0, kBf16, "Mochi-1: 480x848, 163 frames"},
    {"ltx", 28, 32, 64, 21, 16, 22, 0, false, 0, kBf16, "LTX-Video 2B: 512x704, 161 frames"},
    {"qwen-image", 60, 24, 128, 1, 64, 64, 512, true, 0, kBf16, "Qwen-Image: 1024x1024"},
    {"qwen-image-edit", 60, 24, 128, 1, 64, 64, 512, true, 1, kBf16,
     "Qwen-Image-Edit: 1024x1024 output, then one input image"},
    {"flux", 57, 24, 128, 1, 64, 64, 512, true, 0, kBf16, "FLUX.1-dev: 1024x1024"},
    {"sd35-medium", 24, 24, 64, 1, 64, 64, 333, false, 0, kBf16, "SD3.5 medium: 1024x1024"},
}};

// Levenshtein distance, one row at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::span<const ModelShape> model_shapes() { return kModels; }

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& known,
                                       std::size_t count) {
  std::vector<std::string> sorted = known;
  std::stable_sort(sorted.begin(), sorted.end(), [&](const std::string& a, const std::string& b) {
    return edit_distance(name, a) < edit_distance(name, b);
  });
  sorted.resize(std::min(count, sorted.size()));
  return sorted;
}

const ModelShape& find_model_shape(std::string_view name) {
  std::vector<std::string> known;
  for (const ModelShape& model : kModels) {
    if (model.name == name) return model;
    known.emplace_back(model.name);
  }
  std::string nearest;
  for (const std::string& candidate : nearest_names(name, known, 3)) {
    nearest += (nearest.empty() ? "" : ", ") + candidate;
  }
  std::string all;
  for (const std::string& candidate : known) all += (all.empty() ? "" : ", ") + candidate;
  throw Error("unknown model `" + std::string(name) + "`; nearest are " + nearest + "; known are " +
              all);
}

}  // namespace raingauge
