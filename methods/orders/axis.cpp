// SPDX-License-Identifier: Apache-2.0
// The six axis orders: nested loops over time, rows and columns, in every nesting. axis_hwt has
// rows outermost and time innermost, so a block is a few positions followed through the clip.
#include <array>

#include "methods/orders/order.h"

namespace raingauge {
namespace {

enum Axis : std::size_t { frame, row, column };

Order nested(const OrderRequest& grid, Axis outer, Axis middle, Axis inner) {
  const std::array<int, 3> sides = {grid.frames, grid.height, grid.width};
  const std::array<int, 3> strides = {grid.height * grid.width, grid.width, 1};
  Order order;
  order.index.reserve(static_cast<std::size_t>(sides[frame]) *
                      static_cast<std::size_t>(sides[row]) *
                      static_cast<std::size_t>(sides[column]));
  for (int i = 0; i < sides[outer]; ++i) {
    for (int j = 0; j < sides[middle]; ++j) {
      for (int k = 0; k < sides[inner]; ++k) {
        order.index.push_back(i * strides[outer] + j * strides[middle] + k * strides[inner]);
      }
    }
  }
  return order;
}

template <Axis outer, Axis middle, Axis inner>
OrderEntry entry(std::string_view name, std::string_view help) {
  return {{.name = name,
           .help = help,
           .section = "token reordering by axes, as in PAROAttention (arXiv 2506.16054)",
           .mixes_frames = outer != frame},
          [](const OrderRequest& grid) { return nested(grid, outer, middle, inner); }};
}

}  // namespace

OrderEntry axis_thw_order() {
  return entry<frame, row, column>("axis_thw",
                                   "time, rows, columns (outermost first): same as raster");
}
OrderEntry axis_twh_order() {
  return entry<frame, column, row>("axis_twh", "time, columns, rows: each frame transposed");
}
OrderEntry axis_htw_order() {
  return entry<row, frame, column>("axis_htw", "rows, time, columns: one row through all frames");
}
OrderEntry axis_hwt_order() {
  return entry<row, column, frame>("axis_hwt",
                                   "rows, columns, time: one position through all frames");
}
OrderEntry axis_wth_order() {
  return entry<column, frame, row>("axis_wth",
                                   "columns, time, rows: one column through all frames");
}
OrderEntry axis_wht_order() {
  return entry<column, row, frame>("axis_wht",
                                   "columns, rows, time: one position through all frames");
}

}  // namespace raingauge
