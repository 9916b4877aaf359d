// SPDX-License-Identifier: Apache-2.0
// Rounding between float and the two 16-bit types. The scalar functions define the result; the bulk
// functions give the same bits faster (inner loops of a fixed length vectorise at -O2, and f16 uses
// the processor's conversion where there is one).
#include "data/dtype.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "data/error.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define RAINGAUGE_X86_F16C 1
#endif

namespace raingauge {
namespace {

constexpr std::size_t kStrip = 64;  // elements of one fixed-length inner loop

inline std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
inline float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }

// Branch-free so that loops over it vectorise.
inline std::uint16_t round_to_bf16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40U;
  const std::uint32_t is_nan = magnitude > 0x7f800000U ? 0xffffffffU : 0U;
  return static_cast<std::uint16_t>((quiet & is_nan) | (rounded & ~is_nan));
}

// `convert` maps one element; whole strips first, then the rest.
template <typename Source, typename Target, typename Convert>
void for_strips(const Source* source, Target* target, std::size_t count, Convert convert) {
  std::size_t i = 0;
  for (; i + kStrip <= count; i += kStrip) {
    const Source* __restrict in = source + i;
    Target* __restrict out = target + i;
    for (std::size_t j = 0; j < kStrip; ++j) out[j] = convert(in[j]);
  }
  for (; i < count; ++i) target[i] = convert(source[i]);
}

#ifdef RAINGAUGE_X86_F16C
bool has_f16c() {
  static const bool kHas = __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
  return kHas;
}

__attribute__((target("avx,f16c"))) std::size_t f16_to_float_f16c(const std::uint16_t* source,
                                                                  float* target,
                                                                  std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i));
    _mm256_storeu_ps(target + i, _mm256_cvtph_ps(half));
  }
  return i;
}

__attribute__((target("avx,f16c"))) std::size_t float_to_f16_f16c(const float* source,
                                                                  std::uint16_t* target,
                                                                  std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target + i), half);
  }
  return i;
}
#endif

void bulk_f16_to_float(const std::uint16_t* source, float* target, std::size_t count) {
  std::size_t done = 0;
#ifdef RAINGAUGE_X86_F16C
  if (has_f16c()) done = f16_to_float_f16c(source, target, count);
#endif
  for (; done < count; ++done) target[done] = f16_to_float(source[done]);
}

void bulk_float_to_f16(const float* source, std::uint16_t* target, std::size_t count) {
  std::size_t done = 0;
#ifdef RAINGAUGE_X86_F16C
  if (has_f16c()) done = float_to_f16_f16c(source, target, count);
#endif
  for (; done < count; ++done) target[done] = float_to_f16(source[done]);
}

[[noreturn]] void throw_unknown(DType dtype) {
  throw Error("element type " + std::to_string(static_cast<int>(dtype)) +
              " is not one of f32, f16, bf16");
}

}  // namespace

std::size_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
  }
  throw_unknown(dtype);
}

DType parse_dtype(std::string_view name) {
  if (name == "f32") return DType::f32;
  if (name == "f16") return DType::f16;
  if (name == "bf16") return DType::bf16;
  throw Error("unknown element type `" + std::string(name) + "`: allowed are f32, f16, bf16");
}

float bf16_to_float(std::uint16_t bits) { return float_of(std::uint32_t{bits} << 16); }

std::uint16_t float_to_bf16(float value) { return round_to_bf16(value); }

float f16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fU;
  const std::uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0x1fU) {  // Inf, or NaN made quiet as processors do
    const std::uint32_t quiet = mantissa != 0 ? 0x400000U : 0U;
    return float_of(sign | 0x7f800000U | quiet | (mantissa << 13));
  }
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24 is exact in float
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return float_of(sign | bits_of(magnitude));
  }
  return float_of(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

std::uint16_t float_to_f16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) {
    return static_cast<std::uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
  }
  // 65520 lies halfway between the largest f16 and the next step: it and all above become Inf.
  if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
  if (magnitude < 0x38800000U) {
    // Below 2^-14 f16 steps by 2^-24: adding 0.5 makes float's own step 2^-24, so the addition
    // rounds (to nearest, ties to even) and leaves the result in the low bits.
    const float shifted = float_of(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (bits_of(shifted) - bits_of(0.5F)));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1U;
  const std::uint32_t rebiased = magnitude - (112U << 23) + 0xfffU + odd;
  return static_cast<std::uint16_t>(sign | (rebiased >> 13));
}

void convert_to_float(const void* source, DType dtype, float* target, std::size_t count) {
  if (count == 0) return;
  switch (dtype) {
    case DType::f32:
      std::memcpy(target, source, count * sizeof(float));
      return;
    case DType::f16:
      bulk_f16_to_float(static_cast<const std::uint16_t*>(source), target, count);
      return;
    case DType::bf16:
      for_strips(static_cast<const std::uint16_t*>(source), target, count,
                 [](std::uint16_t bits) { return float_of(std::uint32_t{bits} << 16); });
      return;
  }
  throw_unknown(dtype);
}

void convert_from_float(const float* source, void* target, DType dtype, std::size_t count) {
  if (count == 0) return;
  switch (dtype) {
    case DType::f32:
      std::memcpy(target, source, count * sizeof(float));
      return;
    case DType::f16:
      bulk_float_to_f16(source, static_cast<std::uint16_t*>(target), count);
      return;
    case DType::bf16:
      for_strips(source, static_cast<std::uint16_t*>(target), count, round_to_bf16);
      return;
  }
  throw_unknown(dtype);
}

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0x1p-24;
    case DType::f16:
      return 0x1p-11;
    case DType::bf16:
      return 0x1p-8;
  }
  throw_unknown(dtype);
}

}  // namespace raingauge
