// SPDX-License-Identifier: Apache-2.0
// The block-sparse forward pass on Hopper (sm_90a). One thread block per multiprocessor stays for the
// whole launch and takes work items (128 query rows and a list of key boxes) from a counter, longest
// first. Its first warpgroup copies, the others compute 64 query rows each:
//   warp 0        walks the list, 32 entries read ahead, and sends K and V boxes through a ring of
//                 slots with the tensor copy engine, up to a work item ahead of the arithmetic;
//   warps 1, 2    gather the query rows of the next item (by token, so query orders are free);
//   warpgroups    S = Q K^T (wgmma), online softmax in base 2, O += P V (wgmma, P in registers).
// A warpgroup issues Q K^T of step i+1 and P V of step i back to back; its softmax then runs beside
// the other warpgroup's products. The chain does not break between items: the first product of the
// next item goes out with the last of this one. A further step takes its weights under the reference
// (the running maximum of online softmax) as it stands and looks at their sum instead of at the
// maximum: only when weights grow beyond a limit are the maximum found, the reference moved and the
// weights made again. Rows leave through shared memory by each warp alone.
#pragma once

#include <algorithm>
#include <cmath>

#include "methods/kernels/cuda/pipeline_sm90.cuh"

namespace raingauge::cuda_walk::sm90 {

// What a thread's weights of one step may sum to under a kept reference. Weights are relative numbers:
// only overflow bounds them, of f16 itself, or of fp32 sums of bf16 weights times large values.
template <Element kElement>
constexpr float kLimit = kElement == Element::f16 ? 32768.0F : 4294967296.0F;

// The largest scaled score of both rows of this thread.
__device__ __forceinline__ void find_tops(const float (&score)[64], float scale_log2,
                                          float (&tops)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top[2] = {fmaxf(score[half * 2], score[half * 2 + 1]),
                    fmaxf(score[half * 2 + 4], score[half * 2 + 5])};
#pragma unroll
    for (int j = 2; j < 16; ++j) {
      top[j & 1] = fmaxf(top[j & 1], score[j * 4 + half * 2]);
      top[j & 1] = fmaxf(top[j & 1], score[j * 4 + half * 2 + 1]);
    }
    float m = fmaxf(top[0], top[1]);
    m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 1));
    m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 2));
    tops[half] = m * scale_log2;
  }
}

// 64 query rows of a warpgroup, of which a thread holds parts of two: unnormalised output, reference
// and sum of the weights. Online softmax in base 2.
template <class C>
struct Rows {
  float out[C::kDim / 2];
  float reference[2];  // of the weights; -inf until the row meets a score above it
  float sum[2];        // this thread's part of the row sums

  // What the exponents subtract: a row that has met only -inf subtracts 0.
  __device__ __forceinline__ float base(int half) const {
    return reference[half] == -INFINITY ? 0.0F : reference[half];
  }
  __device__ __forceinline__ void scale_out(const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < C::kDim / 2; ++i) out[i] *= factor[(i >> 1) & 1];
  }
  // Whether weights that were taken with the references as they are keep their precision; `add` are
  // their sums. Rows that have met only -inf have the reference -inf, hence infinite or NaN weights, and
  // do not fit either.
  static __device__ __forceinline__ bool fit(const float (&add)[2]) {
    constexpr float kMost = kLimit<C::kElement>;
    return add[0] <= kMost && add[1] <= kMost;
  }
  // Moves the references of the rows whose weights do not fit; the others keep theirs, so that no row's
  // bits depend on its neighbours.
  __device__ __forceinline__ void move_references(const float (&score)[64], float scale_log2,
                                                  const float (&add)[2]) {
    constexpr float kMost = kLimit<C::kElement>;
    float tops[2];
    float shrink[2];
    find_tops(score, scale_log2, tops);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const unsigned row =
          __ballot_sync(kAllLanes, !(add[half] <= kMost)) >> (threadIdx.x & 28) & 15U;
      const float former = reference[half];
      if (row != 0) reference[half] = fmaxf(former, tops[half]);
      shrink[half] = row != 0 ? exp2_unit(former - base(half)) : 1.0F;
      sum[half] *= shrink[half];
    }
    scale_out(shrink);
  }
};

