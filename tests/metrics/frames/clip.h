// SPDX-License-Identifier: Apache-2.0
// What the tests of frame metrics share: clips with known bytes, and what a metric says of two.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "data/error.h"
#include "metrics/frames/registry.h"

namespace raingauge::clip_fixture {

struct Clip {
  int frames, height, width;
  std::vector<std::uint8_t> rgb;

  ClipView view(double fps = 16.0) const { return {rgb.data(), frames, height, width, fps}; }
  std::size_t index(int t, int y, int x, int c) const {
    return ((static_cast<std::size_t>(t) * static_cast<std::size_t>(height) +
             static_cast<std::size_t>(y)) *
                static_cast<std::size_t>(width) +
            static_cast<std::size_t>(x)) *
               3 +
           static_cast<std::size_t>(c);
  }
  std::uint8_t& at(int t, int y, int x, int c) { return rgb[index(t, y, x, c)]; }
  std::uint8_t at(int t, int y, int x, int c) const { return rgb[index(t, y, x, c)]; }
};

inline Clip flat(int frames, int height, int width, std::uint8_t value) {
  Clip clip{frames, height, width, {}};
  clip.rgb.assign(clip.index(frames, 0, 0, 0), value);
  return clip;
}

// A smooth pattern plus a hashed offset in [-noise, noise], clamped: the same integers as the
// Python that made the golden numbers.
inline Clip pattern(int frames, int height, int width, int noise) {
  Clip clip{frames, height, width, {}};
  std::uint64_t index = 0;
  for (int t = 0; t < frames; ++t)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        for (int c = 0; c < 3; ++c, ++index) {
          auto hash = static_cast<std::uint32_t>(index * 2654435761ULL + 12345ULL);
          hash ^= hash >> 15U;
          hash *= 2246822519U;
          hash ^= hash >> 13U;
          const int offset = static_cast<int>(hash % static_cast<unsigned>(2 * noise + 1)) - noise;
          const int base = (7 * t + 3 * y + 5 * x + 40 * c + x * y / 16) % 256;
          clip.rgb.push_back(static_cast<std::uint8_t>(std::clamp(base + offset, 0, 255)));
        }
  return clip;
}

// A smooth texture that moves by (u, v) pixels a frame, sampled exactly at any sub-pixel position.
inline Clip moving(int frames, int height, int width, double u, double v) {
  Clip clip = flat(frames, height, width, 0);
  for (int t = 0; t < frames; ++t)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        for (int c = 0; c < 3; ++c) {
          const double px = x - u * t;
          const double py = y - v * t;
          const double value = 128.0 + 40.0 * std::sin(0.31 * px + 0.13 * py + c) +
                               35.0 * std::cos(0.23 * py - 0.17 * px) +
                               25.0 * std::sin(0.071 * px * 1.3 + 0.47 * py);
          clip.at(t, y, x, c) =
              static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
        }
  return clip;
}

inline FrameScore score(const std::string& name, const Clip& reference, const Clip& test,
                        int threads = 1) {
  return score_frames(find_frame_metric(name), reference.view(), test.view(), threads);
}

// What scoring is refused with; "" when it is not.
inline std::string message_of(const std::string& name, const Clip& reference, const Clip& test) {
  try {
    score(name, reference, test);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace raingauge::clip_fixture
