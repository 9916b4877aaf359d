// SPDX-License-Identifier: Apache-2.0
// The three element types of captured Q, K, V, and our own rounding between them and float.
// HDF5's library conversions are wrong at the edges (ties away from zero, large values halved), so
// no other code in the project converts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace raingauge {

enum class DType { f32, f16, bf16 };

std::size_t size_of(DType dtype);
std::string_view name_of(DType dtype);     // "f32", "f16", "bf16"
DType parse_dtype(std::string_view name);  // throws Error naming the three

// Round to nearest, ties to even; NaN stays NaN (quiet), overflow becomes Inf.
float bf16_to_float(std::uint16_t bits);
std::uint16_t float_to_bf16(float value);
float f16_to_float(std::uint16_t bits);
std::uint16_t float_to_f16(float value);

// `count` elements; source and target must not overlap.
void convert_to_float(const void* source, DType dtype, float* target, std::size_t count);
void convert_from_float(const float* source, void* target, DType dtype, std::size_t count);

// Unit roundoff of the type: 2^-24, 2^-11, 2^-8. Tolerances are derived from it.
double unit_roundoff(DType dtype);

}  // namespace raingauge
