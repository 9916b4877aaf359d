// SPDX-License-Identifier: Apache-2.0
#include "data/demo/trainer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "data/demo/device.h"
#include "data/demo/random.h"
#include "data/demo/sampler.h"
#include "data/error.h"

namespace raingauge::demo {
namespace {

constexpr double kUniformTimes = 0.1;  // share of times drawn uniformly, not logit-normally
constexpr int kStatisticsClips = 32;
constexpr int kStatisticsFrames = 3;
constexpr std::uint64_t kStatisticsStream = ~0ull;  // no step draws from it

std::uint64_t training_seed(RandomStream& random) { return random.bits() & ~kHeldOutBit; }

// Frame 0 and a random choice of the others, ascending.
std::vector<int> draw_frames(int count, RandomStream& random) {
  std::vector<int> frames(kTimelineFrames);
  for (int i = 0; i < kTimelineFrames; ++i) frames[static_cast<std::size_t>(i)] = i;
  for (int i = 1; i < count; ++i) {
    const int other = i + random.below(kTimelineFrames - i);
    std::swap(frames[static_cast<std::size_t>(i)], frames[static_cast<std::size_t>(other)]);
  }
  frames.resize(static_cast<std::size_t>(count));
  std::sort(frames.begin(), frames.end());
  return frames;
}

double draw_time(RandomStream& random) {
  const bool uniform = random.chance(kUniformTimes);
  const double logit = random.gaussian() + 0.5;
  return uniform ? random.uniform() : 1.0 / (1.0 + std::exp(-logit));
}

Codec fit_codec(std::uint64_t seed, at::Device device) {
  RandomStream random(seed, kStatisticsStream);
  std::vector<std::uint64_t> seeds;
  for (int i = 0; i < kStatisticsClips; ++i) seeds.push_back(training_seed(random));
  return Codec::fit(render(seeds, full_view(kStatisticsFrames, 16, 24), device).pixels);
}

// Seeding torch's generator anew each step makes the noise a function of the step.
at::Tensor noise_like(const at::Tensor& latents, std::uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(latents.device());
  {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(seed);
  }
  return at::randn(latents.sizes(), generator, latents.options());
}

std::vector<at::Tensor> zeros_like(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> zeros;
  for (const at::Tensor& tensor : tensors) zeros.push_back(at::zeros_like(tensor));
  return zeros;
}

}  // namespace

Trainer::Trainer(const TrainerOptions& options, at::Device device)
    : Trainer(options, device, draw_parameters(options.model, options.seed)) {
  codec_ = std::make_unique<Codec>(fit_codec(options.seed, device));
}

Trainer::Trainer(const TrainerOptions& options, at::Device device, const Parameters& parameters)
    : options_(options), device_(device) {
  const at::ScalarType compute = device.is_cuda() ? at::kBFloat16 : at::kFloat;
  Parameters computing;
  for (const auto& [name, value] : parameters) {
    names_.push_back(name);
    master_.push_back(value.to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true));
    leaves_.push_back(master_.back().to(acts_on_tokens(name) ? compute : at::kFloat,
                                        /*non_blocking=*/false, /*copy=*/true));
    leaves_.back().requires_grad_();
    counts_.push_back(at::zeros({}, master_.back().options()));
    average_.push_back(master_.back().clone());
    computing.emplace(name, leaves_.back());
  }
  gradients_ = zeros_like(master_);
  moment1_ = zeros_like(master_);
  moment2_ = zeros_like(master_);
  model_ = std::make_unique<Model>(options.model, std::move(computing));
}

Trainer::Batch Trainer::draw_batch(const BatchShape& shape) const {
  RandomStream random(options_.seed, static_cast<std::uint64_t>(steps_));
  const View view{draw_frames(shape.frames, random), shape.grid_h, shape.grid_w};
  std::vector<std::uint64_t> seeds;
  std::vector<float> values[3];  // time, clean_first, prompt kept
  for (int i = 0; i < shape.clips; ++i) {
    seeds.push_back(training_seed(random));
    values[0].push_back(static_cast<float>(draw_time(random)));
    values[1].push_back(random.chance(0.5) ? 1.0f : 0.0f);
    values[2].push_back(random.chance(options_.drop_prompt) ? 0.0f : 1.0f);
  }
  const Rendered rendered = render(seeds, view, device_);
  const at::Tensor latents = codec_->encode(rendered.pixels);
  const at::Tensor noise = noise_like(latents, random.bits());
  Batch batch;
  batch.input.time = upload(values[0], device_);
  batch.input.clean_first = upload(values[1], device_);
  batch.input.prompt = rendered.prompt * upload(values[2], device_).view({-1, 1, 1});
  batch.input.latents = noised(latents, noise, batch.input.time, batch.input.clean_first);
  batch.target = noise - latents;
  batch.positions = make_positions(view, device_);
  return batch;
}

// [B]: the mean over the frames to be predicted; a clean frame 0 is none of them.
at::Tensor Trainer::loss_per_item(const Batch& batch) const {
  const at::Tensor velocity =
      model_->velocity(batch.input, batch.positions, Site{}, native_attention);
  const at::Tensor error = (velocity - batch.target).square().mean({2, 3, 4});  // [B, F]
  at::Tensor weight = at::ones_like(batch.target.select(4, 0).select(3, 0).select(2, 0));
  weight.select(1, 0).sub_(batch.input.clean_first);
  return (error * weight).sum(1) / weight.sum(1);
}

