// SPDX-License-Identifier: Apache-2.0
// The demo DiT: joint attention over video tokens and, after them, eight text tokens. adaLN-single
// modulation, QK norm, 3D RoPE, one set of weights for image-to-video and text-to-video. Plain
// functions of a map of tensors: autograd needs no more, and every intermediate is in sight.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/demo/codec.h"
#include "data/demo/positions.h"
#include "data/site.h"

namespace raingauge::demo {

inline constexpr int kTimeFeatures = 64;

struct ModelConfig {
  int width = 256;  // heads * 64
  int layers = 8;
  int heads() const { return width / kHeadDim; }
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

using Parameters = std::map<std::string, at::Tensor>;

enum class Init { zero, fan_in, modulation_table, gain, small };
struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  Init init = Init::zero;
};
std::vector<ParameterSpec> parameter_specs(const ModelConfig& config);
Parameters draw_parameters(const ModelConfig& config, std::uint64_t seed);  // fp32, CPU

// Whether a parameter acts on every token. Those are kept in the compute type; the few that make
// the modulation and the text tokens stay fp32.
bool acts_on_tokens(const std::string& name);
Parameters to_compute(const Parameters& parameters, at::Device device, at::ScalarType compute);

// q, k, v are [B, H, N, 64] in bf16, after QK norm and RoPE; returns [B, H, N, 64]. Bf16 on every
// device: a replay of stored bf16 records sees the numbers that the live model saw.
using AttentionFn = std::function<at::Tensor(const Site& site, const at::Tensor& q,
                                             const at::Tensor& k, const at::Tensor& v)>;
at::Tensor native_attention(const Site& site, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v);

struct ModelInput {
  at::Tensor latents;      // [B, F, h, w, 33], frame 0 clean where clean_first is 1
  at::Tensor time;         // [B], 1 = noise, 0 = data
  at::Tensor prompt;       // [B, kPromptTokens, kPromptFeatures], zero = no prompt
  at::Tensor clean_first;  // [B], 1 = image-to-video, 0 = text-to-video
};

class Model {
 public:
  Model(const ModelConfig& config, Parameters parameters);

  // The predicted velocity, noise - data: [B, F, h, w, 33], fp32.
  at::Tensor velocity(const ModelInput& input, const Positions& positions, Site site,
                      const AttentionFn& attention) const;

  const ModelConfig& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  at::Device device() const { return parameter("registers").device(); }

 private:
  const at::Tensor& parameter(const std::string& name) const;
  at::Tensor linear(const std::string& name, const at::Tensor& x) const;
  at::Tensor embed_text(const at::Tensor& prompt) const;
  at::Tensor embed_time(const ModelInput& input, const at::Tensor& text) const;
  at::Tensor embed_tokens(const ModelInput& input, const Positions& positions,
                          const at::Tensor& text) const;
  at::Tensor block(const at::Tensor& tokens, const at::Tensor& modulation, int64_t frame_tokens,
                   const Positions& positions, const Site& site,
                   const AttentionFn& attention) const;
  at::Tensor attend(const std::string& prefix, const at::Tensor& x, const Positions& positions,
                    const Site& site, const AttentionFn& attention) const;

  ModelConfig config_;
  Parameters parameters_;
  at::ScalarType compute_;
};

}  // namespace raingauge::demo
