// SPDX-License-Identifier: Apache-2.0
// Pixels to latents and back without training: an orthonormal 8x8 DCT of each token's patch in
// YCbCr, its lowest coefficients, whitened by a stored mean and deviation per channel.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace raingauge::demo {

inline constexpr int kLumaChannels = 21;
inline constexpr int kChromaChannels = 6;  // each of Cb and Cr
inline constexpr int kLatentChannels = kLumaChannels + 2 * kChromaChannels;

class Codec {
 public:
  Codec(at::Tensor mean, at::Tensor deviation);  // [33] each, fp32, on the device to work on

  // The statistics of `pixels`. Channels far weaker than the strongest are not blown up to unit
  // variance: their detail would cost the model capacity and hardly change a pixel.
  static Codec fit(const at::Tensor& pixels);

  at::Tensor encode(const at::Tensor& pixels) const;   // [B, F, Y, X, 3] -> [B, F, h, w, 33]
  at::Tensor decode(const at::Tensor& latents) const;  // the inverse, clamped to [-1, 1]

  const at::Tensor& mean() const { return mean_; }
  const at::Tensor& deviation() const { return deviation_; }

 private:
  at::Tensor mean_, deviation_;
  at::Tensor analysis_;   // [192, 33]
  at::Tensor synthesis_;  // [33, 192]
};

// The DCT basis that the codec keeps, [64, 64]: row = pixel (y * 8 + x), column = coefficient in
// order of rising frequency. Orthonormal.
at::Tensor dct_basis();

std::vector<std::uint8_t> to_rgb8(const at::Tensor& pixels);  // [-1, 1] -> 0 … 255, same order

}  // namespace raingauge::demo
