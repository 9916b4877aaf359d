// SPDX-License-Identifier: Apache-2.0
// The Hopper kernels behind a C interface for hopper_kernels.py: bf16 [tokens, heads, head_dim], blocks
// of 128, everything in device memory, the default stream.
#include "methods/kernels/cuda/forward_sm90.h"
#include "methods/kernels/cuda/mass.h"

using namespace raingauge::cuda_walk;

namespace {

SparseParams params_of(const void* q, void* o, float* lse, int heads, int tokens, int head_dim,
                       const void* items, int item_count, int* counter, float scale_log2) {
  SparseParams p{};
  p.q = q;
  p.q_head_stride = p.o_head_stride = head_dim;
  p.q_token_stride = p.o_token_stride = std::int64_t{heads} * head_dim;
  p.o = o;
  p.lse = lse;
  p.lse_head_stride = tokens;
  p.items = static_cast<const TileItem*>(items);
  p.item_count = item_count;
  p.table = {nullptr, 0, tokens, 128};
  p.heads = heads;
  p.group = 1;
  p.scale_log2 = scale_log2;
  p.counter = counter;
  return p;
}

}  // namespace

extern "C" int attend(const void* q, const void* k, const void* v, void* o, float* lse, int heads,
                      int tokens, int head_dim, const void* items, int item_count, const int* boxes,
                      int* counter, float scale_log2, int every_box) {
  SparseParams p =
      params_of(q, o, lse, heads, tokens, head_dim, items, item_count, counter, scale_log2);
  p.boxes = boxes;
  p.every_box = every_box;
  const std::int64_t stride = std::int64_t{heads} * head_dim;
  return launch_sparse_sm90(p, {k, head_dim, stride, tokens}, {v, head_dim, stride, tokens},
                            Element::bf16, head_dim, nullptr);
}

extern "C" int oracle(const void* q, const void* k, float* lse, float* levels, float* mass,
                      int heads, int tokens, int head_dim, const void* items, int item_count,
                      const int* q_offsets, const int* first_box, int blocks, int* counter,
                      float scale_log2) {
  MassParams m{};
  m.attend =
      params_of(q, nullptr, lse, heads, tokens, head_dim, items, item_count, counter, scale_log2);
  m.boxes = blocks;
  m.positions = tokens;
  m.levels = levels;
  const std::int64_t stride = std::int64_t{heads} * head_dim;
  const int status =
      launch_levels_sm90(m, {k, head_dim, stride, tokens}, Element::bf16, head_dim, nullptr);
  if (status != 0) return status;
  return launch_shares(
      {levels, lse, q_offsets, first_box, nullptr, heads, blocks, tokens, blocks, blocks, mass},
      nullptr);
}
