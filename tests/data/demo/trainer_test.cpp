// SPDX-License-Identifier: Apache-2.0
#include "data/demo/trainer.h"

#include <gtest/gtest.h>

#include "data/demo/safetensors.h"
#include "data/error.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

TrainerOptions toy_options() {
  TrainerOptions options;
  options.model = {.width = 64, .layers = 1};
  options.seed = 3;
  options.warmup_steps = 5;
  options.learning_rate = 4e-3;
  return options;
}

const BatchShape kBatch{.frames = 3, .grid_h = 4, .grid_w = 5, .clips = 4};

double mean_loss(const at::Tensor& sums) {
  return (sums[0] + sums[2]).item<double>() / (sums[1] + sums[3]).item<double>();
}

void expect_same_averages(const Trainer& a, const Trainer& b) {
  const Weights left = a.averaged(), right = b.averaged();
  for (const auto& [name, value] : left.parameters) {
    EXPECT_TRUE(value.equal(right.parameters.at(name))) << name;
  }
  EXPECT_TRUE(left.codec_mean.equal(right.codec_mean));
  EXPECT_EQ(left.training, right.training);
}

class TrainerTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
};

TEST_F(TrainerTest, ResumedRunIsTheUninterruptedRun) {
  Trainer whole(toy_options(), at::kCPU);
  std::vector<at::Tensor> losses;
  for (int step = 0; step < 4; ++step) losses.push_back(whole.step(kBatch, 0.9));
  Trainer part(toy_options(), at::kCPU);
  for (int step = 0; step < 2; ++step) part.step(kBatch, 0.9);
  part.save(folder_ / "checkpoint");
  TrainerOptions options = toy_options();
  options.seed = 77;  // the checkpoint's counts
  Trainer resumed = Trainer::resume(folder_ / "checkpoint", options, at::kCPU);
  EXPECT_EQ(resumed.steps(), 2);
  EXPECT_EQ(resumed.clips(), 8);
  expect_same_averages(resumed, part);
  for (std::size_t step = 2; step < 4; ++step) {
    EXPECT_TRUE(resumed.step(kBatch, 0.9).equal(losses[step])) << step;
  }
  expect_same_averages(resumed, whole);
}

TEST_F(TrainerTest, LossFalls) {
  Trainer trainer(toy_options(), at::kCPU);
  double first = 0, last = 0;
  const int steps = 60, window = 10;
  for (int step = 0; step < steps; ++step) {
    const double loss = mean_loss(trainer.step(kBatch, 1.0));
    if (step < window) first += loss / window;
    if (step >= steps - window) last += loss / window;
  }
  // It starts at the mean square of noise - data, about 2. The noise alone is half of that, and the
  // latents show it.
  EXPECT_LT(last, 0.75 * first);
}

TEST_F(TrainerTest, EveryParameterLearns) {
  Trainer trainer(toy_options(), at::kCPU);
  const Weights before = trainer.averaged();
  for (int step = 0; step < 3; ++step) trainer.step(kBatch, 1.0);
  const Weights after = trainer.averaged();
  EXPECT_FALSE(before.parameters.at("output.bias").is_alias_of(after.parameters.at("output.bias")));
  for (const auto& [name, value] : before.parameters) {
    EXPECT_FALSE(value.equal(after.parameters.at(name))) << name;
    EXPECT_TRUE(after.parameters.at(name).isfinite().all().item<bool>()) << name;
  }
}

TEST_F(TrainerTest, StartsFromShippedWeights) {
  Weights weights = toy_weights({.width = 64, .layers = 1});
  const Trainer trainer = Trainer::start_from(weights, TrainerOptions{}, at::kCPU);
  EXPECT_EQ(trainer.config(), weights.config);
  EXPECT_EQ(trainer.steps(), 0);
  EXPECT_TRUE(
      trainer.averaged().parameters.at("pool.weight").equal(weights.parameters.at("pool.weight")));
}

TEST_F(TrainerTest, HostileCheckpointsAreErrors) {
  Trainer trainer(toy_options(), at::kCPU);
  trainer.save(folder_ / "good");
  const auto resume = [&](const std::string& name) {
    return Trainer::resume(folder_ / name, toy_options(), at::kCPU);
  };
  EXPECT_NO_THROW(resume("good"));
  EXPECT_THROW(resume("missing"), Error);
  for (const char* key : {"seed", "steps", "clips"}) {
    for (const char* value : {"", "x", "-1", "12x", " 12", "1.5", "99999999999999999999"}) {
      TensorFile file = read_tensors(folder_ / "good");
      file.metadata[key] = value;
      write_tensors(folder_ / "bad", file);
      EXPECT_THROW(resume("bad"), Error) << key << " = '" << value << "'";
    }
    TensorFile file = read_tensors(folder_ / "good");
    file.metadata.erase(key);
    write_tensors(folder_ / "bad", file);
    EXPECT_THROW(resume("bad"), Error) << key;
  }
  for (const char* name : {"count", "codec.mean", "moment2.pool.bias", "master.pool.bias"}) {
    TensorFile file = read_tensors(folder_ / "good");
    file.tensors.erase(name);
    write_tensors(folder_ / "bad", file);
    EXPECT_THROW(resume("bad"), Error) << name;
  }
}

}  // namespace
}  // namespace raingauge::demo
