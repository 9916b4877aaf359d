// SPDX-License-Identifier: Apache-2.0
#include "data/demo/renderer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <numeric>

#include "data/demo/device.h"
#include "data/error.h"

namespace raingauge::demo {
namespace {

constexpr double kEdgeSoftness = 0.35;  // slope of an object's edge, per pixel

// A batch of scenes as one matrix on the device, a row a scene, written and read in one order:
// camera, world texture, then each object's geometry and texture.
class SceneTable {
 public:
  SceneTable(const std::vector<Scene>& scenes, at::Device device) {
    for (const Scene& scene : scenes) append(scene);
    table_ = upload(values_, device).view({static_cast<int64_t>(scenes.size()), -1});
    waves_in_world = scenes.front().world.waves.size();
    waves_in_object = scenes.front().objects.front().texture.waves.size();
  }

  at::Tensor next() { return table_.narrow(1, cursor_++, 1).view({-1, 1, 1, 1}); }
  at::Tensor next_colour() {  // [B, 1, 3, 1, 1]
    cursor_ += 3;
    return table_.narrow(1, cursor_ - 3, 3).view({-1, 1, 3, 1, 1});
  }

  std::size_t waves_in_world = 0, waves_in_object = 0;

 private:
  void append(double value) { values_.push_back(static_cast<float>(value)); }

  void append(const Texture& texture) {
    for (const double channel : texture.base) append(channel);
    for (const Wave& wave : texture.waves) {
      append(wave.frequency_u);
      append(wave.frequency_v);
      append(wave.phase);
      for (const double channel : wave.colour) append(channel);
    }
  }

  void append(const SceneObject& o) {
    for (const double value : {o.x, o.velocity_x, o.y, o.velocity_y, o.radius}) append(value);
    append(static_cast<double>(o.shape));
    append(o.bounces ? 1.0 : 0.0);
    append(o.present ? 1.0 : 0.0);
    append(o.texture);
  }

  void append(const Scene& scene) {
    for (const double value : {scene.zoom, scene.roll, scene.pan_x, scene.pan_y}) append(value);
    append(scene.world);
    for (const SceneObject& object : scene.objects) append(object);
  }

  std::vector<float> values_;
  at::Tensor table_;  // [B, values a scene]
  int64_t cursor_ = 0;
};

// Planes are [B, F, Y, X], images [B, F, 3, Y, X].
class Painter {
 public:
  Painter(const std::vector<Scene>& scenes, const View& view, at::Device device)
      : table_(scenes, device) {
    const auto options = at::device(device).dtype(at::kFloat);
    const int64_t height = view.grid_h * kPatch;
    const int64_t width = view.grid_w * kPatch;
    pixels_per_unit_ = static_cast<double>(width) / 2.0;
    aspect_ = static_cast<double>(height) / static_cast<double>(width);
    x_ = at::linspace(-1.0, 1.0, width, options).view({1, 1, 1, width});
    y_ = at::linspace(-aspect_, aspect_, height, options).view({1, 1, height, 1});
    std::vector<float> times;
    for (const int f : view.frames) times.push_back(static_cast<float>(f) / (kTimelineFrames - 1));
    time_ = upload(times, device).view({1, -1, 1, 1});
  }

  at::Tensor paint() {
    at::Tensor image = paint_world();
    for (int i = 0; i < kMaxObjects; ++i) paint_object(image);
    return image.clamp_(-1.0, 1.0);
  }

 private:
  at::Tensor paint_world() {
    const at::Tensor scale = at::exp(table_.next() * time_);
    const at::Tensor roll = table_.next() * time_;
    const at::Tensor c = at::cos(roll) * scale;
    const at::Tensor s = at::sin(roll) * scale;
    const at::Tensor shift_x = table_.next() * time_;
    const at::Tensor shift_y = table_.next() * time_;
    return textured((x_ * c + shift_x).sub(y_ * s), (y_ * c + shift_y).add(x_ * s),
                    table_.waves_in_world);
  }

