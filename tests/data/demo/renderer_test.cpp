// SPDX-License-Identifier: Apache-2.0
#include "data/demo/renderer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/error.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

// Phases reach some 60 radians; fp32 knows them to 60 * 2^-24, and a pixel sums a dozen waves. A
// level of 8 bits is 1/127.5 = 8e-3.
constexpr double kPixelTolerance = 2e-4;

// The picture by its definition, in double, one pixel at a time.
class Pixel {
 public:
  Pixel(const Scene& scene, double aspect, double pixels_per_unit)
      : scene_(scene), aspect_(aspect), pixels_per_unit_(pixels_per_unit) {}

  std::array<double, 3> at(double x, double y, double time) const {
    const double scale = std::exp(scene_.zoom * time), roll = scene_.roll * time;
    const double c = std::cos(roll) * scale, s = std::sin(roll) * scale;
    auto colour = value(scene_.world, c * x - s * y + scene_.pan_x * time,
                        s * x + c * y + scene_.pan_y * time);
    for (const SceneObject& object : scene_.objects) {
      if (object.present) cover(object, x, y, time, colour);
    }
    for (double& channel : colour) channel = std::clamp(channel, -1.0, 1.0);
    return colour;
  }

 private:
  static std::array<double, 3> value(const Texture& texture, double u, double v) {
    auto colour = texture.base;
    for (const Wave& wave : texture.waves) {
      const double height = std::sin(u * wave.frequency_u + v * wave.frequency_v + wave.phase);
      for (std::size_t c = 0; c < 3; ++c) colour[c] += wave.colour[c] * height;
    }
    return colour;
  }

  static double moved(double start, double velocity, double time, bool bounces, double limit) {
    double place = start + velocity * time;
    while (bounces && std::abs(place) > limit) {
      place = std::copysign(2.0 * limit, place) - place;  // mirrored at the edge
    }
    return place;
  }

  void cover(const SceneObject& o, double x, double y, double time,
             std::array<double, 3>& colour) const {
    const double dx = x - moved(o.x, o.velocity_x, time, o.bounces, 1.0);
    const double dy = y - moved(o.y * aspect_, o.velocity_y, time, o.bounces, aspect_);
    const double round = std::hypot(dx, dy);
    double distance = round - o.radius;
    if (o.shape == Shape::box) distance = std::max(std::abs(dx), std::abs(dy)) - o.radius;
    // A band of half width 0.35 radius around 0.65 radius.
    if (o.shape == Shape::ring) distance = std::abs(round - 0.65 * o.radius) - 0.35 * o.radius;
    const double share = 1.0 / (1.0 + std::exp(0.35 * pixels_per_unit_ * distance));
    const auto texture = value(o.texture, dx, dy);
    for (std::size_t c = 0; c < 3; ++c) colour[c] += share * (texture[c] - colour[c]);
  }

  const Scene& scene_;
  double aspect_, pixels_per_unit_;
};

TEST(Renderer, DrawsWhatTheSceneSays) {
  const View view{{0, 7, 20}, 4, 6};
  const int height = 32, width = 48;
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    const Scene scene = draw_scene(seed);
    const Pixel pixel(scene, 4.0 / 6.0, width / 2.0);
    const at::Tensor image = render({seed}, view, at::kCPU).pixels;
    ASSERT_EQ(image.sizes(), (std::vector<int64_t>{1, 3, height, width, 3}));
    double worst = 0;
    for (std::size_t f = 0; f < view.frames.size(); ++f) {
      const at::Tensor frame = image[0][static_cast<int64_t>(f)].contiguous();
      const float* got = frame.const_data_ptr<float>();
      for (int y = 0; y < height; y += 5) {
        for (int x = 0; x < width; x += 3) {
          const auto wanted =
              pixel.at(-1.0 + 2.0 * x / (width - 1), (-1.0 + 2.0 * y / (height - 1)) * 4.0 / 6.0,
                       view.frames[f] / 20.0);
          for (int c = 0; c < 3; ++c) {
            const double error =
                std::abs(got[(y * width + x) * 3 + c] - wanted[static_cast<std::size_t>(c)]);
            if (!(error <= worst)) worst = error;
          }
        }
      }
    }
    EXPECT_LE(worst, kPixelTolerance) << "seed " << seed;
  }
}

