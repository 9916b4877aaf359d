// SPDX-License-Identifier: Apache-2.0
#include "data/demo/codec.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "data/demo/renderer.h"
#include "data/error.h"

namespace raingauge::demo {
namespace {

constexpr int kPixels = kPatch * kPatch;
constexpr double kWeakest = 0.04;  // least deviation, relative to the strongest channel's

// BT.601, full range, no offset: rows Y, Cb, Cr.
at::Tensor colour_matrix() {
  return at::tensor({0.299, 0.587, 0.114, -0.168736, -0.331264, 0.5, 0.5, -0.418688, -0.081312},
                    at::kDouble)
      .view({3, 3});
}

// [192, 33]: the matrix on a patch stored as (y, x, channel). `colour` is the [3, 3] matrix used
// for the luma and chroma rows.
at::Tensor patch_matrix(const at::Tensor& colour) {
  const at::Tensor basis = dct_basis();
  constexpr std::array<int, 3> kKept{kLumaChannels, kChromaChannels, kChromaChannels};
  std::vector<at::Tensor> columns;
  for (std::size_t c = 0; c < 3; ++c) {
    const at::Tensor waves = basis.narrow(1, 0, kKept[c]);                 // [64, kept]
    const at::Tensor weights = colour.select(0, static_cast<int64_t>(c));  // [3]
    columns.push_back((waves.unsqueeze(1) * weights.view({1, 3, 1})).flatten(0, 1));
  }
  return at::cat(columns, 1);
}

at::Tensor to_patches(const at::Tensor& pixels) {  // -> [B, F, h, w, 192]
  if (pixels.dim() != 5 || pixels.size(4) != 3 || pixels.size(2) % kPatch != 0 ||
      pixels.size(3) % kPatch != 0) {
    throw Error("codec: pixels must be [B, F, Y, X, 3] with Y and X multiples of 8");
  }
  const int64_t b = pixels.size(0), f = pixels.size(1);
  const int64_t h = pixels.size(2) / kPatch, w = pixels.size(3) / kPatch;
  return pixels.reshape({b, f, h, kPatch, w, kPatch, 3})
      .permute({0, 1, 2, 4, 3, 5, 6})
      .reshape({b, f, h, w, kPixels * 3});
}

}  // namespace

at::Tensor dct_basis() {
  std::vector<std::pair<int, int>> order;
  for (int i = 0; i < kPatch; ++i) {
    for (int j = 0; j < kPatch; ++j) order.emplace_back(i, j);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first + a.second < b.first + b.second;
  });
  const auto wave = [](int k, int p) {
    const double scale = std::sqrt((k == 0 ? 1.0 : 2.0) / kPatch);
    return scale * std::cos(std::numbers::pi * (p + 0.5) * k / kPatch);
  };
  std::vector<double> basis;
  for (int y = 0; y < kPatch; ++y) {
    for (int x = 0; x < kPatch; ++x) {
      for (const auto& [i, j] : order) basis.push_back(wave(i, y) * wave(j, x));
    }
  }
  return at::tensor(basis, at::kDouble).view({kPixels, kPixels});
}

Codec::Codec(at::Tensor mean, at::Tensor deviation)
    : mean_(std::move(mean)), deviation_(std::move(deviation)) {
  if (mean_.numel() != kLatentChannels || deviation_.numel() != kLatentChannels) {
    throw Error("codec: mean and deviation must hold 33 channels each");
  }
  const at::Tensor colour = colour_matrix();
  const auto options = mean_.options().dtype(at::kFloat);
  analysis_ = patch_matrix(colour).to(options);
  synthesis_ = patch_matrix(at::linalg_inv(colour).t().contiguous()).t().contiguous().to(options);
}

Codec Codec::fit(const at::Tensor& pixels) {
  const c10::NoGradGuard no_grad;
  const auto options = pixels.options().dtype(at::kFloat);
  const Codec raw(at::zeros({kLatentChannels}, options), at::ones({kLatentChannels}, options));
  const at::Tensor latents = raw.encode(pixels).flatten(0, 3);
  const at::Tensor deviation = latents.std(0);
  const double floor = kWeakest * deviation.max().item<double>();
  return Codec(latents.mean(0), deviation.clamp_min(std::max(floor, 1e-3)));
}

at::Tensor Codec::encode(const at::Tensor& pixels) const {
  return at::matmul(to_patches(pixels), analysis_).sub_(mean_).div_(deviation_);
}

at::Tensor Codec::decode(const at::Tensor& latents) const {
  if (latents.dim() != 5 || latents.size(4) != kLatentChannels) {
    throw Error("codec: latents must be [B, F, h, w, 33]");
  }
  const int64_t b = latents.size(0), f = latents.size(1), h = latents.size(2), w = latents.size(3);
  const at::Tensor patches = at::matmul(latents * deviation_ + mean_, synthesis_);
  return patches.view({b, f, h, w, kPatch, kPatch, 3})
      .permute({0, 1, 2, 4, 3, 5, 6})
      .reshape({b, f, h * kPatch, w * kPatch, 3})
      .clamp_(-1.0, 1.0);
}

std::vector<std::uint8_t> to_rgb8(const at::Tensor& pixels) {
  const at::Tensor bytes =
      ((pixels + 1.0) * 127.5).round().clamp(0.0, 255.0).to(at::kByte).cpu().contiguous();
  const auto* first = bytes.const_data_ptr<std::uint8_t>();
  return {first, first + bytes.numel()};
}

}  // namespace raingauge::demo
