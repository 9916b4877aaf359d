// SPDX-License-Identifier: Apache-2.0
// The generalised Hilbert ("Gilbert") curve over grids of any size, as Jenga orders its tokens
// (arXiv 2505.16864, released gilbert.py). `gilbert` is one 3D curve with x = column, y = row,
// z = frame; `gilbert_sliced` is one 2D curve a frame, mirrored to begin at the corner nearest to
// where the frame before ended.
//
// The curve enters a box at one corner and leaves it at the far end of its longest side. A box is
// an origin and three axis-parallel side vectors; it is cut at about half of its sides into two to
// five boxes whose ends meet. Halves are rounded to even lengths where possible: where all sides
// are even, consecutive tokens are neighbours. Odd sides leave a few jumps, diagonal ones in a
// frame and in 3D of up to 3 tokens in one coordinate (all grids up to 12 x 12 x 12); the released
// code has the same.
#include <array>
#include <cstdlib>

#include "methods/orders/order.h"

namespace raingauge {
namespace {

using Vector = std::array<int, 3>;  // x, y, z

Vector operator+(const Vector& a, const Vector& b) {
  return {a[0] + b[0], a[1] + b[1], a[2] + b[2]};
}
Vector operator-(const Vector& a, const Vector& b) {
  return {a[0] - b[0], a[1] - b[1], a[2] - b[2]};
}
Vector operator-(const Vector& a) { return {-a[0], -a[1], -a[2]}; }

// One coordinate of a side is non-zero, so the sum is the signed length.
int length(const Vector& side) { return std::abs(side[0] + side[1] + side[2]); }

Vector unit(const Vector& side) {
  Vector step{};
  for (std::size_t i = 0; i < 3; ++i) step[i] = (side[i] > 0) - (side[i] < 0);
  return step;
}

// Half of a side, rounded towards minus infinity as the released Python does (truncation gives
// another curve on odd sides), then lengthened to an even number of tokens.
Vector even_half(const Vector& side) {
  Vector half{};
  for (std::size_t i = 0; i < 3; ++i) half[i] = side[i] >= 0 ? side[i] / 2 : -((1 - side[i]) / 2);
  return length(half) % 2 != 0 && length(side) > 2 ? half + unit(side) : half;
}

struct Box {
  Vector origin, a, b, c;  // a: the direction of travel
};

class Curve {
 public:
  Curve(int width, int height, int depth) {
    points_.reserve(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) *
                    static_cast<std::size_t>(depth));
    const Vector x = {width, 0, 0};
    const Vector y = {0, height, 0};
    const Vector z = {0, 0, depth};
    if (width >= height && width >= depth) {
      walk({{}, x, y, z});
    } else if (height >= width && height >= depth) {
      walk({{}, y, x, z});
    } else {
      walk({{}, z, x, y});
    }
  }
  const std::vector<Vector>& points() const { return points_; }

 private:
  void walk(const Box& box);
  void walk_line(const Vector& origin, const Vector& side);
  void split_long(const Box& box);
  void split_keeping_c(const Box& box);
  void split_keeping_b(const Box& box);
  void split_fully(const Box& box);

  std::vector<Vector> points_;
};

void Curve::walk_line(const Vector& origin, const Vector& side) {
  Vector point = origin;
  for (int i = 0; i < length(side); ++i, point = point + unit(side)) points_.push_back(point);
}

void Curve::walk(const Box& box) {
  const int w = length(box.a);
  const int h = length(box.b);
  const int d = length(box.c);
  if (w == 0 || h == 0 || d == 0) return;  // a half of a side of 1
  if (h == 1 && d == 1) return walk_line(box.origin, box.a);
  if (w == 1 && d == 1) return walk_line(box.origin, box.b);
  if (w == 1 && h == 1) return walk_line(box.origin, box.c);
  if (2 * w > 3 * h && 2 * w > 3 * d) return split_long(box);
  if (3 * h > 4 * d) return split_keeping_c(box);
  if (3 * d > 4 * h) return split_keeping_b(box);
  split_fully(box);
}

// Longest along a: two boxes in a row.
void Curve::split_long(const Box& box) {
  const Vector a2 = even_half(box.a);
  walk({box.origin, a2, box.b, box.c});
  walk({box.origin + a2, box.a - a2, box.b, box.c});
}

// c is short: up along b on the near half of a, across, down on the far half.
void Curve::split_keeping_c(const Box& box) {
  const auto& [origin, a, b, c] = box;
  const Vector a2 = even_half(a);
  const Vector b2 = even_half(b);
  walk({origin, b2, c, a2});
  walk({origin + b2, a, b - b2, c});
  walk({origin + (a - unit(a)) + (b2 - unit(b)), -b2, c, -(a - a2)});
}

// b is short: the same along c.
void Curve::split_keeping_b(const Box& box) {
  const auto& [origin, a, b, c] = box;
  const Vector a2 = even_half(a);
  const Vector c2 = even_half(c);
  walk({origin, c2, a2, b});
  walk({origin + c2, a, b, c - c2});
  walk({origin + (a - unit(a)) + (c2 - unit(c)), -c2, -(a - a2), b});
}

// No side is short: five boxes, the middle one along a.
void Curve::split_fully(const Box& box) {
  const auto& [origin, a, b, c] = box;
  const Vector a2 = even_half(a);
  const Vector b2 = even_half(b);
  const Vector c2 = even_half(c);
  const Vector far_a = a - unit(a);
  const Vector far_c = c - unit(c);
  walk({origin, b2, c2, a2});
  walk({origin + b2, c, a2, b - b2});
  walk({origin + (b2 - unit(b)) + far_c, a, -b2, -(c - c2)});
  walk({origin + far_a + b2 + far_c, -c, -(a - a2), b - b2});
  walk({origin + far_a + (b2 - unit(b)), -b2, c2, -(a - a2)});
}

Order make_gilbert(const OrderRequest& grid) {
  const Curve curve(grid.width, grid.height, grid.frames);
  Order order;
  order.index.reserve(curve.points().size());
  for (const auto& [x, y, z] : curve.points()) {
    order.index.push_back((z * grid.height + y) * grid.width + x);
  }
  return order;
}

// A corner is near when the end lies in its half of the frame; the middle of an odd side counts as
// the far half.
Order make_gilbert_sliced(const OrderRequest& grid) {
  const Curve curve(grid.width, grid.height, 1);
  Order order;
  order.index.reserve(curve.points().size() * static_cast<std::size_t>(grid.frames));
  int end_x = 0;
  int end_y = 0;
  for (int frame = 0; frame < grid.frames; ++frame) {
    const bool mirror_x = frame > 0 && 2 * end_x >= grid.width;
    const bool mirror_y = frame > 0 && 2 * end_y >= grid.height;
    for (const auto& [x, y, z] : curve.points()) {
      end_x = mirror_x ? grid.width - 1 - x : x;
      end_y = mirror_y ? grid.height - 1 - y : y;
      order.index.push_back((frame * grid.height + end_y) * grid.width + end_x);
    }
  }
  return order;
}

}  // namespace

OrderEntry gilbert_order() {
  return {{.name = "gilbert",
           .help = "generalised Hilbert curve through the whole grid",
           .section = "Jenga (arXiv 2505.16864), released code for HunyuanVideo",
           .mixes_frames = true},
          make_gilbert};
}

OrderEntry gilbert_sliced_order() {
  return {{.name = "gilbert_sliced",
           .help = "generalised Hilbert curve in each frame, mirrored to join the frame before",
           .section = "Jenga (arXiv 2505.16864), released code for Wan"},
          make_gilbert_sliced};
}

}  // namespace raingauge
