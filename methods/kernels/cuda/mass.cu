// SPDX-License-Identifier: Apache-2.0
// The forward kernel's copies and first product; instead of the second, every step leaves the
// logarithm of each row's sum over each box. Rows keep a reference as in the forward kernel: a sum
// relative to it is exact in fp32 as long as it neither overflows (the reference moves) nor falls
// below 2^-126 of it, which no later sum of the row can notice.
#include "methods/kernels/cuda/mass.h"

#include "methods/kernels/cuda/pipeline_sm90.cuh"

namespace raingauge::cuda_walk {
namespace sm90 {

constexpr bool kInTurn = true;  // in step, the warpgroups would multiply and exponentiate together

template <class C>
class Measurer {
 public:
  static constexpr float kLargestSum = 1.0e18F;

  __device__ Measurer(const MassParams& params, const Shared<C>& shared)
      : m(params),
        p(params.attend),
        s(shared),
        group(static_cast<int>(threadIdx.x / 128) - 1),
        warp(static_cast<int>(threadIdx.x / 32) & 3),
        lane(static_cast<int>(threadIdx.x & 31)) {}

  __device__ __forceinline__ void run() {
    Cursor<2> message;
    Cursor<2> q;
    if (C::kToken && group == C::kConsumers - 1) named_arrive(1, 256);  // the first may issue
    for (;;) {
      item = read_message(s.control, message);
      if (item.count < 0) return;
      barrier_wait(shared_address(&s.control->q_full[q.slot]), q.phase);
      total[0] = total[1] = 0.0F;
      const int steps = step_count(p.table, item.count);
      for (int i = 0; i < steps; ++i) step(i, s.q_tile(q.slot));
      write_lse();
      barrier_arrive(shared_address(&s.control->q_empty[q.slot]));
      q.advance();
    }
  }

 private:
  __device__ __forceinline__ void step(int i, std::uint32_t tile) {
    const int slot = ring.slot;
    barrier_wait(shared_address(&s.control->slot_full[slot]), ring.phase);
    ring.advance();
    const std::uint32_t columns = columns_of(s.control->columns, slot);
    if (C::kToken) named_sync(1 + group, 256);
    issue_scores<C>(score, tile + static_cast<std::uint32_t>(group * 64 * 128), s.slot(slot));
    if (C::kToken) named_arrive(1 + (group + 1) % C::kConsumers, 256);
    wgmma_wait<0>();
    pin(score);
    release_slot(s.control, slot);
    mask_columns(score, columns);
    if (i == 0) find_references();
    measure(i);
  }

  // The largest scaled scores of both rows become the references; a row of -inf gets 0.
  __device__ __forceinline__ void find_references() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = -INFINITY;
#pragma unroll
      for (int e = 0; e < 64; ++e) {
        if (((e >> 1) & 1) == half) top = fmaxf(top, score[e]);
      }
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      const float now = top * p.scale_log2;
      const bool first = total[half] == 0.0F;
      const float former = reference[half];
      reference[half] = first ? (now == -INFINITY ? 0.0F : now) : fmaxf(former, now);
      total[half] = first ? 0.0F : total[half] * exp2_unit(former - reference[half]);
    }
  }

  // sums[row half][box of the step] over the row's four threads; one box of 128: all in the first.
  __device__ __forceinline__ void add_up(float (&sums)[2][2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) sums[half][0] = sums[half][1] = 0.0F;
#pragma unroll
    for (int e = 0; e < 64; ++e) {
      const int half = (e >> 1) & 1;
      sums[half][e >> 5] += exp2_unit(fmaf(score[e], p.scale_log2, -reference[half]));
    }
    const bool pairs = p.table.box_keys == kHalfKeys;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (pairs) {
        sums[half][1] = over_row(sums[half][1]);
      } else {
        sums[half][0] += sums[half][1];
        sums[half][1] = 0.0F;
      }
      sums[half][0] = over_row(sums[half][0]);
    }
  }
  static __device__ __forceinline__ float over_row(float x) {
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
  }

  __device__ __forceinline__ void measure(int i) {
    float sums[2][2];
    add_up(sums);
    const float all = fmaxf(sums[0][0] + sums[0][1], sums[1][0] + sums[1][1]);
    // A row of which nothing was above 2^-126 yet may have a reference that is far too high.
    const bool lost =
        total[0] + sums[0][0] + sums[0][1] == 0.0F || total[1] + sums[1][0] + sums[1][1] == 0.0F;
    if (__any_sync(kAllLanes, !(all <= kLargestSum) || lost)) {
      find_references();
      add_up(sums);
    }
    const bool pairs = p.table.box_keys == kHalfKeys;
    const int box = pairs ? 2 * i : i;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] += sums[half][0] + sums[half][1];
      const int row = group * 64 + warp * 16 + half * 8 + (lane >> 2);
      if ((lane & 3) != 0 || row >= item.q_rows) continue;
      float* target =
          m.levels + (std::int64_t{item.head} * m.boxes + box) * m.positions + item.q_first + row;
      if (!pairs) {
        *target = reference[half] + log2_unit(sums[half][0] + sums[half][1]);
      } else {
        *target = reference[half] + log2_unit(sums[half][0]);
        if (box + 1 < m.boxes) target[m.positions] = reference[half] + log2_unit(sums[half][1]);
      }
    }
  }

  __device__ __forceinline__ void write_lse() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = group * 64 + warp * 16 + half * 8 + (lane >> 2);
      if ((lane & 3) != 0 || row >= item.q_rows) continue;
      p.lse[item.head * p.lse_head_stride + item.q_first + row] =
          (reference[half] + log2f(total[half])) * kLn2;
    }
  }

  const MassParams& m;
  const SparseParams& p;
  const Shared<C>& s;
  int group, warp, lane;
  Cursor<C::kSlots> ring;
  Message item{};
  float score[64];
  float reference[2] = {0.0F, 0.0F}, total[2] = {0.0F, 0.0F};
};

