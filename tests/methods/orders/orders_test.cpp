// SPDX-License-Identifier: Apache-2.0
// Contract of every registered order, and each order against its definition. Checksums of
// frame_window and of the Gilbert orders were taken from the released Python code of RainFusion2.0
// and Jenga, run on the same grids.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>
#include <string>

#include "data/error.h"
#include "methods/orders/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;
using Grid = std::array<int, 3>;  // frames, height, width

const std::vector<Grid> kGrids = {{1, 1, 1},   {1, 1, 7},   {5, 1, 1},   {1, 5, 7},   {3, 1, 9},
                                  {2, 3, 2},   {3, 5, 7},   {4, 4, 4},   {7, 3, 5},   {2, 9, 10},
                                  {13, 11, 7}, {5, 16, 24}, {1, 16, 24}, {1, 17, 23}, {21, 30, 52}};

Order make(const std::string& name, Grid grid, json params = nullptr, std::uint64_t seed = 0) {
  OrderRequest request;
  request.frames = grid[0];
  request.height = grid[1];
  request.width = grid[2];
  request.seed = seed;
  request.params = std::move(params);
  return make_order(name, request);
}

// c <- (c * 1000003 + source + 1) mod (2^61 - 1) over the positions.
std::uint64_t checksum(const Order& order) {
  constexpr std::uint64_t kPrime = (1ULL << 61U) - 1;
  std::uint64_t sum = 0;
  for (const std::int32_t source : order.index) {
    // (sum * 1000003) mod kPrime in two halves, which fit 64 bits.
    const std::uint64_t high = (sum >> 32U) * 1000003 % kPrime;
    std::uint64_t shifted = high;
    for (int i = 0; i < 32; ++i) shifted = shifted * 2 % kPrime;
    const std::uint64_t low = (sum & 0xFFFFFFFFULL) * 1000003 % kPrime;
    sum = (shifted + low + static_cast<std::uint64_t>(source) + 1) % kPrime;
  }
  return sum;
}

std::string text(Grid grid) {
  return std::to_string(grid[0]) + "x" + std::to_string(grid[1]) + "x" + std::to_string(grid[2]);
}

bool is_bijection(const Order& order, Grid grid) {
  std::vector<std::int32_t> sorted = order.index;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::int32_t> expected(static_cast<std::size_t>(grid[0] * grid[1] * grid[2]));
  std::iota(expected.begin(), expected.end(), 0);
  return sorted == expected;
}

// Distances along t, y, x between consecutive positions.
Grid step_at(const Order& order, Grid grid, std::size_t position) {
  const auto at = [&](std::size_t p) {
    const int token = order.index[p];
    return Grid{token / (grid[1] * grid[2]), token / grid[2] % grid[1], token % grid[2]};
  };
  const Grid from = at(position - 1);
  const Grid to = at(position);
  return {std::abs(to[0] - from[0]), std::abs(to[1] - from[1]), std::abs(to[2] - from[2])};
}

// Orders made from content are tested with records, in kmeans_test.cpp; a grid alone they refuse.
class EveryOrder : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!find_order(GetParam()).from_content()) return;
    EXPECT_THROW(make(GetParam(), {3, 16, 24}), Unsupported);
    GTEST_SKIP() << "made from content";
  }
};

TEST_P(EveryOrder, IsABijectionOrRefusesWithAReason) {
  for (const Grid grid : kGrids) {
    try {
      const Order order = make(GetParam(), grid);
      EXPECT_TRUE(is_bijection(order, grid)) << text(grid);
    } catch (const Unsupported& refusal) {
      EXPECT_EQ(GetParam(), "frame_window") << "only frame_window may refuse: " << text(grid);
      EXPECT_NE(std::string(refusal.what()).find(text(grid)), std::string::npos);
    }
  }
}

TEST_P(EveryOrder, IsReproducible) {
  const Grid grid = {3, 16, 24};
  EXPECT_EQ(make(GetParam(), grid, nullptr, 5).index, make(GetParam(), grid, nullptr, 5).index);
}

TEST_P(EveryOrder, ReadsTheSeedOnlyWhenDeclared) {
  const Grid grid = {3, 16, 24};
  const bool differs =
      make(GetParam(), grid, nullptr, 1).index != make(GetParam(), grid, nullptr, 2).index;
  EXPECT_EQ(differs, find_order(GetParam()).spec.seeded);
}

TEST_P(EveryOrder, MixesFramesAsDeclared) {
  EXPECT_EQ(make(GetParam(), {5, 16, 24}).mixes_frames, find_order(GetParam()).spec.mixes_frames);
  EXPECT_FALSE(make(GetParam(), {1, 16, 24}).mixes_frames) << "one frame cannot be mixed";
}

