// SPDX-License-Identifier: Apache-2.0
#include "data/demo/model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/demo/sampler.h"
#include "data/demo/segment_ops.h"
#include "data/error.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

constexpr int kFrames = 3, kRows = 4, kColumns = 5;
constexpr int64_t kTokens = kFrames * kRows * kColumns + kTextTokens;

struct Toy {
  Model model{kToyConfig, toy_weights().parameters};
  Positions positions = make_positions(full_view(kFrames, kRows, kColumns), at::kCPU);
  ModelInput input{.latents = gaussian_noise(1, {2, kFrames, kRows, kColumns, kLatentChannels}),
                   .time = at::tensor({0.3f, 0.9f}),
                   .prompt = gaussian_noise(2, {2, kPromptTokens, kPromptFeatures}),
                   .clean_first = at::tensor({1.0f, 0.0f})};

  at::Tensor velocity(const AttentionFn& attention = native_attention) const {
    Site site;
    site.step = 4;
    return model.velocity(input, positions, site, attention);
  }
};

at::Tensor exact_attention(const Site&, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v) {
  const at::Tensor scores =
      at::matmul(q.to(at::kDouble), k.to(at::kDouble).transpose(-1, -2)) / std::sqrt(kHeadDim);
  return at::matmul(at::softmax(scores, -1), v.to(at::kDouble)).to(at::kFloat);
}

TEST(Model, HasTheSizeItsPageSays) {
  int64_t count = 0;
  for (const ParameterSpec& spec : parameter_specs(ModelConfig{})) {
    int64_t elements = 1;
    for (const int64_t extent : spec.shape) elements *= extent;
    count += elements;
  }
  EXPECT_NEAR(static_cast<double>(count), 7.0e6, 0.05e6);
}

TEST(Model, AttentionSeesBf16AfterNormalisation) {
  const Toy toy;
  std::vector<Site> sites;
  toy.velocity([&](const Site& site, const at::Tensor& q, const at::Tensor& k,
                   const at::Tensor& v) {
    sites.push_back(site);
    for (const at::Tensor* tensor : {&q, &k, &v}) {
      EXPECT_EQ(tensor->scalar_type(), at::kBFloat16);
      EXPECT_EQ(tensor->sizes(), (std::vector<int64_t>{2, kToyConfig.heads(), kTokens, kHeadDim}));
    }
    // K is of length sqrt(64); rounding moves each element by up to 2^-9 of itself.
    const at::Tensor length = k.to(at::kFloat).norm(2, -1);
    EXPECT_LE(max_difference(length, at::full_like(length, 8.0)), 8.0 * 0x1p-8);
    return native_attention(site, q, k, v);
  });
  ASSERT_EQ(sites.size(), 2u);
  for (int layer = 0; layer < 2; ++layer) {
    const Site& site = sites[static_cast<std::size_t>(layer)];
    EXPECT_EQ(site.layer, layer);
    EXPECT_EQ(site.step, 4);
    EXPECT_EQ(site.branch, "cond");
  }
}

TEST(Model, NativeAttentionIsSoftmaxAttention) {
  const auto draw = [](std::uint64_t seed) {
    return gaussian_noise(seed, {2, 3, 70, kHeadDim}).to(at::kBFloat16);
  };
  const at::Tensor q = draw(1) * 2.0, k = draw(2), v = draw(3);
  const at::Tensor native = native_attention(Site{}, q, k, v);
  // Scores of up to 80 / 8 from fp32 sums of 64: each is off by at most 64 * 80 / 8 * 2^-24, which
  // is the relative error of a probability; |v| < 6.
  EXPECT_LE(max_difference(native, exact_attention(Site{}, q, k, v)), 2 * 6 * 640 * 0x1p-24);
}

TEST(Model, ExactAttentionGivesTheNativeVelocity) {
  const Toy toy;
  const at::Tensor native = toy.velocity(), exact = toy.velocity(exact_attention);
  ASSERT_GT(native.abs().max().item<double>(), 0.1) << "predicting nothing proves nothing";
  // The first layer's difference of 1e-6 can turn roundings of the second layer's bf16 Q, K, V: a
  // few elements move by 2^-8 of themselves, among 64 to a score.
  EXPECT_LE(((native - exact).norm() / native.norm()).item<double>(), 1e-3);
}

