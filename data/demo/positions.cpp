// SPDX-License-Identifier: Apache-2.0
#include "data/demo/positions.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <numbers>

#include "data/demo/device.h"

namespace raingauge::demo {
namespace {

constexpr std::array<int, 3> kRopeDims{24, 20, 20};
// Grids have at most some 24 rows or columns; the usual 10,000 would leave half the pairs idle.
constexpr double kRopeBase = 100.0;
constexpr double kNormEpsilon = 1e-6;

// Coordinates of the video tokens along one axis, [F * h * w].
at::Tensor spread(const at::Tensor& values, int axis, const View& view) {
  std::array<int64_t, 3> shape{1, 1, 1};
  shape[static_cast<std::size_t>(axis)] = values.numel();
  return values.view(shape)
      .expand({static_cast<int64_t>(view.frames.size()), view.grid_h, view.grid_w})
      .reshape({-1});
}

at::Tensor rotation_of(const std::array<at::Tensor, 3>& index, const View& view) {
  std::vector<at::Tensor> angles;
  for (int axis = 0; axis < 3; ++axis) {
    const int pairs = kRopeDims[static_cast<std::size_t>(axis)] / 2;
    const at::Tensor& along = index[static_cast<std::size_t>(axis)];
    const at::Tensor frequency =
        at::pow(kRopeBase, at::arange(pairs, along.options()).div_(-static_cast<double>(pairs)));
    angles.push_back(spread(along, axis, view).unsqueeze(1) * frequency);
  }
  const at::Tensor video = at::cat(angles, 1);
  const at::Tensor text = at::zeros({kTextTokens, kHeadDim / 2}, video.options());
  const at::Tensor all = at::cat({video, text}, 0);
  return at::complex(at::cos(all), at::sin(all)).view({1, -1, 1, kHeadDim / 2});
}

at::Tensor features_of(const std::array<at::Tensor, 3>& place, const View& view) {
  std::vector<at::Tensor> features;
  for (int axis = 0; axis < 3; ++axis) {
    const at::Tensor value = spread(place[static_cast<std::size_t>(axis)], axis, view);
    features.push_back(value);
    for (const double octave : {0.5, 1.0, 2.0, 4.0}) {
      features.push_back(at::sin(value * (octave * std::numbers::pi)));
      features.push_back(at::cos(value * (octave * std::numbers::pi)));
    }
  }
  return at::stack(features, 1);
}

}  // namespace

Positions make_positions(const View& view, at::Device device) {
  const auto options = at::device(device).dtype(at::kFloat);
  const at::Tensor frame =
      upload(std::vector<float>(view.frames.begin(), view.frames.end()), device);
  const at::Tensor row = at::arange(view.grid_h, options);
  const at::Tensor column = at::arange(view.grid_w, options);
  const double aspect = static_cast<double>(view.grid_h) / view.grid_w;
  return {.rotation = rotation_of({frame, row, column}, view),
          .features = features_of(
              {frame / (kTimelineFrames - 1.0), ((row * 2 + 1) / view.grid_h - 1) * aspect,
               (column * 2 + 1) / view.grid_w - 1},
              view)};
}

at::Tensor normalise_and_rotate(const at::Tensor& x, const at::Tensor& rotation) {
  const at::Tensor unit = at::rms_norm(x.to(at::kFloat), {kHeadDim}, {}, kNormEpsilon);
  const at::Tensor pairs =
      at::view_as_complex(unit.reshape({x.size(0), x.size(1), x.size(2), kHeadDim / 2, 2}));
  return at::view_as_real(pairs * rotation).flatten(-2);
}

}  // namespace raingauge::demo