TEST_P(EveryOrder, WindowsAreWholeBoxesOfTheGrid) {
  for (const Grid grid : {Grid{4, 16, 24}, Grid{4, 15, 24}, Grid{3, 16, 24}}) {
    const Order order = make(GetParam(), grid);
    if (!order.windows) continue;
    const Windows box = *order.windows;
    ASSERT_EQ(grid[0] % box.frames + grid[1] % box.height + grid[2] % box.width, 0) << text(grid);
    std::size_t position = 0;
    for (int t = 0; t < grid[0]; t += box.frames)
      for (int y = 0; y < grid[1]; y += box.height)
        for (int x = 0; x < grid[2]; x += box.width)
          for (int i = 0; i < box.frames * box.height * box.width; ++i, ++position) {
            const int token =
                ((t + i / (box.height * box.width)) * grid[1] + y + i / box.width % box.height) *
                    grid[2] +
                x + i % box.width;
            ASSERT_EQ(order.index[position], token) << text(grid) << " position " << position;
          }
  }
}

TEST_P(EveryOrder, InverseReturnsEveryTokenToItsPlace) {
  const Grid grid = {5, 16, 24};
  Orders orders;
  orders.identity = false;
  orders.index = make(GetParam(), grid).index;
  orders.tokens = static_cast<std::int64_t>(orders.index.size());
  std::vector<std::int32_t> position_of(orders.index.size(), -1);
  for (std::size_t p = 0; p < orders.index.size(); ++p) {
    position_of[static_cast<std::size_t>(orders.token(0, static_cast<std::int64_t>(p)))] =
        static_cast<std::int32_t>(p);
  }
  for (std::size_t token = 0; token < position_of.size(); ++token) {
    ASSERT_EQ(orders.token(0, position_of[token]), static_cast<std::int32_t>(token));
  }
}

TEST_P(EveryOrder, DeclaresItselfInFull) {
  const OrderSpec& spec = find_order(GetParam()).spec;
  EXPECT_FALSE(spec.help.empty());
  EXPECT_FALSE(spec.section.empty());
  for (const ParamSpec& param : spec.params) {
    EXPECT_FALSE(param.help.empty()) << param.name;
    EXPECT_FALSE(param.default_value.is_null()) << param.name << " needs a default";
  }
}

TEST_P(EveryOrder, RefusesEmptyAndOversizedGridsAndUnknownKeys) {
  EXPECT_THROW(make(GetParam(), {0, 8, 8}), Error);
  EXPECT_THROW(make(GetParam(), {2, -8, 8}), Error);
  EXPECT_THROW(make(GetParam(), {1 << 11, 1 << 10, 1 << 10}), Error);
  EXPECT_THROW(make(GetParam(), {2, 8, 8}, {{"no_such_key", 1}}), ParamError);
}

