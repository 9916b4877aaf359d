// SPDX-License-Identifier: Apache-2.0
#include "data/demo/scene.h"

#include <initializer_list>
#include <numbers>

#include "data/demo/random.h"

namespace raingauge::demo {
namespace {

// Motion is wide enough that repeating frame 0 is clearly wrong by the last frame, and narrow
// enough that most of the last frame was visible in the first.
constexpr double kMaxPan = 0.42, kMaxZoom = 0.22, kMaxRoll = 0.22, kMaxSpeed = 0.6;
constexpr double kMinRadius = 0.18, kMaxRadius = 0.36;
constexpr double kStillChance = 0.05, kFixedCameraChance = 0.10, kBounceChance = 0.3;
constexpr double kObjectChance = 0.5;  // of each object after the first
constexpr double kWorldBase = 0.45, kObjectBase = 0.8;

// Angular frequencies per half width: at 192 pixels 4 is a wave of 150 pixels and 22 one of 27.
// A token is 8 pixels: nothing is much finer than a token.
struct Band {
  int count;
  double low, high, amplitude;
};
constexpr Band kWorldCoarse{4, 4.0, 12.0, 0.20}, kWorldFine{2, 12.0, 22.0, 0.07};
constexpr Band kObjectBand{2, 6.0, 18.0, 0.22};

void add_waves(RandomStream& random, const Band& band, Texture& texture) {
  for (int i = 0; i < band.count; ++i) {
    const double frequency = random.uniform(band.low, band.high);
    const double angle = random.uniform(0.0, 2.0 * std::numbers::pi);
    Wave wave{.frequency_u = frequency * std::cos(angle),
              .frequency_v = frequency * std::sin(angle),
              .phase = random.uniform(0.0, 2.0 * std::numbers::pi),
              .colour = {}};
    for (double& channel : wave.colour) channel = band.amplitude * random.gaussian();
    texture.waves.push_back(wave);
  }
}

Texture draw_texture(RandomStream& random, double base, std::initializer_list<Band> bands) {
  Texture texture;
  for (double& channel : texture.base) channel = random.uniform(-base, base);
  for (const Band& band : bands) add_waves(random, band, texture);
  return texture;
}

SceneObject draw_object(RandomStream random, bool present, bool still) {
  SceneObject object;
  object.present = present;
  object.shape = static_cast<Shape>(random.below(3));
  object.bounces = random.chance(kBounceChance);
  object.x = random.uniform(-0.8, 0.8);
  object.y = random.uniform(-0.8, 0.8);
  object.velocity_x = still ? 0.0 : random.uniform(-kMaxSpeed, kMaxSpeed);
  object.velocity_y = still ? 0.0 : random.uniform(-kMaxSpeed, kMaxSpeed);
  object.radius = random.uniform(kMinRadius, kMaxRadius);
  object.texture = draw_texture(random, kObjectBase, {kObjectBand});
  return object;
}

std::array<float, kPromptFeatures> object_features(const SceneObject& object, int index,
                                                   double aspect) {
  std::array<float, kPromptFeatures> f{};
  f[10] = static_cast<float>(index) / kMaxObjects;
  if (!object.present) return f;
  f[0] = static_cast<float>(object.x);
  f[1] = static_cast<float>(object.y * aspect);
  f[2] = static_cast<float>(object.velocity_x / kMaxSpeed);
  f[3] = static_cast<float>(object.velocity_y / kMaxSpeed);
  f[4] = static_cast<float>((object.radius - kMinRadius) / (kMaxRadius - kMinRadius));
  f[5 + static_cast<std::size_t>(object.shape)] = 1.0f;
  f[8] = 1.0f;
  f[9] = object.bounces ? 1.0f : 0.0f;
  f[11] = 1.0f;
  return f;
}

}  // namespace

Scene draw_scene(std::uint64_t seed) {
  RandomStream random(seed, 0);
  Scene scene;
  const bool still = random.chance(kStillChance);
  const bool camera_moves = !random.chance(kFixedCameraChance) && !still;
  const double pan_x = random.uniform(-kMaxPan, kMaxPan);
  const double pan_y = random.uniform(-kMaxPan, kMaxPan);
  const double zoom = random.uniform(-kMaxZoom, kMaxZoom);
  const double roll = random.uniform(-kMaxRoll, kMaxRoll);
  if (camera_moves) {
    scene.pan_x = pan_x;
    scene.pan_y = pan_y;
    scene.zoom = zoom;
    scene.roll = roll;
  }
  scene.world = draw_texture(random, kWorldBase, {kWorldCoarse, kWorldFine});
  for (int i = 0; i < kMaxObjects; ++i) {
    const bool present = i == 0 || random.chance(kObjectChance);
    scene.objects[static_cast<std::size_t>(i)] =
        draw_object(RandomStream(seed, static_cast<std::uint64_t>(i) + 1), present, still);
  }
  return scene;
}

Prompt prompt_of(const Scene& scene, double aspect) {
  Prompt prompt{};
  auto& camera = prompt[0];
  camera[0] = static_cast<float>(scene.pan_x / kMaxPan);
  camera[1] = static_cast<float>(scene.pan_y / kMaxPan);
  camera[2] = static_cast<float>(scene.zoom / kMaxZoom);
  camera[3] = static_cast<float>(scene.roll / kMaxRoll);
  for (std::size_t c = 0; c < 3; ++c) {
    camera[4 + c] = static_cast<float>(scene.world.base[c] / kWorldBase);
  }
  camera[10] = 1.0f;
  for (int i = 0; i < kMaxObjects; ++i) {
    const auto index = static_cast<std::size_t>(i);
    prompt[index + 1] = object_features(scene.objects[index], i, aspect);
  }
  return prompt;
}

}  // namespace raingauge::demo