// Weights 2^(score - base), packed as the second product's operand, and their sums in this thread.
template <Element kElement>
__device__ __forceinline__ void weigh(const float (&score)[64], float scale_log2, float base0,
                                      float base1, std::uint32_t (&weight)[32], float (&add)[2]) {
  const float bases[2] = {base0, base1};
  float part[2][2] = {{0.0F, 0.0F}, {0.0F, 0.0F}};
#pragma unroll
  for (int i = 0; i < 64; i += 2) {
    const int half = (i >> 1) & 1;
    float w[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      w[j] = exp2_unit(fmaf(score[i + j], scale_log2, -bases[half]));
      part[half][j] += w[j];
    }
    weight[i >> 1] = pack<kElement>(w[0], w[1]);
  }
  add[0] = part[0][0] + part[0][1];
  add[1] = part[1][0] + part[1][1];
}

// out += weight * V of a slot; issued, not waited for.
template <class C>
__device__ __forceinline__ void issue_values(float (&out)[C::kDim / 2], std::uint32_t (&weight)[32],
                                             std::uint32_t v_slot, int accumulate) {
  const std::uint64_t v = matrix(v_slot, kStepKeys * 128, 1024);
  pin(out);
  pin(weight);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kStepKeys / 16; ++i) {
    multiply_pv<C::kElement>(out, weight + 4 * i, v + i * (2048 / 16), i == 0 ? accumulate : 1);
  }
  wgmma_commit();
  pin(out);
}

// ---- results ----------------------------------------------------------------------------------

// Where the sixteen rows of a warp go.
struct Target {
  int head;
  int token;           // of row (lane & 15) of the warp; -1 beyond the item
  int first;           // of the warp's rows in the query tile
  std::uint32_t tile;  // shared address of the query tile, whose rows of this warp are free
};

template <class C>
__device__ __forceinline__ void write_float(const SparseParams& p, const Rows<C>& rows,
                                            const Target& to) {
  const int lane = static_cast<int>(threadIdx.x & 31);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = __shfl_sync(kAllLanes, to.token, half * 8 + (lane >> 2));
    if (token < 0) continue;
    float* target = static_cast<float*>(p.o) + to.head * p.o_head_stride +
                    token * p.o_token_stride + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < C::kDim / 8; ++j) {
      if (j * 8 >= channels<C>(p)) break;
      *reinterpret_cast<float2*>(target + j * 8) =
          make_float2(rows.out[j * 4 + half * 2], rows.out[j * 4 + half * 2 + 1]);
    }
  }
}
// Through the warp's own sixteen rows of the query tile, which its last product has read.
template <class C>
__device__ __forceinline__ void write_element(const SparseParams& p, const Rows<C>& rows,
                                              const Target& to) {
  constexpr int kChunks = C::kDim / 8;
  constexpr int kRowsAtOnce = 32 / kChunks;
  const int lane = static_cast<int>(threadIdx.x & 31);
  const float(&out)[C::kDim / 2] = rows.out;
#pragma unroll
  for (int j = 0; j < kChunks; j += 2) {
    const int row = to.first + (lane & 15);
    store_matrices(to.tile + tile_byte(row, j + (lane >> 4), C::kRows),
                   pack<C::kElement>(out[j * 4], out[j * 4 + 1]),
                   pack<C::kElement>(out[j * 4 + 2], out[j * 4 + 3]),
                   pack<C::kElement>(out[j * 4 + 4], out[j * 4 + 5]),
                   pack<C::kElement>(out[j * 4 + 6], out[j * 4 + 7]));
  }
  __syncwarp();
  const int chunk = lane % kChunks;
#pragma unroll
  for (int i = 0; i < 16; i += kRowsAtOnce) {
    const int row = i + lane / kChunks;
    const int token = __shfl_sync(kAllLanes, to.token, row);
    const uint4 value = load_shared(to.tile + tile_byte(to.first + row, chunk, C::kRows));
    if (token < 0 || chunk * 8 >= channels<C>(p)) continue;
    char* target = static_cast<char*>(p.o) +
                   2 * (to.head * p.o_head_stride + token * p.o_token_stride + chunk * 8);
    *reinterpret_cast<uint4*>(target) = value;
  }
}
// Normalises and writes the rows of a warp and their log-sum-exps.
template <class C>
__device__ __forceinline__ void write_rows(const SparseParams& p, Rows<C>& rows, const Target& to) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  float inverse[2];
  float total[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] = rows.sum[half];
    total[half] += __shfl_xor_sync(kAllLanes, total[half], 1);
    total[half] += __shfl_xor_sync(kAllLanes, total[half], 2);
    inverse[half] = total[half] == 0.0F ? 0.0F : 1.0F / total[half];
  }
  rows.scale_out(inverse);
  if (p.lse != nullptr) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = __shfl_sync(kAllLanes, to.token, half * 8 + (lane >> 2));
      if ((lane & 3) == 0 && token >= 0) {
        p.lse[to.head * p.lse_head_stride + token] =
            total[half] == 0.0F ? -INFINITY : (rows.base(half) + log2f(total[half])) * kLn2;
      }
    }
  }
  if (p.o_is_float) {
    write_float<C>(p, rows, to);
  } else {
    write_element<C>(p, rows, to);
  }
}
// Rows without a key.
template <class C>
__device__ void write_empty(const SparseParams& p, const Target& to) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  for (int row = 0; row < 16; ++row) {
    const int token = __shfl_sync(kAllLanes, to.token, row);
    if (token < 0) continue;
    if (lane == 0 && p.lse != nullptr) p.lse[to.head * p.lse_head_stride + token] = -INFINITY;
    const std::int64_t at = to.head * p.o_head_stride + token * p.o_token_stride;
    for (int d = lane; d < channels<C>(p); d += 32) {
      if (p.o_is_float) {
        static_cast<float*>(p.o)[at + d] = 0.0F;
      } else {
        static_cast<std::uint16_t*>(p.o)[at + d] = 0;
      }
    }
  }
}