std::vector<std::string> order_names() {
  std::vector<std::string> names;
  for (const OrderEntry& entry : order_registry()) names.emplace_back(entry.spec.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryOrder, testing::ValuesIn(order_names()),
                         [](const auto& test) { return test.param; });

TEST(OrderRegistry, NamesAreUniqueAndUnknownOnesGetTheNearest) {
  std::vector<std::string> names = order_names();
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
  try {
    find_order("gilbrt");
    FAIL() << "an unknown order was found";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'gilbert'"), std::string::npos) << error.what();
  }
}

TEST(FrameWindow, MatchesTheReleasedCode) {
  const std::vector<std::pair<Grid, std::uint64_t>> golden = {
      {{2, 9, 10}, 2024923748808677879ULL},
      {{3, 30, 52}, 1837906670131521829ULL},
      {{2, 21, 32}, 2269519587208324657ULL},
      {{2, 24, 45}, 763321627036902928ULL},
      {{21, 45, 80}, 1306171371012057388ULL}};
  for (const auto& [grid, sum] : golden) {
    EXPECT_EQ(checksum(make("frame_window", grid)), sum) << text(grid);
  }
}

TEST(FrameWindow, PutsRemaindersAfterTheWindowsAndKeepsFrameZeroRaster) {
  const Order order = make("frame_window", {2, 9, 10});
  for (int i = 0; i < 90; ++i) EXPECT_EQ(order.index[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(order.index[90], 90);
  EXPECT_EQ(order.index[97], 97);
  EXPECT_EQ(order.index[98], 100);   // second row of the window
  EXPECT_EQ(order.index[154], 170);  // first remainder row
  EXPECT_EQ(order.index[164], 98);   // right strip, row 0
  EXPECT_EQ(order.index[165], 99);
  EXPECT_FALSE(order.windows.has_value());
}

TEST(FrameWindow, AlignedFramesAreWindowsThroughout) {
  const Order order = make("frame_window", {2, 16, 24});
  ASSERT_TRUE(order.windows.has_value());
  EXPECT_EQ(order.windows->frames, 1);
  EXPECT_EQ(order.windows->height, 8);
  EXPECT_EQ(order.windows->width, 8);
  EXPECT_EQ(order.index[8], 24) << "frame 0 is windowed too";
}

TEST(FrameWindow, RefusesWhatTheReleasedCodeRefuses) {
  EXPECT_THROW(make("frame_window", {3, 7, 16}), Unsupported);
  EXPECT_THROW(make("frame_window", {3, 16, 7}), Unsupported);
  EXPECT_THROW(make("frame_window", {1, 16, 20}), Unsupported);
  EXPECT_NO_THROW(make("frame_window", {1, 16, 24}));
  EXPECT_NO_THROW(make("frame_window", {2, 16, 20}));
}

TEST(FrameWindow, EveryFrameOrdersFrameZeroAndSmallGrids) {
  const json every_frame = {{"rule", "every_frame"}};
  const Order order = make("frame_window", {2, 9, 10}, every_frame);
  const Order strict = make("frame_window", {2, 9, 10});
  for (std::size_t i = 0; i < 90; ++i) {
    EXPECT_EQ(order.index[90 + i], strict.index[90 + i]);
    EXPECT_EQ(order.index[i] + 90, strict.index[90 + i]) << "frame 0 as strict orders frame 1";
  }
  for (const Grid grid : {Grid{3, 7, 16}, Grid{3, 16, 7}, Grid{2, 3, 5}}) {
    EXPECT_EQ(make("frame_window", grid, every_frame).index, make("raster", grid).index);
  }
  EXPECT_TRUE(is_bijection(make("frame_window", {1, 17, 23}, every_frame), {1, 17, 23}));
}

TEST(FrameWindow, GridsWithoutFrameZeroHaveNoRasterFrame) {
  OrderRequest request;
  request.frames = 2;
  request.height = 9;
  request.width = 10;
  request.has_frame0 = false;
  EXPECT_EQ(make_order("frame_window", request).index,
            make("frame_window", {2, 9, 10}, {{"rule", "every_frame"}}).index);
}

TEST(FrameWindow, TakesOtherWindows) {
  const Order order = make("frame_window", {1, 4, 6}, {{"height", 2}, {"width", 3}});
  const std::vector<std::int32_t> expected = {0,  1,  2,  6,  7,  8,  3,  4,  5,  9,  10, 11,
                                              12, 13, 14, 18, 19, 20, 15, 16, 17, 21, 22, 23};
  EXPECT_EQ(order.index, expected);
  EXPECT_THROW(make("frame_window", {1, 8, 8}, {{"height", 0}}), ParamError);
  EXPECT_THROW(make("frame_window", {1, 8, 8}, {{"rule", "loose"}}), ParamError);
}

TEST(Window3d, ClipsBoxesAtTheFarEdges) {
  const Order order = make("window3d", {3, 2, 3}, {{"window", {2, 2, 2}}});
  const std::vector<std::int32_t> expected = {0, 1, 3,  4,  6,  7,  9,  10, 2,
                                              5, 8, 11, 12, 13, 15, 16, 14, 17};
  EXPECT_EQ(order.index, expected);
  EXPECT_FALSE(order.windows.has_value());
  EXPECT_TRUE(make("window3d", {4, 2, 4}, {{"window", {2, 2, 2}}}).windows.has_value());
}

TEST(Window3d, OneFrameDeepEqualsFrameWindowWhereItDivides) {
  const Order boxes = make("window3d", {3, 16, 24}, {{"window", {1, 8, 8}}});
  EXPECT_EQ(boxes.index, make("frame_window", {3, 16, 24}).index);
  EXPECT_FALSE(boxes.mixes_frames);
}

TEST(Window3d, HugeWindowIsRaster) {
  const Order order = make("window3d", {3, 5, 7}, {{"window", {1 << 20, 1 << 20, 1 << 20}}});
  EXPECT_EQ(order.index, make("raster", {3, 5, 7}).index);
  EXPECT_THROW(make("window3d", {3, 5, 7}, {{"window", {0, 4, 4}}}), ParamError);
  EXPECT_THROW(make("window3d", {3, 5, 7}, {{"window", {4, 4}}}), ParamError);
}

TEST(Axis, NestsAsNamed) {
  // Raster index of (t, y, x) on 2x2x3: 6t + 3y + x.
  const Grid grid = {2, 2, 3};
  using Index = std::vector<std::int32_t>;
  EXPECT_EQ(make("axis_thw", grid).index, make("raster", grid).index);
  EXPECT_EQ(make("axis_twh", grid).index, (Index{0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}));
  EXPECT_EQ(make("axis_htw", grid).index, (Index{0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11}));
  EXPECT_EQ(make("axis_hwt", grid).index, (Index{0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11}));
  EXPECT_EQ(make("axis_wth", grid).index, (Index{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11}));
  EXPECT_EQ(make("axis_wht", grid).index, (Index{0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11}));
}

struct CurveGolden {
  Grid grid;
  std::uint64_t gilbert, gilbert_sliced;
};

TEST(Gilbert, MatchesTheReleasedCode) {
  const std::vector<CurveGolden> golden = {
      {{1, 1, 1}, 1ULL, 1ULL},
      {{1, 1, 7}, 958934436205717913ULL, 958934436205717913ULL},
      {{5, 1, 1}, 2168781150109166793ULL, 2168781150109166793ULL},
      {{1, 5, 7}, 410417546940521497ULL, 410417546940521497ULL},
      {{2, 3, 2}, 83327389053744509ULL, 373529183883038699ULL},
      {{3, 5, 7}, 2154238803575964603ULL, 313987296719628522ULL},
      {{4, 4, 4}, 538185727982109018ULL, 1315914100106471380ULL},
      {{7, 3, 5}, 1912971671756020099ULL, 2144276307608191562ULL},
      {{2, 9, 10}, 2109710638769713785ULL, 287659255435677313ULL},
      {{13, 11, 7}, 2095721540340540197ULL, 1025800904060255629ULL},
      {{5, 16, 24}, 1179235033366704363ULL, 2255503940922192583ULL},
      {{9, 2, 3}, 1653525552599156375ULL, 1295218675090085667ULL},
      {{3, 30, 52}, 231343770597568206ULL, 854649008731902022ULL},
      {{21, 15, 20}, 1161430629439300312ULL, 2285361254625281898ULL},
      {{8, 45, 20}, 443545378667154830ULL, 494953571486758511ULL},
      {{1, 2, 11}, 412979450667573503ULL, 412979450667573503ULL},
      {{11, 2, 1}, 1794989021095699426ULL, 1320402861895838823ULL},
      {{3, 1, 9}, 1576151490369428022ULL, 1750726471365178353ULL}};
  for (const CurveGolden& expected : golden) {
    EXPECT_EQ(checksum(make("gilbert", expected.grid)), expected.gilbert) << text(expected.grid);
    EXPECT_EQ(checksum(make("gilbert_sliced", expected.grid)), expected.gilbert_sliced)
        << text(expected.grid);
  }
}

TEST(Gilbert, ConsecutiveTokensAreNeighboursOnEvenGrids) {
  for (const Grid grid : {Grid{2, 2, 2}, Grid{4, 16, 24}, Grid{6, 10, 4}, Grid{20, 30, 52}}) {
    const Order order = make("gilbert", grid);
    for (std::size_t p = 1; p < order.index.size(); ++p) {
      const Grid step = step_at(order, grid, p);
      ASSERT_EQ(step[0] + step[1] + step[2], 1) << text(grid) << " position " << p;
    }
  }
}

TEST(Gilbert, JumpsAreShortOnEveryGrid) {
  for (int t = 1; t <= 9; ++t)
    for (int h = 1; h <= 9; ++h)
      for (int w = 1; w <= 9; ++w) {
        const Grid grid = {t, h, w};
        const Order curve = make("gilbert", grid);
        const Order sliced = make("gilbert_sliced", grid);
        ASSERT_TRUE(is_bijection(curve, grid) && is_bijection(sliced, grid)) << text(grid);
        for (std::size_t p = 1; p < curve.index.size(); ++p) {
          const Grid step = step_at(curve, grid, p);
          ASSERT_LE(*std::max_element(step.begin(), step.end()), 3) << text(grid) << " at " << p;
          const Grid slice_step = step_at(sliced, grid, p);
          ASSERT_LE(std::max(slice_step[1], slice_step[2]), 1) << text(grid) << " at " << p;
        }
      }
}

TEST(Random, ShufflesAndPinsItsSequence) {
  const Order order = make("random", {2, 3, 4}, nullptr, 42);
  int fixed_points = 0;
  for (std::size_t p = 0; p < order.index.size(); ++p) {
    fixed_points += order.index[p] == static_cast<std::int32_t>(p);
  }
  EXPECT_LT(fixed_points, 8) << "a random permutation of 24 has 1 fixed point on average";
  // A change of the generator would silently change every seeded control on disk.
  EXPECT_EQ(checksum(make("random", {5, 16, 24}, nullptr, 1)), 1085878904994805795ULL);
}

TEST(Random, SpreadsTokensEvenly) {
  // First position over 6000 seeds on 6 tokens: 1000 each, standard deviation sqrt(6000 * 5/36) =
  // 29.
  std::array<int, 6> counts{};
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    ++counts[static_cast<std::size_t>(make("random", {1, 2, 3}, nullptr, seed).index[0])];
  }
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);  // five standard deviations
}

}  // namespace
}  // namespace raingauge
