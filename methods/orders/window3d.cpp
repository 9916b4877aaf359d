// SPDX-License-Identifier: Apache-2.0
// 3D windows, as in RainFusion2.0 section 3.2 (arXiv 2512.24086), which gives no sizes: tokens of
// one t x h x w box become neighbours, so that a block holds one compact piece of the clip.
//
// Rule for sides that do not divide: boxes start at multiples of the window and are clipped at the
// far edge of the grid. Boxes follow each other in raster order (time, then rows, then columns),
// and tokens in raster order inside a box. Every grid works; a window larger than the grid is the
// grid.
#include <algorithm>

#include "methods/orders/order.h"

namespace raingauge {
namespace {

struct Span {
  int begin, end;
};

void append_box(const OrderRequest& grid, Span t, Span y, Span x,
                std::vector<std::int32_t>& index) {
  for (int frame = t.begin; frame < t.end; ++frame) {
    for (int row = y.begin; row < y.end; ++row) {
      const std::int32_t first = (frame * grid.height + row) * grid.width;
      for (int column = x.begin; column < x.end; ++column) index.push_back(first + column);
    }
  }
}

Order make(const OrderRequest& grid) {
  const auto& window = grid.params.at("window");
  const int depth = std::min(window.at(0).get<int>(), grid.frames);
  const int height = std::min(window.at(1).get<int>(), grid.height);
  const int width = std::min(window.at(2).get<int>(), grid.width);
  Order order;
  order.index.reserve(static_cast<std::size_t>(grid.frames) *
                      static_cast<std::size_t>(grid.height) * static_cast<std::size_t>(grid.width));
  // `side - begin` first: begin + window could pass INT_MAX.
  const auto span = [](int begin, int window_side, int side) {
    return Span{begin, begin + std::min(window_side, side - begin)};
  };
  for (Span t = span(0, depth, grid.frames); t.begin < grid.frames;
       t = span(t.end, depth, grid.frames)) {
    for (Span y = span(0, height, grid.height); y.begin < grid.height;
         y = span(y.end, height, grid.height)) {
      for (Span x = span(0, width, grid.width); x.begin < grid.width;
           x = span(x.end, width, grid.width)) {
        append_box(grid, t, y, x, order.index);
      }
    }
  }
  if (grid.frames % depth == 0 && grid.height % height == 0 && grid.width % width == 0) {
    order.windows = Windows{depth, height, width};
  }
  return order;
}

}  // namespace

OrderEntry window3d_order() {
  return {{.name = "window3d",
           .help = "boxes of the grid, clipped at its far edges, in raster order, raster inside",
           .section = "RainFusion2.0 (arXiv 2512.24086) 3.2; sizes and edge rule are ours",
           .mixes_frames = true,
           .params = {{.name = "window",
                       .type = ParamType::integers,
                       .default_value = {4, 4, 8},
                       .help = "frames, rows and columns of a box, in tokens",
                       .min = 1,
                       .max = 1 << 20,
                       .length = 3}}},
          make};
}

}  // namespace raingauge
