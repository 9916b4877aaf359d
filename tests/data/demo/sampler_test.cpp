// SPDX-License-Identifier: Apache-2.0
#include "data/demo/sampler.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/error.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

constexpr int kFrames = 3, kRows = 3, kColumns = 4;

struct Toy {
  Model model{kToyConfig, toy_weights().parameters};
  Positions positions = make_positions(full_view(kFrames, kRows, kColumns), at::kCPU);
  SampleRequest request{.noise = gaussian_noise(1, {1, kFrames, kRows, kColumns, kLatentChannels}),
                        .first_frame = gaussian_noise(2, {1, kRows, kColumns, kLatentChannels}),
                        .prompt = gaussian_noise(3, {1, kPromptTokens, kPromptFeatures})};

  at::Tensor sample(const SamplerOptions& options,
                    const AttentionFn& attention = native_attention) const {
    return demo::sample(model, request, positions, options, attention, {});
  }
};

TEST(Sampler, ScheduleIsTheShiftedOne) {
  const std::vector<double> times = schedule({.steps = 4, .shift = 3.0});
  const std::vector<double> wanted{1.0, 0.9, 0.75, 0.5, 0.0};  // 3 t / (1 + 2 t)
  ASSERT_EQ(times.size(), wanted.size());
  for (std::size_t i = 0; i < times.size(); ++i) EXPECT_NEAR(times[i], wanted[i], 1e-15);
  EXPECT_EQ(schedule({.steps = 1}), (std::vector<double>{1.0, 0.0}));
  EXPECT_THROW(schedule({.steps = 0}), Error);
  EXPECT_THROW(schedule({.shift = 0.0}), Error);
  EXPECT_THROW(schedule({.shift = std::nan("")}), Error);
}

TEST(Sampler, NoiseIsStandardNormalAndItsSeeds) {
  const at::Tensor noise = gaussian_noise(9, {100, 1000});
  // Five standard errors of 10^5 draws: 5 / sqrt(1e5), and sqrt(2) times that for the variance.
  EXPECT_NEAR(noise.mean().item<double>(), 0.0, 0.016);
  EXPECT_NEAR(noise.var().item<double>(), 1.0, 0.023);
  EXPECT_TRUE(noise.equal(gaussian_noise(9, {100, 1000})));
  EXPECT_FALSE(noise.equal(gaussian_noise(10, {100, 1000})));
}

TEST(Sampler, NoisedGoesFromDataToNoise) {
  const at::Tensor data = gaussian_noise(1, {4, 2, 1, 1, 3});
  const at::Tensor noise = gaussian_noise(2, data.sizes());
  const at::Tensor mixed = noised(data, noise, at::tensor({0.0f, 1.0f, 0.25f, 1.0f}),
                                  at::tensor({0.0f, 0.0f, 0.0f, 1.0f}));
  EXPECT_LE(max_difference(mixed[0], data[0]), 1e-6);
  EXPECT_LE(max_difference(mixed[1], noise[1]), 1e-6);
  EXPECT_LE(max_difference(mixed[2], 0.75 * data[2] + 0.25 * noise[2]), 1e-6);
  EXPECT_LE(max_difference(mixed[3][0], data[3][0]), 1e-6);  // the clean frame
  EXPECT_LE(max_difference(mixed[3][1], noise[3][1]), 1e-6);
}

TEST(Sampler, FirstFramePassesThroughUnchanged) {
  const Toy toy;
  const at::Tensor latents = toy.sample({.steps = 3});
  EXPECT_TRUE(latents.select(1, 0).equal(toy.request.first_frame));
  EXPECT_FALSE(latents.select(1, 1).equal(toy.request.noise.select(1, 1)));
}

TEST(Sampler, TextToVideoMovesEveryFrame) {
  Toy toy;
  toy.request.first_frame = at::Tensor();
  const at::Tensor moved = (toy.sample({.steps = 2}) - toy.request.noise).abs().amax({2, 3, 4});
  EXPECT_GT(moved.min().item<double>(), 1e-3);
}

TEST(Sampler, StepsAreEulerSteps) {
  const Toy toy;
  ModelInput input{.latents = toy.request.noise.clone(),
                   .time = at::ones({1}),
                   .prompt = toy.request.prompt,
                   .clean_first = at::ones({1})};
  input.latents.select(1, 0).copy_(toy.request.first_frame);
  for (const auto& [from, to] : {std::pair{1.0, 0.75}, {0.75, 0.0}}) {
    input.time.fill_(from);
    const at::Tensor velocity = toy.model.velocity(input, toy.positions, Site{}, native_attention);
    input.latents = input.latents + (to - from) * velocity;
    input.latents.select(1, 0).copy_(toy.request.first_frame);
  }
  EXPECT_LE(max_difference(toy.sample({.steps = 2}), input.latents), 1e-5);
}

TEST(Sampler, GuidanceCallsBothBranchesAndExtrapolates) {
  const Toy toy;
  std::vector<std::string> branches;
  const auto watch = [&](const Site& site, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v) {
    if (site.layer == 0) branches.push_back(std::to_string(site.step) + site.branch);
    return native_attention(site, q, k, v);
  };
  const at::Tensor plain = toy.sample({.steps = 2}, watch);
  EXPECT_EQ(branches, (std::vector<std::string>{"0cond", "1cond"}));
  branches.clear();
  // One step is linear in the velocity: guidance 2 = 2 * cond - uncond, 0 = uncond.
  const at::Tensor twice = toy.sample({.steps = 1, .guidance = 2.0}, watch);
  EXPECT_EQ(branches, (std::vector<std::string>{"0cond", "0uncond"}));
  const at::Tensor once = toy.sample({.steps = 1});
  const at::Tensor none = toy.sample({.steps = 1, .guidance = 0.0});
  EXPECT_LE(max_difference(twice, 2.0 * once - none), 1e-5);
  EXPECT_GT(max_difference(once, none), 1e-3);
}

}  // namespace
}  // namespace raingauge::demo
