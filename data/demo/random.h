// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: a value is a function of (seed, stream, index) alone, so that a
// scene, an initialisation or a noise tensor is the same on every device and torch version.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace raingauge::demo {

// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
constexpr std::uint64_t mix64(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::uint64_t stream) : key_(mix64(seed ^ mix64(stream))) {}

  std::uint64_t bits() { return mix64(key_ + 0x9e3779b97f4a7c15ull * ++counter_); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  bool chance(double probability) { return uniform() < probability; }
  int below(int count) { return static_cast<int>(uniform() * count); }

  // Box-Muller, one output a pair: nothing is kept between calls.
  double gaussian() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  std::uint64_t key_;
  std::uint64_t counter_ = 0;
};

}  // namespace raingauge::demo