// ---- the computing warpgroups -----------------------------------------------------------------

template <class C>
class Consumer {
 public:
  __device__ Consumer(const SparseParams& params, const Shared<C>& shared)
      : p(params),
        s(shared),
        group(static_cast<int>(threadIdx.x / 128) - 1),
        warp(static_cast<int>(threadIdx.x / 32) & 3),
        lane(static_cast<int>(threadIdx.x & 31)) {}

  __device__ __forceinline__ void run() {
    if (C::kToken && group == C::kConsumers - 1) named_arrive(1, 256);  // the first may issue
    for (;;) {
      next_item();
      skip_empty();
      if (item.count < 0) return;
      open();
      for (;;) {
        const int steps = step_count(p.table, item.count);
        for (int i = 1; i < steps; ++i) step();
        const Item done = item;
        next_item();
        if (item.count <= 0) {
          close(done);
          skip_empty();
          if (item.count < 0) return;
          open();
        } else {
          chain(done);
        }
      }
    }
  }

 private:
  struct Item {
    int head, count;
    int token;  // of row (lane & 15) of this warp; -1 beyond the item
  };

  __device__ __forceinline__ void next_item() {
    const Message m = read_message(s.control, message);
    item.head = m.head;
    item.count = m.count;
    const int row = first_row() + (lane & 15);
    item.token = m.count >= 0 && row < m.q_rows
                     ? static_cast<int>(query_token(p, m.head, m.q_first + row))
                     : -1;
    q_read = q_next;
    q_next.advance();
  }
  __device__ __forceinline__ void skip_empty() {
    while (item.count == 0) {
      wait_q();
      write_empty<C>(p, target(item));
      release_q();
      next_item();
    }
  }
  __device__ __forceinline__ int first_row() const { return group * 64 + warp * 16; }
  __device__ __forceinline__ Target target(const Item& done) const {
    return {done.head, done.token, first_row(), s.q_tile(q_done.slot)};
  }
  __device__ __forceinline__ void release_q() {
    barrier_arrive(shared_address(&s.control->q_empty[q_done.slot]));
    q_done.advance();
  }
  __device__ __forceinline__ void wait_q() {
    barrier_wait(shared_address(&s.control->q_full[q_read.slot]), q_read.phase);
  }
  __device__ __forceinline__ int wait_slot() {
    const int slot = ring.slot;
    barrier_wait(shared_address(&s.control->slot_full[slot]), ring.phase);
    ring.advance();
    return slot;
  }
  __device__ __forceinline__ void take_token() {
    if (C::kToken) named_sync(1 + group, 256);
  }
  __device__ __forceinline__ void pass_token() {
    if (C::kToken) named_arrive(1 + (group + 1) % C::kConsumers, 256);
  }

  __device__ __forceinline__ void issue_qk(int slot) {
    issue_scores<C>(score, s.q_tile(q_read.slot) + static_cast<std::uint32_t>(group * 64 * 128),
                    s.slot(slot));
  }
  __device__ __forceinline__ void issue_pv(int slot) {
    issue_values<C>(rows.out, weight, s.slot(slot), accumulate);
    accumulate = 1;
  }
  __device__ __forceinline__ void finish_pv(int v) {
    wgmma_wait<0>();
    pin(rows.out);
    pin(weight);
    release_slot(s.control, v);
  }

