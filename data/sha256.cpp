// SPDX-License-Identifier: Apache-2.0
// SHA-256 as FIPS 180-4 writes it, with the processor's SHA instructions where it has them.
#include "data/sha256.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "data/error.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>
#define RAINGAUGE_X86_SHA 1
#endif

namespace raingauge {
namespace {

// FIPS 180-4 section 4.2.2: fractional parts of the cube roots of the first 64 primes.
alignas(16) constexpr std::array<std::uint32_t, 64> kRound{
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// Section 5.3.3: fractional parts of the square roots of the first 8 primes.
constexpr std::array<std::uint32_t, 8> kInitial{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

std::uint32_t load_big_endian(const std::uint8_t* bytes) {
  return (std::uint32_t{bytes[0]} << 24) | (std::uint32_t{bytes[1]} << 16) |
         (std::uint32_t{bytes[2]} << 8) | std::uint32_t{bytes[3]};
}

std::array<std::uint32_t, 64> expand(const std::uint8_t* block) {
  std::array<std::uint32_t, 64> w;
  for (std::size_t t = 0; t < 16; ++t) w[t] = load_big_endian(block + 4 * t);
  for (std::size_t t = 16; t < 64; ++t) {
    const std::uint32_t x = w[t - 15];
    const std::uint32_t y = w[t - 2];
    const std::uint32_t sigma0 = std::rotr(x, 7) ^ std::rotr(x, 18) ^ (x >> 3);
    const std::uint32_t sigma1 = std::rotr(y, 17) ^ std::rotr(y, 19) ^ (y >> 10);
    w[t] = sigma1 + w[t - 7] + sigma0 + w[t - 16];
  }
  return w;
}

// Section 6.2.2 for `blocks` blocks of 64 bytes.
void compress_portable(std::uint32_t* state, const std::uint8_t* data, std::size_t blocks) {
  for (; blocks > 0; --blocks, data += 64) {
    const auto w = expand(data);
    std::array<std::uint32_t, 8> s;
    std::copy_n(state, 8, s.begin());
    for (std::size_t t = 0; t < 64; ++t) {
      const std::uint32_t e = s[4];
      const std::uint32_t a = s[0];
      const std::uint32_t big1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
      const std::uint32_t choose = (e & s[5]) ^ (~e & s[6]);
      const std::uint32_t t1 = s[7] + big1 + choose + kRound[t] + w[t];
      const std::uint32_t big0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
      const std::uint32_t majority = (a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]);
      s = {t1 + big0 + majority, a, s[1], s[2], s[3] + t1, e, s[5], s[6]};
    }
    for (std::size_t i = 0; i < 8; ++i) state[i] += s[i];
  }
}

#ifdef RAINGAUGE_X86_SHA
bool has_sha_instructions() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const bool sha = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & (1U << 29)) != 0;
  return sha && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}

// The instructions hold the eight words as (a b e f) and (c d g h), highest lane first, and do two
// rounds each.
__attribute__((target("sha,sse4.1,ssse3"))) void compress_x86(std::uint32_t* state,
                                                              const std::uint8_t* data,
                                                              std::size_t blocks) {
  const __m128i byte_swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
  auto* words = reinterpret_cast<__m128i*>(state);
  const __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128(words), 0xb1);
  const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(words + 1), 0x1b);
  __m128i abef = _mm_alignr_epi8(badc, hgfe, 8);
  __m128i cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);
  for (; blocks > 0; --blocks, data += 64) {
    const __m128i abef_before = abef;
    const __m128i cdgh_before = cdgh;
    __m128i w[4];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      if (i < 4) {
        const auto* source = reinterpret_cast<const __m128i*>(data) + i;
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128(source), byte_swap);
      } else {
        const __m128i w_minus_7 = _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4);
        const __m128i partial =
            _mm_add_epi32(_mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]), w_minus_7);
        w[i % 4] = _mm_sha256msg2_epu32(partial, w[(i + 3) % 4]);
      }
      const auto* constants = reinterpret_cast<const __m128i*>(kRound.data()) + i;
      const __m128i input = _mm_add_epi32(w[i % 4], _mm_load_si128(constants));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, input);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(input, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
  const __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128(words, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(words + 1, _mm_alignr_epi8(dchg, feba, 8));
}
#else
bool has_sha_instructions() { return false; }
void compress_x86(std::uint32_t* state, const std::uint8_t* data, std::size_t blocks) {
  compress_portable(state, data, blocks);
}
#endif

bool sha_instructions() {
  static const bool kHas = has_sha_instructions();
  return kHas;
}

}  // namespace

Sha256::Sha256(bool portable) : accelerated_(!portable && sha_instructions()), state_(kInitial) {}

void Sha256::update(const void* data, std::size_t bytes) {
  const auto* input = static_cast<const std::uint8_t*>(data);
  const auto compress = accelerated_ ? compress_x86 : compress_portable;
  total_ += bytes;
  if (buffered_ > 0) {
    const std::size_t taken = std::min(bytes, buffer_.size() - buffered_);
    std::memcpy(buffer_.data() + buffered_, input, taken);
    buffered_ += taken;
    input += taken;
    bytes -= taken;
    if (buffered_ < buffer_.size()) return;
    compress(state_.data(), buffer_.data(), 1);
    buffered_ = 0;
  }
  compress(state_.data(), input, bytes / 64);
  buffered_ = bytes % 64;
  if (buffered_ > 0) std::memcpy(buffer_.data(), input + (bytes - buffered_), buffered_);
}

std::string Sha256::finish() {
  const std::uint64_t bits = total_ * 8;
  // 0x80, zeros up to 56 modulo 64, then the length in bits, big endian (section 5.1.1).
  std::array<std::uint8_t, 72> padding{0x80};
  const std::size_t zeros_end = buffered_ < 56 ? 56 - buffered_ : 120 - buffered_;
  for (std::size_t i = 0; i < 8; ++i) {
    padding[zeros_end + i] = static_cast<std::uint8_t>(bits >> (56 - 8 * i));
  }
  update(padding.data(), zeros_end + 8);
  std::string hex;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[(word >> shift) & 0xfU];
  }
  return hex;
}

std::string sha256_hex(const void* data, std::size_t bytes) {
  Sha256 hash;
  hash.update(data, bytes);
  return hash.finish();
}

std::string sha256_file(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (!file) throw Error(path + ": cannot be opened to hash it: " + std::strerror(errno));
  Sha256 hash;
  std::vector<std::uint8_t> buffer(std::size_t{1} << 20);
  while (true) {
    const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), file.get());
    hash.update(buffer.data(), got);
    if (got == buffer.size()) continue;
    if (std::ferror(file.get()) != 0) {
      throw Error(path + ": cannot be read to hash it: " + std::strerror(errno));
    }
    return hash.finish();
  }
}

}  // namespace raingauge