at::Tensor Trainer::step(const BatchShape& shape, double rate) {
  const Batch batch = draw_batch(shape);
  const at::Tensor losses = loss_per_item(batch);
  losses.mean().backward();
  gather_gradients();
  const double warmup = std::min(1.0, static_cast<double>(steps_ + 1) / options_.warmup_steps);
  update(options_.learning_rate * rate * warmup);
  ++steps_;
  clips_ += shape.clips;
  const at::Tensor image = batch.input.clean_first;
  const at::Tensor text = 1.0 - image;
  const at::Tensor found = losses.detach();
  return at::stack({(found * image).sum(), image.sum(), (found * text).sum(), text.sum()});
}

void Trainer::gather_gradients() {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> raw;
  for (const at::Tensor& leaf : leaves_) {
    raw.push_back(leaf.grad());
    leaf.mutable_grad().reset();
  }
  at::_foreach_copy_(gradients_, raw);
}

void Trainer::update(double learning_rate) {
  const c10::NoGradGuard no_grad;
  const at::Tensor norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients_)));
  // A step whose gradient is not finite leaves parameters and moments as they are.
  const at::Tensor bad = norm.isfinite().logical_not().to(at::kFloat);
  at::_foreach_mul_(gradients_, (options_.clip_norm / (norm + 1e-6)).clamp_max(1.0));
  at::_foreach_add_(counts_, 1.0);
  at::_fused_adamw_(master_, gradients_, moment1_, moment2_, {}, counts_, learning_rate,
                    options_.beta1, options_.beta2, options_.weight_decay, options_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, /*found_inf=*/bad);
  at::_foreach_add_(counts_, bad, /*alpha=*/-1.0);
  at::_foreach_lerp_(average_, master_, average_weight());
  at::_foreach_copy_(leaves_, master_);
}

// Early on a long average would still hold the random start.
double Trainer::average_weight() const {
  const auto steps = static_cast<double>(steps_);
  return 1.0 - std::min(options_.average_decay, (1.0 + steps) / (10.0 + steps));
}

void Trainer::save(const std::filesystem::path& checkpoint) const {
  TensorFile file;
  file.metadata = config_metadata(options_.model);
  file.metadata["seed"] = std::to_string(options_.seed);
  file.metadata["steps"] = std::to_string(steps_);
  file.metadata["clips"] = std::to_string(clips_);
  for (std::size_t i = 0; i < names_.size(); ++i) {
    file.tensors.emplace("master." + names_[i], master_[i]);
    file.tensors.emplace("average." + names_[i], average_[i]);
    file.tensors.emplace("moment1." + names_[i], moment1_[i]);
    file.tensors.emplace("moment2." + names_[i], moment2_[i]);
  }
  file.tensors.emplace("count", counts_.front().view({1}));
  file.tensors.emplace("codec.mean", codec_->mean());
  file.tensors.emplace("codec.deviation", codec_->deviation());
  write_tensors(checkpoint, file);
}

Trainer Trainer::resume(const std::filesystem::path& checkpoint, TrainerOptions options,
                        at::Device device) {
  TensorFile file = read_tensors(checkpoint);
  options.model = config_from(file, checkpoint);
  constexpr std::uint64_t kMostSteps = 1ull << 62;
  const auto count_of = [&](const char* key) {
    return static_cast<std::int64_t>(metadata_number(file, key, 0, kMostSteps, checkpoint));
  };
  options.seed = metadata_number(file, "seed", 0, ~0ull, checkpoint);
  Trainer trainer(options, device, take_parameters(file, options.model, "master.", checkpoint));
  const auto restore = [&](std::vector<at::Tensor>& state, const std::string& prefix) {
    const Parameters saved = take_parameters(file, options.model, prefix, checkpoint);
    for (std::size_t i = 0; i < state.size(); ++i) state[i].copy_(saved.at(trainer.names_[i]));
  };
  restore(trainer.average_, "average.");
  restore(trainer.moment1_, "moment1.");
  restore(trainer.moment2_, "moment2.");
  const at::Tensor count = take_tensor(file, "count", {1}, checkpoint);
  for (at::Tensor& each : trainer.counts_) each.copy_(count.squeeze());
  trainer.codec_ = std::make_unique<Codec>(
      take_tensor(file, "codec.mean", {kLatentChannels}, checkpoint).to(device),
      take_tensor(file, "codec.deviation", {kLatentChannels}, checkpoint).to(device));
  trainer.steps_ = count_of("steps");
  trainer.clips_ = count_of("clips");
  return trainer;
}

Trainer Trainer::start_from(const Weights& weights, TrainerOptions options, at::Device device) {
  options.model = weights.config;
  Trainer trainer(options, device, weights.parameters);
  trainer.codec_ =
      std::make_unique<Codec>(weights.codec_mean.to(device), weights.codec_deviation.to(device));
  return trainer;
}

Weights Trainer::averaged() const {
  Weights weights;
  weights.config = options_.model;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    // A copy, on the CPU too: the average goes on changing.
    weights.parameters.emplace(names_[i], average_[i].to(at::kCPU, at::kFloat,
                                                         /*non_blocking=*/false, /*copy=*/true));
  }
  weights.codec_mean = codec_->mean().cpu();
  weights.codec_deviation = codec_->deviation().cpu();
  weights.training = {{"seed", std::to_string(options_.seed)},
                      {"steps", std::to_string(steps_)},
                      {"clips", std::to_string(clips_)}};
  return weights;
}

}  // namespace raingauge::demo
