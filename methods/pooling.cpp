// SPDX-License-Identifier: Apache-2.0
// Block means at memory speed, and their products.
#include "methods/pooling.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "data/error.h"
#include "methods/kernels/cpu/buffer.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

using cpu::kUnit;

void pool_block(const cpu::LevelOps& ops, const TensorView& x, std::int64_t head,
                const Orders& order, std::int32_t begin, std::int32_t end, float* mean,
                const std::uint8_t* key_valid) {
  constexpr std::int64_t kBatch = 256;  // rows handed over at once
  const void* rows[kBatch];
  std::int64_t waiting = 0;
  std::int64_t tokens = 0;
  std::fill(mean, mean + x.head_dim, 0.0F);
  for (std::int32_t position = begin; position < end; ++position) {
    const std::int32_t token = order.token(head, position);
    if (key_valid != nullptr && key_valid[token] == 0) {
      continue;
    }
    rows[waiting++] = x.row(head, token);
    ++tokens;
    if (waiting == kBatch) {
      ops.add_rows(x.dtype, static_cast<int>(x.head_dim), rows, waiting, mean);
      waiting = 0;
    }
  }
  if (waiting > 0) {
    ops.add_rows(x.dtype, static_cast<int>(x.head_dim), rows, waiting, mean);
  }
  for (std::int64_t c = 0; c < x.head_dim && tokens > 0; ++c) {
    mean[c] /= static_cast<float>(tokens);
  }
}

}  // namespace

void pool_blocks(const TensorView& x, std::int64_t head, const Orders& order, const Layout& layout,
                 float* means, const std::uint8_t* key_valid, int threads) {
  if (x.device.kind != DeviceKind::cpu) {
    throw Error("pool_blocks: the tensor is on " + to_string(x.device) + "; host memory is needed");
  }
  const cpu::LevelOps& ops = cpu::level_ops();
  constexpr std::int64_t kBlocksPerItem = 8;
  const std::int64_t items = (layout.blocks + kBlocksPerItem - 1) / kBlocksPerItem;
  parallel_for(threads, items, [&](std::int64_t item, int) {
    const std::int64_t last = std::min(layout.blocks, (item + 1) * kBlocksPerItem);
    for (std::int64_t b = item * kBlocksPerItem; b < last; ++b) {
      pool_block(ops, x, head, order, layout.begin(head, b), layout.end(head, b),
                 means + b * x.head_dim, key_valid);
    }
  });
}

void pooled_scores(const float* qmeans, std::int64_t nq, const float* kmeans, std::int64_t nk,
                   std::int64_t d, float scale, float* scores, int threads) {
  if (nq == 0 || nk == 0) {
    return;
  }
  const cpu::LevelOps& ops = cpu::level_ops();
  const cpu::PackShape shape{DType::f32, static_cast<int>(d), cpu::Products::floats};
  const std::int64_t units = (nk + kUnit - 1) / kUnit;
  const std::size_t words = shape.k_unit_words();
  const auto packed = cpu::make_buffer<std::uint32_t>(static_cast<std::size_t>(units) * words);
  constexpr std::int64_t kUnitsPerItem = 8;  // less is not worth waking a thread
  parallel_for(threads, (units + kUnitsPerItem - 1) / kUnitsPerItem, [&](std::int64_t item, int) {
    const std::int64_t last = std::min(units, (item + 1) * kUnitsPerItem);
    for (std::int64_t unit = item * kUnitsPerItem; unit < last; ++unit) {
      const void* rows[kUnit];
      for (int i = 0; i < kUnit; ++i) {
        const std::int64_t key = unit * kUnit + i;
        rows[i] = key < nk ? kmeans + key * d : nullptr;
      }
      ops.pack_k(shape, rows, packed.get() + static_cast<std::size_t>(unit) * words);
    }
  });
  constexpr std::int64_t kRowsPerItem = 96;
  const int workers = resolve_threads(threads);
  const std::size_t scratch_size = cpu::scratch_floats(shape.head_dim);
  const auto scratch = cpu::make_buffer<float>(static_cast<std::size_t>(workers) * scratch_size);
  parallel_for(workers, (nq + kRowsPerItem - 1) / kRowsPerItem, [&](std::int64_t item, int worker) {
    const std::int64_t first = item * kRowsPerItem;
    ops.scores(qmeans + first * d, std::min(kRowsPerItem, nq - first), shape.head_dim, packed.get(),
               nk, scale, scratch.get() + static_cast<std::size_t>(worker) * scratch_size,
               scores + first * nk, nk);
  });
}

}  // namespace raingauge
