// SPDX-License-Identifier: Apache-2.0
// The weights in the repository: are they whole, and do they still make the clips they made when
// they were trained?
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "data/demo/demo.h"
#include "data/demo/sampler.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

// The loss of training, on a held-out scene at eight frames of the timeline, as most of the training
// saw them: the mean square of what is left of noise - data, over the frames to be predicted.
double velocity_error(const Model& model, const Codec& codec, Mode mode) {
  const View view{{0, 3, 6, 9, 12, 15, 18, 20}, 16, 24};
  const Rendered truth = render({kHeldOutBit | 1}, view, at::kCPU);
  const at::Tensor latents = codec.encode(truth.pixels);
  const at::Tensor noise = gaussian_noise(1, latents.sizes());
  const bool image_to_video = mode == Mode::image_to_video;
  ModelInput input{.latents = {},
                   .time = at::full({1}, 0.6),
                   .prompt = truth.prompt,
                   .clean_first = at::full({1}, image_to_video ? 1.0 : 0.0)};
  input.latents = noised(latents, noise, input.time, input.clean_first);
  const at::Tensor velocity =
      model.velocity(input, make_positions(view, at::kCPU), Site{}, native_attention);
  const int64_t first = image_to_video ? 1 : 0;
  return (velocity - (noise - latents)).slice(1, first).square().mean().item<double>();
}

TEST(ShippedWeights, AreTheWholeModel) {
  const Weights weights = read_weights(RAINGAUGE_DEMO_WEIGHTS);
  EXPECT_EQ(weights.config, ModelConfig{});
  ASSERT_EQ(weights.parameters.size(), parameter_specs(weights.config).size());
  for (const char* key : {"seed", "steps", "clips"}) {
    EXPECT_GE(metadata_number(read_tensors(RAINGAUGE_DEMO_WEIGHTS), key, 1, ~0ull, "shipped"), 1u);
  }
  // Those start at zero: training has been here.
  for (const char* name : {"output.weight", "modulation.weight", "output.bias"}) {
    EXPECT_GT(weights.parameters.at(name).abs().max().item<double>(), 1e-3) << name;
  }
}

TEST(ShippedWeights, LoadWithoutAName) {
  const Demo demo = Demo::load("", {}, 1);
  EXPECT_EQ(demo.layers(), 8);
  EXPECT_EQ(demo.heads(), 4);
  EXPECT_EQ(demo.weights_path(), RAINGAUGE_DEMO_WEIGHTS);
  EXPECT_EQ(demo.weights_sha256().size(), 64u);
}

TEST(ShippedWeights, PredictAHeldOutSceneAsWellAsTheyDid) {
  const c10::NoGradGuard no_grad;
  const Weights weights = read_weights(RAINGAUGE_DEMO_WEIGHTS);
  const Model model(weights.config, weights.parameters);
  const Codec codec(weights.codec_mean, weights.codec_deviation);
  // Computing in bf16 throughout would move these by 0.3 %; other processors only turn some
  // roundings of Q, K and V. Predicting nothing has an error near 2.
  for (const auto& [mode, stored] :
       {std::pair{Mode::image_to_video, 0.0611993}, {Mode::text_to_video, 0.1383628}}) {
    EXPECT_NEAR(velocity_error(model, codec, mode), stored, 1e-3 * stored) << name_of(mode);
  }
}

}  // namespace
}  // namespace raingauge::demo