template <class C>
__global__ void __launch_bounds__(C::kThreads, 1)
    measure_levels(const __grid_constant__ CUtensorMap k_map,
                   const __grid_constant__ MassParams m) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ unsigned char raw[];
  const Shared<C> s = share<C>(raw);
  if (threadIdx.x < 128) {
    registers_down<C::kCopierRegisters>();
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp == 0) {
      AllBoxCopier<C, false>(m.attend, s, &k_map, nullptr).run(m.boxes);
    } else if (warp <= kLoaderWarps) {
      copy_queries<C>(m.attend, s, warp - 1);
    }
  } else {
    registers_up<C::kConsumerRegisters>();
    Measurer<C>(m, s).run();
  }
#else
  __trap();  // compiled for another target; the launch refuses before this
#endif
}

template <class C>
cudaError_t launch_levels(const MassParams& m, const KeyTensor& k, cudaStream_t stream) {
  const SparseParams& p = m.attend;
  if (p.item_count == 0 || m.boxes == 0) return cudaSuccess;
  CUtensorMap k_map;
  cudaError_t status =
      encode_map(k_map, k, C::kElement, p.head_dim, p.heads / p.group, p.table.box_keys);
  if (status != cudaSuccess) return status;
  int blocks = 0;
  status = ready(measure_levels<C>, C::kSharedBytes, blocks);
  if (status != cudaSuccess) return status;
  if (blocks > p.item_count) blocks = p.item_count;
  measure_levels<C>
      <<<static_cast<unsigned>(blocks), C::kThreads, C::kSharedBytes, stream>>>(k_map, m);
  return cudaGetLastError();
}

template <Element kElement>
cudaError_t launch_levels_of(const MassParams& m, const KeyTensor& k, int head_dim,
                             cudaStream_t stream) {
  if (head_dim <= 64)
    return launch_levels<Config<kElement, 64, kInTurn, kMassRows / 64>>(m, k, stream);
  return launch_levels<Config<kElement, 128, kInTurn, kMassRows / 64>>(m, k, stream);
}

}  // namespace sm90

namespace {

constexpr int kShareThreads = 256;

// One thread block a query block; a warp takes a key block at a time, its lanes the rows.
__global__ void __launch_bounds__(kShareThreads) share_kernel(ShareParams p) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t head = blockIdx.y;
  const int begin = p.q_offsets[blockIdx.x];
  const int end = p.q_offsets[blockIdx.x + 1];
  const float* lse = p.lse + head * p.positions;
  const float* levels = p.levels + head * p.boxes * p.positions;
  float* mass = p.mass + (head * p.q_blocks + blockIdx.x) * p.k_blocks;
  int rows = 0;
  for (int r = begin + lane; r < end; r += 32) {
    rows += p.row_counts == nullptr || p.row_counts[r] != 0 ? 1 : 0;
  }
  rows = __reduce_add_sync(0xffffffffU, rows);
  for (int j = static_cast<int>(threadIdx.x / 32); j < p.k_blocks; j += kShareThreads / 32) {
    float sum = 0.0F;
    for (int box = p.first_box[j]; box < p.first_box[j + 1]; ++box) {
      for (int r = begin + lane; r < end; r += 32) {
        if (p.row_counts != nullptr && p.row_counts[r] == 0) continue;
        sum += exp2f(levels[std::int64_t{box} * p.positions + r] - lse[r] * 1.4426950408889634F);
      }
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
    if (lane == 0) mass[j] = rows == 0 ? 0.0F : sum / static_cast<float>(rows);
  }
}

}  // namespace

int launch_levels_sm90(const MassParams& params, const KeyTensor& k, Element element, int head_dim,
                       void* stream) {
  if (head_dim < 8 || head_dim > 128 || head_dim % 8 != 0) return cudaErrorInvalidValue;
  MassParams known = params;
  known.attend.head_dim = head_dim;
  const auto on = static_cast<cudaStream_t>(stream);
  return element == Element::bf16 ? sm90::launch_levels_of<Element::bf16>(known, k, head_dim, on)
                                  : sm90::launch_levels_of<Element::f16>(known, k, head_dim, on);
}

int launch_shares(const ShareParams& params, void* stream) {
  if (params.heads == 0 || params.q_blocks == 0 || params.k_blocks == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(params.q_blocks), static_cast<unsigned>(params.heads));
  share_kernel<<<grid, kShareThreads, 0, static_cast<cudaStream_t>(stream)>>>(params);
  return cudaGetLastError();
}

}  // namespace raingauge::cuda_walk
