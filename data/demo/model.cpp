// SPDX-License-Identifier: Apache-2.0
#include "data/demo/model.h"

#include <ATen/ATen.h>

#include <cmath>

#include "data/demo/device.h"
#include "data/demo/segment_ops.h"
#include "data/error.h"

namespace raingauge::demo {
namespace {

constexpr double kTimeScale = 1000.0;  // as if time were a step of a 1,000-step schedule
constexpr double kNormEpsilon = 1e-6;

at::Tensor layer_norm(const at::Tensor& x) {
  return at::layer_norm(x, {x.size(-1)}, {}, {}, kNormEpsilon);
}

at::Tensor time_features(const at::Tensor& time) {  // [B, 2] -> [B, 2, 64]
  const int64_t half = kTimeFeatures / 2;
  const at::Tensor frequency = at::exp(at::arange(half, time.options()) * (-std::log(1e4) / half));
  const at::Tensor angle = time.unsqueeze(-1) * frequency * kTimeScale;
  return at::cat({at::cos(angle), at::sin(angle)}, -1);
}

}  // namespace

at::Tensor native_attention(const Site&, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v) {
  if (!q.is_cpu()) return at::scaled_dot_product_attention(q, k, v);
  // Few CPUs multiply bf16 natively; the inputs are already rounded.
  return at::scaled_dot_product_attention(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat));
}

Model::Model(const ModelConfig& config, Parameters parameters)
    : config_(config), parameters_(std::move(parameters)) {
  for (const ParameterSpec& spec : parameter_specs(config)) {
    if (parameter(spec.name).sizes() != at::IntArrayRef(spec.shape)) {
      throw Error("model: parameter " + spec.name + " has a shape that does not fit the model's " +
                  std::to_string(config.layers) + " layers of width " +
                  std::to_string(config.width));
    }
  }
  compute_ = parameter("input.weight").scalar_type();
}

const at::Tensor& Model::parameter(const std::string& name) const {
  const auto found = parameters_.find(name);
  if (found == parameters_.end()) throw Error("model: parameter " + name + " is missing");
  return found->second;
}

at::Tensor Model::linear(const std::string& name, const at::Tensor& x) const {
  return at::linear(x, parameter(name + ".weight"), parameter(name + ".bias"));
}

at::Tensor Model::embed_text(const at::Tensor& prompt) const {  // -> [B, 8, D]
  const at::Tensor tokens = linear("text.down", at::silu(linear("text.up", prompt)));
  const at::Tensor registers = parameter("registers").unsqueeze(0).expand({prompt.size(0), -1, -1});
  return at::cat({tokens, registers}, 1);
}

// Row 0 is for frame 0, row 1 for all other tokens: a clean frame is at time 0. The camera's token
// is added to both, as HunyuanVideo adds its pooled prompt.
at::Tensor Model::embed_time(const ModelInput& input, const at::Tensor& text) const {
  const at::Tensor first = input.time * (1.0 - input.clean_first);
  const at::Tensor features = time_features(at::stack({first, input.time}, 1));
  const at::Tensor time = linear("time.down", at::silu(linear("time.up", features)));
  return time + linear("pool", text.select(1, 0)).unsqueeze(1);  // [B, 2, D]
}

at::Tensor Model::embed_tokens(const ModelInput& input, const Positions& positions,
                               const at::Tensor& text) const {  // -> [B, N, D]
  const at::Tensor latents = input.latents.flatten(1, 3);
  at::Tensor mask = at::zeros({latents.size(0), latents.size(1), 1}, latents.options());
  mask.narrow(1, 0, input.latents.size(2) * input.latents.size(3))
      .copy_(input.clean_first.view({-1, 1, 1}));
  const at::Tensor place = linear("position", positions.features).to(compute_);
  const at::Tensor video = linear("input", at::cat({latents, mask}, -1).to(compute_)) + place;
  return at::cat({video, text.to(compute_)}, 1);
}

at::Tensor Model::attend(const std::string& prefix, const at::Tensor& x, const Positions& positions,
                         const Site& site, const AttentionFn& attention) const {
  const int64_t batch = x.size(0), tokens = x.size(1);
  const auto qkv =
      linear(prefix + "qkv", x).view({batch, tokens, 3, config_.heads(), kHeadDim}).unbind(2);
  const at::Tensor gain = parameter(prefix + "gain").view({1, 1, config_.heads(), kHeadDim / 2});
  const at::Tensor q = normalise_and_rotate(qkv[0], positions.rotation * gain);
  const at::Tensor k = normalise_and_rotate(qkv[1], positions.rotation);
  const auto handed_over = [](const at::Tensor& t) {
    return t.to(at::kBFloat16).transpose(1, 2);  // [B, H, N, 64]
  };
  const at::Tensor out = attention(site, handed_over(q), handed_over(k), handed_over(qkv[2]));
  return linear(prefix + "out",
                out.transpose(1, 2).reshape({batch, tokens, config_.width}).to(compute_));
}

at::Tensor Model::block(const at::Tensor& tokens, const at::Tensor& modulation,
                        int64_t frame_tokens, const Positions& positions, const Site& site,
                        const AttentionFn& attention) const {
  const std::string prefix = "blocks." + std::to_string(site.layer) + ".";
  // shift, scale, gate of the attention, then of the MLP: 6 x [B, 2, D]
  const auto m = (modulation + parameter(prefix + "table")).to(compute_).unbind(2);
  const at::Tensor a = attend(prefix, segment_addcmul(m[0], layer_norm(tokens), m[1], frame_tokens),
                              positions, site, attention);
  const at::Tensor x = segment_addcmul(tokens, a, m[2], frame_tokens);
  const at::Tensor up =
      linear(prefix + "up", segment_addcmul(m[3], layer_norm(x), m[4], frame_tokens));
  return segment_addcmul(x, linear(prefix + "down", at::gelu(up, "tanh")), m[5], frame_tokens);
}

at::Tensor Model::velocity(const ModelInput& input, const Positions& positions, Site site,
                           const AttentionFn& attention) const {
  const int64_t frame_tokens = input.latents.size(2) * input.latents.size(3);
  const int64_t video_tokens = input.latents.size(1) * frame_tokens;
  const at::Tensor text = embed_text(input.prompt);
  const at::Tensor time = embed_time(input, text);
  const at::Tensor modulation =
      linear("modulation", at::silu(time)).view({-1, 2, 6, config_.width});
  at::Tensor tokens = embed_tokens(input, positions, text);
  for (site.layer = 0; site.layer < config_.layers; ++site.layer) {
    tokens = block(tokens, modulation, frame_tokens, positions, site, attention);
  }
  const at::Tensor video = layer_norm(tokens.narrow(1, 0, video_tokens));
  const auto m = (time.unsqueeze(2) + parameter("output.table")).to(compute_).unbind(2);
  const at::Tensor out = linear("output", segment_addcmul(m[0], video, m[1], frame_tokens));
  return out.to(at::kFloat).view(input.latents.sizes());
}

}  // namespace raingauge::demo
