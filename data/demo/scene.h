// SPDX-License-Identifier: Apache-2.0
// One procedural scene: a textured world seen by a moving camera, and up to four moving objects.
// Lengths are half widths of the picture (its left edge is -1, its right edge 1), angles radians,
// velocities per clip: the 21-frame timeline runs from time 0 to time 1.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace raingauge::demo {

inline constexpr int kTimelineFrames = 21;
inline constexpr int kMaxObjects = 4;
inline constexpr int kPromptTokens = 1 + kMaxObjects;  // camera, then the objects
inline constexpr int kPromptFeatures = 12;

// Training draws seeds with this bit clear, evaluation with this bit set: no clip is in both.
inline constexpr std::uint64_t kHeldOutBit = 1ull << 63;

// colour * sin(u * frequency_u + v * frequency_v + phase)
struct Wave {
  double frequency_u = 0, frequency_v = 0, phase = 0;
  std::array<double, 3> colour{};
};

struct Texture {
  std::array<double, 3> base{};
  std::vector<Wave> waves;
};

enum class Shape { disc, box, ring };

struct SceneObject {
  bool present = false;
  Shape shape = Shape::disc;
  bool bounces = false;  // off the picture's edges
  double x = 0, y = 0;   // centre at time 0; y in half heights
  double velocity_x = 0, velocity_y = 0;
  double radius = 0;
  Texture texture;
};

struct Scene {
  double pan_x = 0, pan_y = 0, zoom = 0, roll = 0;  // at time 1; the scale is exp(zoom * time)
  Texture world;
  std::array<SceneObject, kMaxObjects> objects;  // later ones cover earlier ones
};

Scene draw_scene(std::uint64_t seed);

// What the model is told, every feature of the order of 1: the camera's token, then one an object
// (all zero but its index where absent). `aspect` = height / width.
using Prompt = std::array<std::array<float, kPromptFeatures>, kPromptTokens>;
Prompt prompt_of(const Scene& scene, double aspect);

}  // namespace raingauge::demo