  void paint_object(at::Tensor& image) {
    const at::Tensor start_x = table_.next(), velocity_x = table_.next();
    const at::Tensor start_y = table_.next() * aspect_, velocity_y = table_.next();
    const at::Tensor radius = table_.next(), shape = table_.next(), bounces = table_.next();
    const at::Tensor dx = x_ - moved(start_x, velocity_x, bounces, 1.0);
    const at::Tensor dy = y_ - moved(start_y, velocity_y, bounces, aspect_);
    const at::Tensor cover = coverage(dx, dy, radius, shape).mul_(table_.next());
    image.lerp_(textured(dx, dy, table_.waves_in_object), cover.unsqueeze(2));
  }

  at::Tensor textured(const at::Tensor& u, const at::Tensor& v, std::size_t waves) {
    at::Tensor image = table_.next_colour();
    for (std::size_t k = 0; k < waves; ++k) {
      const at::Tensor frequency_u = table_.next(), frequency_v = table_.next();
      at::Tensor plane = at::addcmul(u * frequency_u, v, frequency_v);
      plane.add_(table_.next()).sin_();
      image = at::addcmul(image, plane.unsqueeze(2), table_.next_colour());
    }
    return image;
  }

  // A triangle wave folds the path into [-limit, limit], where an object bounces.
  at::Tensor moved(const at::Tensor& start, const at::Tensor& velocity, const at::Tensor& bounces,
                   double limit) const {
    const at::Tensor straight = start + velocity * time_;
    const at::Tensor phase = at::remainder(straight + limit, 4.0 * limit);
    return at::where(bounces > 0.5, limit - (phase - 2.0 * limit).abs(), straight);
  }

  at::Tensor coverage(const at::Tensor& dx, const at::Tensor& dy, const at::Tensor& radius,
                      const at::Tensor& shape) const {
    const at::Tensor round = at::addcmul(dx * dx, dy, dy).sqrt_();
    const at::Tensor square = at::maximum(dx.abs(), dy.abs());
    const at::Tensor hollow = (round - radius * 0.65).abs_().add_(radius * 0.65);
    const at::Tensor distance =
        at::where(shape < 0.5, round, at::where(shape < 1.5, square, hollow)) - radius;
    return at::sigmoid(distance * (-kEdgeSoftness * pixels_per_unit_));
  }

  SceneTable table_;
  double pixels_per_unit_ = 0;
  double aspect_ = 0;  // height / width: the picture's lower edge
  at::Tensor x_, y_, time_;
};

void check(const std::vector<std::uint64_t>& seeds, const View& view) {
  if (seeds.empty() || view.frames.empty() || view.grid_h < 1 || view.grid_w < 1) {
    throw Error("render: needs at least one seed, one frame and a grid of at least 1x1 tokens");
  }
  for (const int f : view.frames) {
    if (f < 0 || f >= kTimelineFrames) {
      throw Error("render: frame " + std::to_string(f) + " is outside the timeline 0 … " +
                  std::to_string(kTimelineFrames - 1));
    }
  }
}

}  // namespace

View full_view(int frames, int grid_h, int grid_w) {
  View view{std::vector<int>(static_cast<std::size_t>(frames)), grid_h, grid_w};
  std::iota(view.frames.begin(), view.frames.end(), 0);
  return view;
}

Rendered render(const std::vector<std::uint64_t>& seeds, const View& view, at::Device device) {
  check(seeds, view);
  const c10::NoGradGuard no_grad;
  std::vector<Scene> scenes;
  std::vector<float> prompt;
  const double aspect = static_cast<double>(view.grid_h) / view.grid_w;
  for (const std::uint64_t seed : seeds) {
    scenes.push_back(draw_scene(seed));
    for (const auto& token : prompt_of(scenes.back(), aspect)) {
      prompt.insert(prompt.end(), token.begin(), token.end());
    }
  }
  return {.pixels = Painter(scenes, view, device).paint().permute({0, 1, 3, 4, 2}),
          .prompt = upload(prompt, device).view({-1, kPromptTokens, kPromptFeatures})};
}

}  // namespace raingauge::demo
