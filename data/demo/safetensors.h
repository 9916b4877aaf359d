// SPDX-License-Identifier: Apache-2.0
// Named tensors in one file: u64 little-endian header length, JSON header, raw data
// (https://github.com/huggingface/safetensors). Fp32 and bf16 only.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace raingauge::demo {

struct TensorFile {
  std::map<std::string, at::Tensor> tensors;    // on the CPU, contiguous
  std::map<std::string, std::string> metadata;  // values are strings in this format
};

// Every offset, shape and length is checked against the file: a truncated or hostile one is an
// Error, never a read out of bounds or an outsized allocation.
TensorFile read_tensors(const std::filesystem::path& path);

// Replaces `path` in one step: an interrupted write leaves the old file.
void write_tensors(const std::filesystem::path& path, const TensorFile& file);

}  // namespace raingauge::demo