TEST(Renderer, TheScenesAboveCoverEveryKind) {
  int shapes[3] = {}, bouncing = 0, absent = 0, still = 0;
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    const Scene scene = draw_scene(seed);
    still += scene.pan_x == 0.0 ? 1 : 0;
    for (const SceneObject& object : scene.objects) {
      absent += object.present ? 0 : 1;
      if (!object.present) continue;
      ++shapes[static_cast<int>(object.shape)];
      bouncing += object.bounces ? 1 : 0;
    }
  }
  for (const int count : {shapes[0], shapes[1], shapes[2], bouncing, absent, still}) {
    EXPECT_GT(count, 0);
  }
}

TEST(Renderer, SameSeedSamePixels) {
  const View view = full_view(3, 4, 6);
  const Rendered a = render({11, 12}, view, at::kCPU), b = render({11, 12}, view, at::kCPU);
  EXPECT_TRUE(a.pixels.equal(b.pixels));
  EXPECT_TRUE(a.prompt.equal(b.prompt));
  EXPECT_FALSE(a.pixels[0].equal(a.pixels[1]));
}

TEST(Renderer, FrameAloneIsThatFrameOfTheClip) {
  const at::Tensor clip = render({11, 12}, full_view(21, 4, 6), at::kCPU).pixels;
  for (const int frame : {0, 1, 13, 20}) {
    const at::Tensor alone = render({12}, View{{frame}, 4, 6}, at::kCPU).pixels;
    EXPECT_LE(max_difference(alone[0][0], clip[1][frame]), kPixelTolerance) << frame;
  }
}

TEST(Renderer, HeldOutBitIsAnotherScene) {
  const Scene training = draw_scene(3), held_out = draw_scene(3 | kHeldOutBit);
  EXPECT_NE(training.world.base, held_out.world.base);
}

TEST(Renderer, PromptTellsTheSceneInTermsOfItsRanges) {
  const Scene scene = draw_scene(7);
  const Prompt prompt = prompt_of(scene, 0.5);
  const at::Tensor rendered = render({7}, full_view(1, 2, 4), at::kCPU).prompt;
  ASSERT_EQ(rendered.sizes(), (std::vector<int64_t>{1, kPromptTokens, kPromptFeatures}));
  for (int token = 0; token < kPromptTokens; ++token) {
    for (int i = 0; i < kPromptFeatures; ++i) {
      const float value = prompt[static_cast<std::size_t>(token)][static_cast<std::size_t>(i)];
      EXPECT_EQ(rendered[0][token][i].item<float>(), value);
      EXPECT_LE(std::abs(value), 1.0f);
    }
  }
  EXPECT_FLOAT_EQ(prompt[1][0], static_cast<float>(scene.objects[0].x));
  EXPECT_FLOAT_EQ(prompt[1][1], static_cast<float>(scene.objects[0].y * 0.5));
}

TEST(Renderer, RefusesFramesOutsideTheTimeline) {
  EXPECT_THROW(render({1}, View{{0, 21}, 2, 2}, at::kCPU), Error);
  EXPECT_THROW(render({1}, View{{-1}, 2, 2}, at::kCPU), Error);
  EXPECT_THROW(render({}, full_view(2, 2, 2), at::kCPU), Error);
  EXPECT_THROW(render({1}, full_view(0, 2, 2), at::kCPU), Error);
  EXPECT_THROW(render({1}, full_view(2, 0, 2), at::kCPU), Error);
}

}  // namespace
}  // namespace raingauge::demo
