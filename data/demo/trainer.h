// SPDX-License-Identifier: Apache-2.0
// Training of the demo DiT: AdamW on fp32 parameters, forward and backward in the compute type, an
// exponential average of the parameters as the result. A step is a function of the state and the
// arguments alone, so that a resumed run equals one that was never interrupted.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/demo/codec.h"
#include "data/demo/model.h"
#include "data/demo/training_plan.h"
#include "data/demo/weights.h"

namespace raingauge::demo {

struct TrainerOptions {
  ModelConfig model;
  std::uint64_t seed = 1;
  double learning_rate = 1.2e-3;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.01;
  double clip_norm = 1.0;
  double average_decay = 0.999;
  int warmup_steps = 300;
  double drop_prompt = 0.1;
};

class Trainer {
 public:
  Trainer(const TrainerOptions& options, at::Device device);

  // Takes the model and the seed from the checkpoint, the rest from `options`.
  static Trainer resume(const std::filesystem::path& checkpoint, TrainerOptions options,
                        at::Device device);

  // New moments and a new average on the parameters of shipped weights.
  static Trainer start_from(const Weights& weights, TrainerOptions options, at::Device device);

  // One step at `rate` times the learning rate (and times the warm-up). Returns, on the device, the
  // summed loss and the count of the image-to-video items, then of the text-to-video items: [4].
  at::Tensor step(const BatchShape& shape, double rate);

  std::int64_t steps() const { return steps_; }
  std::int64_t clips() const { return clips_; }
  const ModelConfig& config() const { return options_.model; }

  void save(const std::filesystem::path& checkpoint) const;
  Weights averaged() const;  // the exponential average, with the facts of its training

 private:
  struct Batch {
    ModelInput input;
    at::Tensor target;  // noise - data
    Positions positions;
  };

  Trainer(const TrainerOptions& options, at::Device device, const Parameters& parameters);
  Batch draw_batch(const BatchShape& shape) const;
  at::Tensor loss_per_item(const Batch& batch) const;
  void gather_gradients();
  void update(double learning_rate);
  double average_weight() const;

  TrainerOptions options_;
  at::Device device_;
  std::int64_t steps_ = 0, clips_ = 0;
  // One entry a parameter, in the order of names_.
  std::vector<std::string> names_;
  std::vector<at::Tensor> master_, gradients_, average_, moment1_, moment2_, counts_;
  std::vector<at::Tensor> leaves_;  // what the model computes with; refreshed from master_
  std::unique_ptr<Model> model_;
  std::unique_ptr<Codec> codec_;
};

}  // namespace raingauge::demo