TEST(Model, AttentionReachesTheOutput) {
  const Toy toy;
  const at::Tensor without =
      toy.velocity([](const Site&, const at::Tensor& q, const at::Tensor&, const at::Tensor&) {
        return at::zeros_like(q, at::kFloat);
      });
  EXPECT_GT(((toy.velocity() - without).norm() / without.norm()).item<double>(), 0.01);
}

TEST(Model, ItemsOfABatchAreIndependent) {
  const Toy toy;
  const at::Tensor both = toy.velocity();
  for (int64_t item = 0; item < 2; ++item) {
    Toy alone;
    for (at::Tensor* tensor :
         {&alone.input.latents, &alone.input.time, &alone.input.prompt, &alone.input.clean_first}) {
      *tensor = tensor->narrow(0, item, 1);
    }
    // Another batch size is another matrix product; bf16 roundings may turn, as above.
    EXPECT_LE(((alone.velocity()[0] - both[item]).norm() / both[item].norm()).item<double>(), 1e-3);
  }
}

TEST(Model, CleanFirstFrameIsTold) {
  Toy toy;
  const at::Tensor before = toy.velocity();
  toy.input.clean_first = at::zeros({2});
  const at::Tensor after = toy.velocity();
  EXPECT_GT(max_difference(before[0], after[0]), 0.01);  // item 0 was image-to-video
  EXPECT_LE(max_difference(before[1], after[1]), 1e-5);
}

TEST(Model, RefusesParametersOfAnotherModel) {
  Parameters parameters = toy_weights().parameters;
  EXPECT_THROW(Model({.width = 64, .layers = 2}, parameters), Error);
  EXPECT_THROW(Model({.width = 100, .layers = 2}, parameters), Error);
  EXPECT_THROW(Model({.width = 128, .layers = 0}, parameters), Error);
  parameters.erase("pool.bias");
  EXPECT_THROW(Model(kToyConfig, parameters), Error);
}

at::Tensor plain_addcmul(const at::Tensor& base, const at::Tensor& value, const at::Tensor& scale,
                         int64_t split) {
  const auto rows = [&](const at::Tensor& t) {
    if (t.size(1) == value.size(1)) return t;
    return at::cat({t.narrow(1, 0, 1).expand({-1, split, -1}),
                    t.narrow(1, 1, 1).expand({-1, value.size(1) - split, -1})},
                   1);
  };
  return rows(base) + value * rows(scale);
}

TEST(SegmentAddcmul, EqualsThePlainFormulaWithItsGradients) {
  for (const int64_t base_rows : {2, 7}) {
    const auto leaf = [](std::uint64_t seed, at::IntArrayRef shape) {
      return gaussian_noise(seed, shape).to(at::kDouble).requires_grad_();
    };
    const at::Tensor base = leaf(1, {3, base_rows, 4}), value = leaf(2, {3, 7, 4});
    const at::Tensor scale = leaf(3, {3, 2, 4});
    const at::Tensor weight = gaussian_noise(4, {3, 7, 4}).to(at::kDouble);
    std::vector<std::vector<at::Tensor>> gradients;
    std::vector<at::Tensor> results;
    for (const auto& formula : {segment_addcmul, plain_addcmul}) {
      results.push_back(formula(base, value, scale, 3));
      (results.back() * weight).sum().backward();
      gradients.emplace_back();
      for (const at::Tensor* tensor : {&base, &value, &scale}) {
        gradients.back().push_back(tensor->grad().clone());
        tensor->mutable_grad().reset();
      }
    }
    EXPECT_LE(max_difference(results[0], results[1]), 1e-14);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_LE(max_difference(gradients[0][i], gradients[1][i]), 1e-13) << i;
    }
  }
}

}  // namespace
}  // namespace raingauge::demo
