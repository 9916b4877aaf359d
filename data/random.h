// SPDX-License-Identifier: Apache-2.0
// Counter-based randomness: the value depends on the seed and the counter alone, never on threads,
// devices or libraries. Used wherever two programs must draw the same thing.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

namespace raingauge {

// SplitMix64's finaliser: a bijection of 64 bits with full avalanche.
inline std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

inline std::uint64_t hash_seed(std::initializer_list<std::uint64_t> parts) {
  std::uint64_t state = 0x8f1bbcdc5a827999ULL;
  for (const auto part : parts) state = mix64(state ^ mix64(part));
  return state;
}

// [0, 1), 53 bits.
inline double uniform01(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

// A value in [0, bound) without modulo bias worth naming (bound << 2^64).
inline std::uint64_t below(std::uint64_t bits, std::uint64_t bound) {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

// Fisher-Yates with counter-based draws.
template <typename T>
void seeded_shuffle(std::vector<T>& items, std::uint64_t seed) {
  for (std::size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1], items[below(mix64(seed ^ mix64(i)), i)]);
  }
}

}  // namespace raingauge
