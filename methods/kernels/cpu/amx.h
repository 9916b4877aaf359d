// SPDX-License-Identifier: Apache-2.0
// Matrix tiles (AMX): eight registers of 16 rows of 64 bytes. A product adds [16 x 32] x [32 x 16] bf16 to
// [16 x 16] fp32; its second operand stands as 16 lines of 16 pairs, the packed form of ops.h. Products
// run on 2 x 2 tiles: registers 0 to 3 add up, 4 and 5 hold 32 rows of the first operand, 6 and 7 hold
// 32 columns of the second. Part of level_amx_bf16.cpp.
//
// Written in assembly, since compilers' intrinsics for tiles do not say that they read memory.
#pragma once

#include "methods/kernels/cpu/level_tiles.h"

namespace raingauge::cpu::RAINGAUGE_LEVEL {
namespace {

constexpr int kTileRows = 32;  // query rows, keys or columns of 2 x 2 tiles
constexpr int kTileUnits = kTileRows / kUnit;
constexpr std::ptrdiff_t kLineBytes = 64;  // between the lines of a packed tile
constexpr int kTileWords = kUnit * kUnit;

// Tiles can be used by this thread while this lives.
class TileScope {
 public:
  TileScope() {
    Config config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = 16;
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~TileScope() { asm volatile("tilerelease"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  struct Config {
    std::uint8_t palette = 1, start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
  };
  static_assert(sizeof(Config) == 64);
};

template <int kTile>
RAINGAUGE_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
// `stride`: bytes from line to line.
template <int kTile>
RAINGAUGE_INLINE void tile_load(const void* p, std::ptrdiff_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
}
// For what is read once: it does not push the scores, the weights and the output out of the
// first-level cache (a third of the products' time).
template <int kTile>
RAINGAUGE_INLINE void tile_stream(const void* p) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(kLineBytes), "i"(kTile) : "memory");
}
template <int kTile>
RAINGAUGE_INLINE void tile_store(void* p, std::ptrdiff_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
}
template <int kSum, int kA, int kB>
RAINGAUGE_INLINE void tile_dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

// The four sums of 32 rows and 32 columns of fp32, rows `stride` floats apart.
RAINGAUGE_INLINE void sums_zero() {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
}
RAINGAUGE_INLINE void sums_load(const float* p, std::ptrdiff_t stride) {
  tile_load<0>(p, stride * 4);
  tile_load<1>(p + kUnit, stride * 4);
  tile_load<2>(p + kUnit * stride, stride * 4);
  tile_load<3>(p + kUnit * stride + kUnit, stride * 4);
}
RAINGAUGE_INLINE void sums_store(float* p, std::ptrdiff_t stride) {
  tile_store<0>(p, stride * 4);
  tile_store<1>(p + kUnit, stride * 4);
  tile_store<2>(p + kUnit * stride, stride * 4);
  tile_store<3>(p + kUnit * stride + kUnit, stride * 4);
}

// Something for the vector units to do after each of the four products of multiply().
struct Nothing {
  template <int kProduct>
  RAINGAUGE_INLINE void after(const Nothing&) {}
};

// sums += 32 rows of 32 bf16, `a_stride` bytes apart, times two packed tiles.
template <class Meanwhile>
RAINGAUGE_INLINE void multiply(const void* a, std::ptrdiff_t a_stride, const std::uint32_t* left,
                               const std::uint32_t* right, const Meanwhile& meanwhile) {
  tile_stream<6>(left);
  tile_load<4>(a, a_stride);
  tile_dot<0, 4, 6>();
  Meanwhile::template after<0>(meanwhile);
  tile_stream<7>(right);
  tile_dot<1, 4, 7>();
  Meanwhile::template after<1>(meanwhile);
  tile_load<5>(static_cast<const char*>(a) + kUnit * a_stride, a_stride);
  tile_dot<2, 5, 6>();
  Meanwhile::template after<2>(meanwhile);
  tile_dot<3, 5, 7>();
  Meanwhile::template after<3>(meanwhile);
}

// scores[32][kChunkKeys] = 32 query rows times the keys of `count` units, an even number.
RAINGAUGE_INLINE void score_tiles(const PackShape& shape, const std::uint32_t* q,
                                  const std::uint32_t* k, const std::int32_t* units, int count,
                                  float* scores) {
  const std::ptrdiff_t depth = shape.depth();
  const std::size_t words = shape.k_unit_words();
  for (int u = 0; u < count; u += kTileUnits) {
    const std::uint32_t* left = k + static_cast<std::size_t>(units[u]) * words;
    const std::uint32_t* right = k + static_cast<std::size_t>(units[u + 1]) * words;
    sums_zero();
    for (std::ptrdiff_t t = 0; t < depth; t += kUnit) {
      multiply(q + t, depth * 4, left + t * kUnit, right + t * kUnit, Nothing{});
    }
    sums_store(scores + u * kUnit, kChunkKeys);
  }
}

// Padding keys of the units get -inf.
RAINGAUGE_INLINE void mask_tiles(const std::int32_t* units, int count, const std::uint8_t* full,
                                 const float* bias, float* scores) {
  for (int u = 0; u < count; ++u) {
    if (full[units[u]] == 0) {
      add_bias(scores + u * kUnit, kTileRows, bias + std::ptrdiff_t{units[u]} * kUnit);
    }
  }
}

// For measure_peak(): four chains of products of numbers that keep the multipliers busy, as data
// does (zeros run 13 % faster, they take less power).
RAINGAUGE_NOINLINE double spin_tiles(std::int64_t rounds) {
  alignas(64) std::uint16_t numbers[2 * kTileWords];
  std::uint32_t state = 1;
  for (std::uint16_t& number : numbers) {  // 1 <= |x| < 2
    state = state * 1664525U + 1013904223U;
    number =
        static_cast<std::uint16_t>(0x3f80U | ((state >> 25U) & 0x7fU) | ((state >> 9U) & 0x8000U));
  }
  const TileScope scope;
  sums_zero();
  tile_load<4>(numbers, kLineBytes);
  tile_load<5>(numbers, kLineBytes);
  tile_load<6>(numbers, kLineBytes);
  tile_load<7>(numbers, kLineBytes);
  for (std::int64_t round = 0; round < rounds; ++round) {
    tile_dot<0, 4, 6>();
    tile_dot<1, 4, 7>();
    tile_dot<2, 5, 6>();
    tile_dot<3, 5, 7>();
  }
  constexpr double kFlops = 2.0 * 16.0 * 16.0 * 32.0;
  return static_cast<double>(rounds) * 4.0 * kFlops;
}

}  // namespace
}  // namespace raingauge::cpu::RAINGAUGE_LEVEL
