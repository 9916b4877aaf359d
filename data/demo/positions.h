// SPDX-License-Identifier: Apache-2.0
// Where the tokens of a sequence are: rotary angles and position features.
#pragma once

#include <ATen/core/Tensor.h>

#include "data/demo/renderer.h"

namespace raingauge::demo {

inline constexpr int kRegisters = 3;
inline constexpr int kTextTokens = kPromptTokens + kRegisters;  // after the video tokens
inline constexpr int kHeadDim = 64;
inline constexpr int kPositionFeatures = 27;

struct Positions {
  // exp(i * angle), [1, N, 1, 32], complex: 3D RoPE over (frame, row, column) with 24, 20 and 20
  // dimensions in interleaved pairs. Frames count on the 21-frame timeline, whatever subset is
  // present. The text tokens, last, are not rotated.
  at::Tensor rotation;
  // [video tokens, 27]: time and place as the scenes measure them, and their sines and cosines.
  at::Tensor features;
};

Positions make_positions(const View& view, at::Device device);

// The unit vectors of x [B, N, H, 64] (RMS over a head = 1), with each pair turned by `rotation`
// [1, N, H or 1, 32], whose modulus is a gain.
at::Tensor normalise_and_rotate(const at::Tensor& x, const at::Tensor& rotation);

}  // namespace raingauge::demo
