// SPDX-License-Identifier: Apache-2.0
// The weights in the repository: are they whole, and do they still make the clips they made when
// they were trained?
#include <gtest/gtest.h>

#include <cmath>

#include "data/demo/demo.h"
#include "data/demo/sampler.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

struct Quality {
  double sampled = 0, repeated = 0, coded = 0;  // PSNR in dB of frames 10 and 20
};

double psnr(const at::Tensor& got, const at::Tensor& wanted) {  // the range is 2
  const at::Tensor later = (got - wanted).narrow(1, 1, 2);
  return 10.0 * std::log10(4.0 / later.square().mean().item<double>());
}

// Two held-out scenes at frames 0, 10 and 20, from frame 0 and the prompt, in four steps.
Quality evaluate(const Weights& weights, const AttentionFn& attention) {
  const View view{{0, 10, 20}, 16, 24};
  const Model model(weights.config, weights.parameters);
  const Codec codec(weights.codec_mean, weights.codec_deviation);
  const Rendered truth = render({kHeldOutBit | 1, kHeldOutBit | 2}, view, at::kCPU);
  const at::Tensor latents = codec.encode(truth.pixels);
  const SampleRequest request{.noise = gaussian_noise(1, latents.sizes()),
                              .first_frame = latents.select(1, 0),
                              .prompt = truth.prompt};
  const at::Tensor sampled = sample(model, request, make_positions(view, at::kCPU), {.steps = 4},
                                    attention, {});
  return {.sampled = psnr(codec.decode(sampled), truth.pixels),
          .repeated = psnr(truth.pixels.narrow(1, 0, 1).expand_as(truth.pixels), truth.pixels),
          .coded = psnr(codec.decode(latents), truth.pixels)};
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

TEST(ShippedWeights, PredictHeldOutScenesAsWellAsTheyDid) {
  const Weights weights = read_weights(RAINGAUGE_DEMO_WEIGHTS);
  const Quality quality = evaluate(weights, native_attention);
  const Quality b = evaluate(weights, [](const Site&, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v){return at::scaled_dot_product_attention(q,k,v);});
  printf("%.4f %.4f %.4f bf16 %.4f\n", quality.sampled,quality.repeated,quality.coded,b.sampled);
}

}  // namespace
}  // namespace raingauge::demo
