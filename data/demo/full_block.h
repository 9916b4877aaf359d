// SPDX-License-Identifier: Apache-2.0
// One transformer block of a real video model at its real size, with random weights and random input:
// what share of its time is attention, and what do q, k and v look like in shape and layout? Without
// the weights nothing is claimed of what such a model attends to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/record.h"

namespace raingauge::demo {

// A block's architecture is its model's; grid and heads may be made smaller for tests.
struct FullBlockSpec {
  std::string model;      // a name of full_block_models()
  std::vector<int> grid;  // {frames, height, width} in tokens; empty: the model's
  int heads = 0;          // 0: the model's
  std::uint64_t seed = 0;
};

// Models whose block is here, with what the block is: "wan21-14b-720p", …
struct FullBlockModel {
  std::string name, help;
};
std::vector<FullBlockModel> full_block_models();

// Heads, tokens, segments and scale of its attention. Throws Error for an unknown model.
RecordInfo full_block_info(const FullBlockSpec& spec);

class FullBlock {
 public:
  // Throws Error (unknown model, no such device).
  FullBlock(const FullBlockSpec& spec, const Device& device, int threads);
  ~FullBlock();
  FullBlock(const FullBlock&) = delete;
  FullBlock& operator=(const FullBlock&) = delete;

  // q, k, v of one run in host memory, bf16, after QK norm and RoPE. `heads`: empty means all.
  std::unique_ptr<Record> record(const std::vector<int>& heads = {}) const;

  // Milliseconds of one run of everything but attention: modulation, norms, projections, RoPE,
  // cross-attention where there is one, feed-forward. Libtorch's operators one after another.
  double surroundings_ms() const;

  // The same with libtorch's dense attention inside, from the block's input to its output.
  double whole_ms() const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace raingauge::demo