  // The weights of a further step, first taken with the references as they are.
  __device__ __forceinline__ void soften(int v) {
    float add[2];
    finish_pv(v);
    weigh<C::kElement>(score, p.scale_log2, rows.reference[0], rows.reference[1], weight, add);
    if (!__all_sync(kAllLanes, Rows<C>::fit(add))) {
      rows.move_references(score, p.scale_log2, add);
      weigh<C::kElement>(score, p.scale_log2, rows.base(0), rows.base(1), weight, add);
    }
    rows.sum[0] += add[0];
    rows.sum[1] += add[1];
  }

  // ---- the steps of an item ----
  __device__ __forceinline__ void open() {
    wait_q();
    const int k = wait_slot();
    const std::uint32_t columns = columns_of(s.control->columns, k);
    take_token();
    issue_qk(k);
    pass_token();
    wgmma_wait<0>();
    pin(score);
    release_slot(s.control, k);
    start(columns);
  }
  __device__ __forceinline__ void start(std::uint32_t columns) {
    mask_columns(score, columns);
    find_tops(score, p.scale_log2, rows.reference);
    weigh<C::kElement>(score, p.scale_log2, rows.base(0), rows.base(1), weight, rows.sum);
    accumulate = 0;
  }
  __device__ __forceinline__ void step() {
    const int k = wait_slot();
    const std::uint32_t columns = columns_of(s.control->columns, k);
    take_token();
    issue_qk(k);
    const int v = wait_slot();
    issue_pv(v);
    pass_token();
    wgmma_wait<1>();
    pin(score);
    release_slot(s.control, k);
    mask_columns(score, columns);
    soften(v);
  }
  // The last product of one item beside the first of the next.
  __device__ __forceinline__ void chain(const Item& done) {
    wait_q();
    const int k = wait_slot();
    const std::uint32_t columns = columns_of(s.control->columns, k);
    take_token();
    issue_qk(k);
    const int v = wait_slot();
    issue_pv(v);
    pass_token();
    wgmma_wait<0>();
    pin(score);
    pin(rows.out);
    pin(weight);
    release_slot(s.control, k);
    release_slot(s.control, v);
    write(done);
    start(columns);
  }
  __device__ __forceinline__ void close(const Item& done) {
    const int v = wait_slot();
    take_token();
    issue_pv(v);
    pass_token();
    finish_pv(v);
    write(done);
  }
  __device__ __forceinline__ void write(const Item& done) {
    write_rows<C>(p, rows, target(done));
    release_q();
  }

  const SparseParams& p;
  const Shared<C>& s;
  int group, warp, lane;
  Cursor<C::kSlots> ring;
  Cursor<2> message, q_read, q_next, q_done;
  Item item{0, 0, -1};
  float score[64];
  std::uint32_t weight[32];
  Rows<C> rows;
  int accumulate = 0;
};

template <class C>
__global__ void __launch_bounds__(C::kThreads, 1)
    sparse_forward(const __grid_constant__ CUtensorMap k_map,
                   const __grid_constant__ CUtensorMap v_map,
                   const __grid_constant__ SparseParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ unsigned char raw[];
  const Shared<C> s = share<C>(raw);
  if (threadIdx.x < 128) {
    registers_down<C::kCopierRegisters>();
    copy_all<C>(p, s, &k_map, &v_map);
  } else {
    registers_up<C::kConsumerRegisters>();
    Consumer<C>(p, s).run();
  }
#else
  __trap();  // compiled for another target; launch() refuses before this
#endif
}

template <class C>
cudaError_t launch(const SparseParams& params, const KeyTensor& k, const KeyTensor& v,
                   cudaStream_t stream) {
  if (params.item_count == 0) return cudaSuccess;
  const int kv_heads = params.heads / params.group;
  CUtensorMap k_map;
  CUtensorMap v_map;
  cudaError_t status =
      encode_map(k_map, k, C::kElement, params.head_dim, kv_heads, params.table.box_keys);
  if (status != cudaSuccess) return status;
  status = encode_map(v_map, v, C::kElement, params.head_dim, kv_heads, params.table.box_keys);
  if (status != cudaSuccess) return status;
  int blocks = 0;
  status = ready(sparse_forward<C>, C::kSharedBytes, blocks);
  if (status != cudaSuccess) return status;
  blocks = std::min(blocks, params.item_count);
  sparse_forward<C><<<static_cast<unsigned>(blocks), C::kThreads, C::kSharedBytes, stream>>>(
      k_map, v_map, params);
  return cudaGetLastError();
}

}  // namespace raingauge::cuda_walk::sm90
