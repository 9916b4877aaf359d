// SPDX-License-Identifier: Apache-2.0
// The output of one kernel on one record, for comparison with other programs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace raingauge {

struct AttentionFile {
  std::int64_t heads = 0, tokens = 0, head_dim = 0;
  std::vector<float> o;    // [heads, tokens, head_dim], the record's token order
  std::vector<float> lse;  // [heads, tokens], natural log of scaled scores; empty: none
  std::vector<int> head_numbers;
  // String attributes of the root: capture, record, arm, kernel, device …
  std::vector<std::pair<std::string, std::string>> attributes;
};

// Datasets `o`, `lse` (float32) and `heads` (int32). Replaces an existing file.
void write_attention_file(const std::string& path, const AttentionFile& file);

// Reads `o` and its shape only. Throws Error.
AttentionFile read_attention_file(const std::string& path);

}  // namespace raingauge
