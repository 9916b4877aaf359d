// SPDX-License-Identifier: Apache-2.0
#include "data/demo/sampler.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "data/demo/random.h"
#include "data/error.h"

namespace raingauge::demo {
namespace {

constexpr std::uint64_t kNoiseStream = 0x6e6f697365;  // apart from the streams that draw scenes

void keep_first_frame(at::Tensor& latents, const at::Tensor& first_frame) {
  if (first_frame.defined()) latents.select(1, 0).copy_(first_frame);
}

at::Tensor guided_velocity(const Model& model, const ModelInput& input, const Positions& positions,
                           const SamplerOptions& options, int step, const AttentionFn& attention) {
  Site site{.step = step, .layer = 0, .expert = "", .branch = "cond", .batch_item = 0};
  const at::Tensor conditional = model.velocity(input, positions, site, attention);
  if (options.guidance == 1.0) return conditional;
  site.branch = "uncond";
  ModelInput without = input;
  without.prompt = at::zeros_like(input.prompt);
  const at::Tensor unconditional = model.velocity(without, positions, site, attention);
  return at::lerp(unconditional, conditional, options.guidance);
}

}  // namespace

std::vector<double> schedule(const SamplerOptions& options) {
  if (options.steps < 1 || !(options.shift > 0.0)) {
    throw Error("sampler: steps must be at least 1 and shift above 0");
  }
  std::vector<double> times;
  for (int i = 0; i <= options.steps; ++i) {
    const double t = 1.0 - static_cast<double>(i) / options.steps;
    times.push_back(options.shift * t / (1.0 + (options.shift - 1.0) * t));
  }
  return times;
}

at::Tensor gaussian_noise(std::uint64_t seed, at::IntArrayRef shape) {
  at::Tensor noise = at::empty(shape, at::kFloat);
  auto* data = noise.mutable_data_ptr<float>();
  RandomStream random(seed, kNoiseStream);
  for (int64_t i = 0; i < noise.numel(); ++i) data[i] = static_cast<float>(random.gaussian());
  return noise;
}

at::Tensor noised(const at::Tensor& latents, const at::Tensor& noise, const at::Tensor& time,
                  const at::Tensor& clean_first) {
  at::Tensor result = at::lerp(latents, noise, time.view({-1, 1, 1, 1, 1}));
  at::Tensor first = result.select(1, 0);
  first.lerp_(latents.select(1, 0), clean_first.view({-1, 1, 1, 1}));
  return result;
}

at::Tensor sample(const Model& model, const SampleRequest& request, const Positions& positions,
                  const SamplerOptions& options, const AttentionFn& attention,
                  const std::function<void(int, int)>& progress) {
  const c10::NoGradGuard no_grad;
  const std::vector<double> times = schedule(options);
  const int64_t batch = request.noise.size(0);
  const auto per_item = request.noise.options();
  ModelInput input{
      .latents = request.noise.clone(),
      .time = {},
      .prompt = request.prompt,
      .clean_first = at::full({batch}, request.first_frame.defined() ? 1.0 : 0.0, per_item)};
  keep_first_frame(input.latents, request.first_frame);
  for (int step = 0; step < options.steps; ++step) {
    const auto index = static_cast<std::size_t>(step);
    input.time = at::full({batch}, times[index], per_item);
    const at::Tensor velocity = guided_velocity(model, input, positions, options, step, attention);
    input.latents.add_(velocity, times[index + 1] - times[index]);
    keep_first_frame(input.latents, request.first_frame);
    if (progress) progress(step + 1, options.steps);
  }
  return input.latents;
}

}  // namespace raingauge::demo
