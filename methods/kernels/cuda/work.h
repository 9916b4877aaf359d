// SPDX-License-Identifier: Apache-2.0
// A plan as the CUDA kernel wants it: work items, longest first, and the key runs of each. Pure host
// code, in every build.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"
#include "methods/kernels/cuda/block_walk.h"

namespace raingauge {

struct CudaWork {
  int row_tile = 128;                      // query rows of one work item, 64 or 128
  std::int64_t valid_keys = 0;             // of every head
  std::vector<std::int32_t> key_tokens;    // [k_order.rows, valid_keys], block order
  std::vector<cuda_walk::KeyRun> runs;     // of all items, and one more that is never used
  std::vector<cuda_walk::WorkItem> items;  // by falling number of key tiles; ties: head, position
  double density_tiles = 0.0;              // elements of executed tiles / of all tiles
};

// key_valid is [tokens] in record order or null. Throws Unsupported when a count exceeds int32.
CudaWork make_cuda_work(const Plan& plan, const std::uint8_t* key_valid, int threads = 0);

}  // namespace raingauge
