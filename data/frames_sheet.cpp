// SPDX-License-Identifier: Apache-2.0
// Pictures of clips for reports: differences, and one image of several clips.
#include <algorithm>
#include <cstdlib>

#include "data/error.h"
#include "data/frames.h"

namespace raingauge {
namespace {

std::string shape_text(const Frames& frames) {
  return std::to_string(frames.frames) + " frames of " + std::to_string(frames.width) + "x" +
         std::to_string(frames.height);
}

}  // namespace

Frames difference_frames(const Frames& reference, const Frames& test, int gain) {
  check_frames(reference, "difference of frames");
  check_frames(test, "difference of frames");
  if (reference.frames != test.frames || reference.height != test.height ||
      reference.width != test.width) {
    throw Error("difference of frames: the clips have " + shape_text(reference) + " and " +
                shape_text(test));
  }
  if (gain < 1 || gain > 255) throw Error("difference of frames: the gain must be in 1 … 255");
  Frames result = reference;
  for (std::size_t i = 0; i < result.rgb.size(); ++i) {
    const int error = std::abs(int{reference.rgb[i]} - int{test.rgb[i]});
    result.rgb[i] = static_cast<std::uint8_t>(std::min(255, gain * error));
  }
  return result;
}

Frames crop_frame(const Frames& frames, std::int64_t frame, std::int64_t x, std::int64_t y,
                  std::int64_t width, std::int64_t height, int zoom) {
  check_frames(frames, "crop");
  const bool inside = frame >= 0 && frame < frames.frames && x >= 0 && y >= 0 && width >= 1 &&
                      height >= 1 && width <= frames.width - x && height <= frames.height - y;
  if (!inside || zoom < 1 || zoom > 64) {
    throw Error("crop: " + std::to_string(width) + "x" + std::to_string(height) +
                " pixels from column " + std::to_string(x) + ", row " + std::to_string(y) +
                " of frame " + std::to_string(frame) + ", enlarged " + std::to_string(zoom) +
                " times; the clip has " + shape_text(frames) + ", enlarging goes from 1 to 64");
  }
  Frames crop{1, height * zoom, width * zoom, {}};
  crop.rgb.reserve(static_cast<std::size_t>(crop.height * crop.width * 3));
  for (std::int64_t row = 0; row < crop.height; ++row) {
    for (std::int64_t column = 0; column < crop.width; ++column) {
      const std::int64_t pixel =
          ((frame * frames.height + y + row / zoom) * frames.width + x + column / zoom) * 3;
      crop.rgb.insert(crop.rgb.end(), frames.rgb.begin() + pixel, frames.rgb.begin() + pixel + 3);
    }
  }
  return crop;
}

Frames contact_sheet(std::span<const Frames* const> clips, std::span<const int> frame_numbers,
                     int gap) {
  if (clips.empty() || frame_numbers.empty() || gap < 0) {
    throw Error("contact sheet: needs at least one clip and one frame number, and a gap >= 0");
  }
  const Frames& first = *clips.front();
  for (const Frames* clip : clips) {
    check_frames(*clip, "contact sheet");
    if (clip->height != first.height || clip->width != first.width) {
      throw Error("contact sheet: clips of different size, " + shape_text(first) + " and " +
                  shape_text(*clip));
    }
    for (const int number : frame_numbers) {
      if (number >= 0 && number < clip->frames) continue;
      throw Error("contact sheet: frame " + std::to_string(number) + " of " + shape_text(*clip));
    }
  }
  const auto rows = static_cast<std::int64_t>(clips.size());
  const auto columns = static_cast<std::int64_t>(frame_numbers.size());
  Frames sheet{1, rows * (first.height + gap) - gap, columns * (first.width + gap) - gap, {}};
  sheet.rgb.assign(
      static_cast<std::size_t>(checked_frame_bytes(1, sheet.height, sheet.width, "contact sheet")),
      255);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t column = 0; column < columns; ++column) {
      const Frames& clip = *clips[static_cast<std::size_t>(row)];
      const std::int64_t number = frame_numbers[static_cast<std::size_t>(column)];
      for (std::int64_t y = 0; y < clip.height; ++y) {
        const std::int64_t source = (number * clip.height + y) * clip.width * 3;
        const std::int64_t target =
            ((row * (clip.height + gap) + y) * sheet.width + column * (clip.width + gap)) * 3;
        std::copy_n(clip.rgb.begin() + source, clip.width * 3, sheet.rgb.begin() + target);
      }
    }
  }
  return sheet;
}

}  // namespace raingauge
