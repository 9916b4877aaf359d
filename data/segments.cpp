// SPDX-License-Identifier: Apache-2.0
// Which tokens of a sequence are text, image or video: names, checks, one-line descriptions.
#include "data/segments.h"

#include <array>
#include <limits>
#include <utility>

#include "data/error.h"

namespace raingauge {
namespace {

constexpr std::array<std::pair<Role, std::string_view>, 5> kRoles{{
    {Role::text, "text"},
    {Role::image, "image"},
    {Role::video, "video"},
    {Role::reference, "reference"},
    {Role::pad, "pad"},
}};

// frames * height * width, or -1 when a factor is not positive or the product leaves int64.
std::int64_t grid_size(const Segment& segment) {
  if (segment.frames <= 0 || segment.height <= 0 || segment.width <= 0) return -1;
  const std::int64_t frame = segment.frame_size();
  if (frame > std::numeric_limits<std::int64_t>::max() / segment.frames) return -1;
  return frame * segment.frames;
}

std::string grid_text(const Segment& segment) {
  return std::to_string(segment.frames) + "x" + std::to_string(segment.height) + "x" +
         std::to_string(segment.width);
}

void check_grid(const Segment& segment, const std::string& place) {
  if (segment.visual()) {
    if (grid_size(segment) != segment.length) {
      throw Error(place + ": a grid of " + grid_text(segment) +
                  " (frames x height x width) does not multiply to its length " +
                  std::to_string(segment.length) +
                  "; visual segments need a positive grid with exactly that many tokens");
    }
  } else if (segment.frames != 0 || segment.height != 0 || segment.width != 0) {
    throw Error(place + ": got a grid of " + grid_text(segment) +
                "; text and pad segments must have frames = height = width = 0");
  }
}

}  // namespace

std::string_view name_of(Role role) {
  for (const auto& [value, name] : kRoles) {
    if (value == role) return name;
  }
  throw Error("segment role " + std::to_string(static_cast<int>(role)) + " is not one of the five");
}

Role parse_role(std::string_view name) {
  for (const auto& [value, known] : kRoles) {
    if (known == name) return value;
  }
  throw Error("unknown segment role `" + std::string(name) +
              "`: allowed are text, image, video, reference, pad");
}

void check_segments(const Segments& segments, std::int64_t tokens, const std::string& where) {
  if (segments.empty()) {
    throw Error(where + ": no segments; at least one must cover the " + std::to_string(tokens) +
                " tokens, without them nothing tells video from text");
  }
  std::int64_t expected = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    const std::string place =
        where + ": segment " + std::to_string(i) + " (" + std::string(name_of(segment.role)) + ")";
    if (segment.start != expected) {
      throw Error(place + " starts at token " + std::to_string(segment.start) + " instead of " +
                  std::to_string(expected) +
                  "; segments must follow each other without gap or overlap, in sequence order");
    }
    if (segment.length <= 0 || segment.length > tokens - expected) {
      throw Error(place + " has length " + std::to_string(segment.length) + "; allowed are 1 to " +
                  std::to_string(tokens - expected) + ", the tokens left of " +
                  std::to_string(tokens));
    }
    check_grid(segment, place);
    expected = segment.end();
  }
  if (expected != tokens) {
    throw Error(where + ": the segments cover " + std::to_string(expected) +
                " tokens, but there are " + std::to_string(tokens) +
                "; every token needs a segment (use role pad for padding)");
  }
}

std::string describe(const Segments& segments) {
  std::string text;
  for (const Segment& segment : segments) {
    if (!text.empty()) text += " + ";
    text += name_of(segment.role);
    text += " ";
    text += segment.visual() ? grid_text(segment) : std::to_string(segment.length);
  }
  return text;
}

std::int64_t count_tokens(const Segments& segments, Role role) {
  std::int64_t count = 0;
  for (const Segment& segment : segments) {
    if (segment.role == role) count += segment.length;
  }
  return count;
}

}  // namespace raingauge
