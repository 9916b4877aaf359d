// SPDX-License-Identifier: Apache-2.0
#include "data/demo/codec.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/demo/renderer.h"
#include "data/demo/sampler.h"
#include "data/error.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

Codec plain_codec() { return {at::zeros({kLatentChannels}), at::ones({kLatentChannels})}; }

double psnr(const at::Tensor& a, const at::Tensor& b) {  // the range is 2
  return 10.0 * std::log10(4.0 / (a - b).square().mean().item<double>());
}

TEST(Codec, BasisIsOrthonormal) {
  const at::Tensor basis = dct_basis();
  ASSERT_EQ(basis.sizes(), (std::vector<int64_t>{64, 64}));
  // Sums of 64 products of numbers below 0.25: some 64 * 2^-53 off.
  EXPECT_LE(max_difference(at::matmul(basis.t(), basis), at::eye(64, at::kDouble)), 1e-14);
}

TEST(Codec, BasisRisesInFrequency) {
  const at::Tensor basis = dct_basis();
  EXPECT_LE(max_difference(basis.select(1, 0), at::full({64}, 0.125, at::kDouble)), 1e-15);
  // Sign changes along both axes: 0, then never fewer by more than a diagonal's spread.
  const at::Tensor positive = (basis > 0).to(at::kInt).view({8, 8, 64});
  const at::Tensor changes = positive.diff(1, 0).abs().sum(at::IntArrayRef({0, 1})).div(8.0) +
                             positive.diff(1, 1).abs().sum(at::IntArrayRef({0, 1})).div(8.0);
  for (int64_t i = 1; i < 64; ++i) {
    EXPECT_GE(changes[i].item<double>(), changes[i - 1].item<double>() - 1e-6) << i;
  }
}

TEST(Codec, GreyPatchIsItsFirstCoefficientAlone) {
  const at::Tensor latents = plain_codec().encode(at::full({1, 1, 8, 16, 3}, 0.5));
  ASSERT_EQ(latents.sizes(), (std::vector<int64_t>{1, 1, 1, 2, kLatentChannels}));
  at::Tensor wanted = at::zeros_like(latents);
  wanted.select(4, 0).fill_(0.5 * 8.0);  // 64 pixels of 0.5 by a basis of 1/8
  EXPECT_LE(max_difference(latents, wanted), 1e-5);
}

TEST(Codec, TokensAreThePatchesInRasterOrder) {
  at::Tensor pixels = at::zeros({1, 2, 16, 24, 3});
  pixels[0][1].narrow(0, 8, 8).narrow(1, 16, 8).fill_(1.0);  // frame 1, row 1, column 2
  const at::Tensor strong = plain_codec().encode(pixels).abs().amax(4).flatten() > 1e-3;
  EXPECT_TRUE(strong.nonzero().flatten().equal(at::tensor({1 * 6 + 1 * 3 + 2}, at::kLong)));
}

TEST(Codec, DecodingThenEncodingIsTheIdentity) {
  const Codec codec(at::linspace(-0.1, 0.1, kLatentChannels),
                    at::linspace(0.2, 0.05, kLatentChannels));
  const at::Tensor latents = gaussian_noise(3, {1, 2, 3, 4, kLatentChannels});
  const at::Tensor pixels = codec.decode(latents);
  ASSERT_LT(pixels.abs().max().item<double>(), 1.0) << "clamped: the test needs smaller latents";
  // fp32 sums of 33 and 192 terms, divided by deviations of 0.05 and more.
  EXPECT_LE(max_difference(codec.encode(pixels), latents), 1e-4);
}

TEST(Codec, ClipsSurviveTheRoundTrip) {
  const Codec codec = Codec::fit(render({1, 2, 3, 4}, View{{0, 10, 20}, 8, 12}, at::kCPU).pixels);
  for (const std::uint64_t seed : {100u, 101u, 102u, 103u}) {
    const at::Tensor pixels = render({seed}, View{{12}, 16, 24}, at::kCPU).pixels;
    EXPECT_GT(psnr(codec.decode(codec.encode(pixels)), pixels), 35.0) << "seed " << seed;
  }
}

TEST(Codec, FitWhitensItsOwnPixels) {
  const at::Tensor pixels = render({1, 2, 3, 4, 5, 6}, View{{0, 20}, 8, 12}, at::kCPU).pixels;
  const Codec codec = Codec::fit(pixels);
  const at::Tensor latents = codec.encode(pixels).flatten(0, 3);
  EXPECT_LE(max_difference(latents.mean(0), at::zeros({kLatentChannels})), 1e-4);
  const at::Tensor deviation = latents.std(0);
  EXPECT_LE(deviation.max().item<double>(), 1.0 + 1e-4);
  EXPECT_NEAR(deviation[0].item<double>(), 1.0, 1e-4);  // the strongest channel
}

TEST(Codec, RoundsPixelsToEightBits) {
  const at::Tensor pixels = at::tensor({-1.0, 1.0, 0.0, -2.0, 2.0, 1.0 / 127.5 - 1.0});
  EXPECT_EQ(to_rgb8(pixels), (std::vector<std::uint8_t>{0, 255, 128, 0, 255, 1}));
}

TEST(Codec, RefusesOtherShapes) {
  EXPECT_THROW(plain_codec().encode(at::zeros({1, 1, 9, 8, 3})), Error);
  EXPECT_THROW(plain_codec().encode(at::zeros({1, 8, 8, 3})), Error);
  EXPECT_THROW(plain_codec().decode(at::zeros({1, 1, 1, 1, 32})), Error);
  EXPECT_THROW(Codec(at::zeros({32}), at::ones({33})), Error);
}

}  // namespace
}  // namespace raingauge::demo
