// SPDX-License-Identifier: Apache-2.0
// Which tokens of a sequence are text, image or video, and the grid each visual run lies on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace raingauge {

enum class Role { text, image, video, reference, pad };

std::string_view name_of(Role role);
Role parse_role(std::string_view name);  // throws Error naming the allowed ones

// A run of tokens of one role. Visual roles are raster ordered on frames x height x width
// (index t*h*w + y*w + x); text and pad have frames = height = width = 0.
struct Segment {
  Role role = Role::video;
  std::int64_t start = 0;
  std::int64_t length = 0;
  int frames = 0;
  int height = 0;
  int width = 0;

  std::int64_t end() const { return start + length; }
  std::int64_t frame_size() const { return std::int64_t{height} * width; }
  bool visual() const {
    return role == Role::video || role == Role::image || role == Role::reference;
  }
  friend bool operator==(const Segment&, const Segment&) = default;
};

using Segments = std::vector<Segment>;

// Throws Error (prefixed by `where`) unless the segments are in sequence order, cover exactly
// `tokens` tokens, and every visual grid multiplies to its length.
void check_segments(const Segments& segments, std::int64_t tokens, const std::string& where);

// "video 21x16x24 + text 8": for messages and listings.
std::string describe(const Segments& segments);

std::int64_t count_tokens(const Segments& segments, Role role);

}  // namespace raingauge
