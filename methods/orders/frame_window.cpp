// SPDX-License-Identifier: Apache-2.0
// Windows of 8 x 8 tokens inside each frame, as RainFusion2.0's released code orders them
// (MindIE-SD, sparse_flash_attn_rf_v2.py, rearrange_with_remaining). Time is never mixed.
//
// A frame whose sides divide is windows in raster order, raster inside. In any other grid frame 0
// stays raster, and every later frame lists its whole windows, then the rows below them (full
// width, raster), then the columns right of them (raster over the strip).
//
// rule `strict` is that code, refusals included: a side below the window, or one single frame that
// does not divide. It concerns grids that hold frame 0 (OrderRequest::has_frame0); where frame 0
// has blocks of its own, every frame left is a later one. rule `every_frame` is ours: frame 0 is
// ordered like any other, and frames too small for one window stay raster.
#include <string>

#include "methods/orders/order.h"

namespace raingauge {
namespace {

struct WindowSize {
  int height, width;
};

// Appends the raster indices of one h x w frame, windows first; `first` is its first token.
void append_frame(int h, int w, WindowSize window, std::int32_t first,
                  std::vector<std::int32_t>& index) {
  const bool any_window = h >= window.height && w >= window.width;
  const int whole_h = any_window ? h / window.height * window.height : 0;
  const int whole_w = any_window ? w / window.width * window.width : 0;
  const auto append_box = [&](int y0, int y1, int x0, int x1) {
    for (int y = y0; y < y1; ++y) {
      for (int x = x0; x < x1; ++x) index.push_back(first + y * w + x);
    }
  };
  for (int y = 0; y < whole_h; y += window.height) {
    for (int x = 0; x < whole_w; x += window.width) {
      append_box(y, y + window.height, x, x + window.width);
    }
  }
  append_box(whole_h, h, 0, w);
  append_box(0, whole_h, whole_w, w);
}

void refuse_what_the_released_code_refuses(const OrderRequest& grid, WindowSize window,
                                           bool divides) {
  const std::string where = "order 'frame_window', grid " + std::to_string(grid.frames) + "x" +
                            std::to_string(grid.height) + "x" + std::to_string(grid.width) + ": ";
  const std::string instead = "; `rule: every_frame` orders it without the released code's limits";
  if (grid.height < window.height || grid.width < window.width) {
    throw Unsupported(where + "a frame smaller than the " + std::to_string(window.height) + "x" +
                      std::to_string(window.width) + " window, where the released code raises" +
                      instead);
  }
  if (grid.frames == 1 && !divides) {
    throw Unsupported(where + "one frame that the " + std::to_string(window.height) + "x" +
                      std::to_string(window.width) +
                      " window does not divide, where the released code raises" + instead);
  }
}

Order make(const OrderRequest& grid) {
  const WindowSize window = {grid.params.at("height").get<int>(),
                             grid.params.at("width").get<int>()};
  const bool strict = grid.has_frame0 && grid.params.at("rule") == "strict";
  const bool divides = grid.height % window.height == 0 && grid.width % window.width == 0;
  if (strict) refuse_what_the_released_code_refuses(grid, window, divides);
  Order order;
  const int frame_size = grid.height * grid.width;
  order.index.reserve(static_cast<std::size_t>(grid.frames) * static_cast<std::size_t>(frame_size));
  for (int frame = 0; frame < grid.frames; ++frame) {
    const bool raster = strict && !divides && frame == 0;
    const WindowSize size = raster ? WindowSize{1, grid.width} : window;
    append_frame(grid.height, grid.width, size, frame * frame_size, order.index);
  }
  if (divides) order.windows = Windows{1, window.height, window.width};
  return order;
}

ParamSpec window_side(const char* name, const char* help) {
  return {.name = name,
          .type = ParamType::integer,
          .default_value = 8,
          .help = help,
          .min = 1,
          .max = 1 << 20};
}

}  // namespace

OrderEntry frame_window_order() {
  return {{.name = "frame_window",
           .help = "8x8 windows inside each frame, remainders after them",
           .section = "RainFusion2.0 (arXiv 2512.24086), released code rf_v2 and rf_v3",
           .params = {window_side("height", "rows of a window, in tokens"),
                      window_side("width", "columns of a window, in tokens"),
                      {.name = "rule",
                       .type = ParamType::choice,
                       .default_value = "strict",
                       .help = "strict: the released code, which keeps frame 0 raster where the "
                               "window does not divide the frame, and its refusals; every_frame: "
                               "frame 0 ordered like the others, every grid accepted",
                       .choices = {"strict", "every_frame"}}}},
          make};
}

}  // namespace raingauge
