// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/cuda/gather.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace raingauge::cuda_walk {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerThread = 4;

// A group of head_dim / 8 threads moves one row of K and of V with 16-byte accesses, four rows in
// flight.
__global__ void __launch_bounds__(kThreads) gather_kernel(GatherParams p) {
  const int lanes = p.head_dim / 8;
  const int groups = kThreads / lanes;
  if (static_cast<int>(threadIdx.x) / lanes >= groups) return;  // left over
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const std::int64_t head = blockIdx.y;
  const std::int64_t first =
      (std::int64_t{blockIdx.x} * groups + threadIdx.x / lanes) * kRowsPerThread;
  const std::int32_t* slots = p.slots + head * p.slots_stride;
  const auto* k = static_cast<const std::uint16_t*>(p.k) + head * p.k_head_stride + lane * 8;
  const auto* v = static_cast<const std::uint16_t*>(p.v) + head * p.v_head_stride + lane * 8;
  uint4 k_rows[kRowsPerThread];
  uint4 v_rows[kRowsPerThread];
#pragma unroll
  for (int i = 0; i < kRowsPerThread; ++i) {
    k_rows[i] = v_rows[i] = make_uint4(0, 0, 0, 0);
    const std::int32_t token = first + i < p.length ? slots[first + i] : -1;
    if (token < 0) continue;
    if (p.k != nullptr) {
      k_rows[i] = __ldcs(reinterpret_cast<const uint4*>(k + token * p.k_token_stride));
    }
    v_rows[i] = __ldcs(reinterpret_cast<const uint4*>(v + token * p.v_token_stride));
  }
#pragma unroll
  for (int i = 0; i < kRowsPerThread; ++i) {
    if (first + i >= p.length) break;
    const std::int64_t at = (head * p.length + first + i) * p.head_dim + lane * 8;
    if (p.k != nullptr) {
      *reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(p.k_out) + at) = k_rows[i];
    }
    *reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(p.v_out) + at) = v_rows[i];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    to_float_kernel(const T* in, std::int64_t count, float* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) out[i] = static_cast<float>(in[i]);
}

constexpr int kSortThreads = 1024;
constexpr int kMostBins = 4097;

// Counting sort by one thread block: a few ten thousand items.
// Adds one to place[bin] for every lane of `lanes`, once a warp and bin (counts are mostly equal); the
// places that the lanes get are in their order.
__device__ __forceinline__ int take_place(std::int32_t* place, int bin, unsigned lanes) {
  const unsigned same = __match_any_sync(lanes, bin);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int leader = __ffs(static_cast<int>(same)) - 1;
  int first = 0;
  if (lane == leader) first = atomicAdd(&place[bin], __popc(same));
  return __shfl_sync(same, first, leader) + __popc(same & ((1U << lane) - 1));
}

__global__ void __launch_bounds__(kSortThreads) items_kernel(ItemParams p) {
  __shared__ std::int32_t place[kMostBins];
  const int bins = static_cast<int>(p.stride) + 1;
  const int items = p.heads * p.live_count;
  for (int i = static_cast<int>(threadIdx.x); i < bins; i += kSortThreads) place[i] = 0;
  __syncthreads();
  const auto row_of = [&](int i) { return (i / p.live_count) * p.rows + p.live[i % p.live_count]; };
  for (int first = 0; first < items; first += kSortThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    const unsigned lanes = __ballot_sync(0xffffffffU, i < items);
    if (i < items) take_place(place, p.counts[row_of(i)], lanes);
  }
  __syncthreads();
  // Exclusive sums from the largest count down, by one warp.
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    int before = 0;
    for (int first = 0; first < bins; first += 32) {
      const int bin = bins - 1 - first - lane;
      const int here = bin >= 0 ? place[bin] : 0;
      int sum = here;
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffU, sum, static_cast<unsigned>(step));
        if (lane >= step) sum += other;
      }
      if (bin >= 0) place[bin] = before + sum - here;
      before += __shfl_sync(0xffffffffU, sum, 31);
    }
  }
  __syncthreads();
  for (int first = 0; first < items; first += kSortThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    const unsigned lanes = __ballot_sync(0xffffffffU, i < items);
    if (i >= items) continue;
    const int row = row_of(i);
    const int block = p.live[i % p.live_count];
    const std::int32_t count = p.counts[row];
    TileItem item;
    item.first = row * p.stride;
    item.head = i / p.live_count;
    item.q_first = p.q_offsets[block];
    item.q_rows = p.q_offsets[block + 1] - p.q_offsets[block];
    item.count = count;
    p.items[take_place(place, count, lanes)] = item;
  }
}

}  // namespace

int launch_gather(const GatherParams& params, void* stream) {
  const std::int64_t rows = kThreads / (params.head_dim / 8) * kRowsPerThread;
  const dim3 grid(static_cast<unsigned>((params.length + rows - 1) / rows),
                  static_cast<unsigned>(params.heads));
  gather_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(params);
  return cudaGetLastError();
}

int launch_to_float(const void* in, Element element, std::int64_t count, float* out, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  if (element == Element::bf16) {
    to_float_kernel<<<blocks, kThreads, 0, on>>>(static_cast<const __nv_bfloat16*>(in), count, out);
  } else {
    to_float_kernel<<<blocks, kThreads, 0, on>>>(static_cast<const __half*>(in), count, out);
  }
  return cudaGetLastError();
}

int launch_items(const ItemParams& params, void* stream) {
  if (params.stride + 1 > kMostBins) return cudaErrorInvalidValue;
  items_kernel<<<1, kSortThreads, 0, static_cast<cudaStream_t>(stream)>>>(params);
  return cudaGetLastError();
}

}  // namespace raingauge::cuda_walk
