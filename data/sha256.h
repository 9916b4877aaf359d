// SPDX-License-Identifier: Apache-2.0
// SHA-256 (FIPS 180-4) of a byte stream: which bits did a record hold, and are two files the same?
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace raingauge {

class Sha256 {
 public:
  // `portable` leaves the processor's SHA instructions unused; the digest is the same.
  explicit Sha256(bool portable = false);
  void update(const void* data, std::size_t bytes);
  // Lower-case hexadecimal digest of everything so far. May be called once; update() must not
  // follow.
  std::string finish();

 private:
  bool accelerated_;
  std::array<std::uint32_t, 8> state_;
  std::array<std::uint8_t, 64> buffer_{};
  std::size_t buffered_ = 0;
  std::uint64_t total_ = 0;
};

std::string sha256_hex(const void* data, std::size_t bytes);
std::string sha256_file(const std::string& path);  // throws Error when it cannot be read

}  // namespace raingauge
