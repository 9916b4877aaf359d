// SPDX-License-Identifier: Apache-2.0
// The block-sparse forward pass on NVIDIA GPUs from sm_80 on: one thread block per work item (64 or
// 128 query rows), key tiles of 64 in two stages of shared memory, mma.sync m16n8k16 with fp32 sums,
// online softmax in base 2. Rows of Q, K and V are gathered by computed addresses, so token orders
// cost no pass of their own. Every address is computed in 64 bits.
#include "methods/kernels/cuda/forward.h"

#include <cuda_runtime.h>

#include "methods/kernels/cuda/mma.cuh"

namespace raingauge::cuda_walk {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kStages = 2;
constexpr float kLn2 = 0.69314718055994531F;

// ---- shared memory ----------------------------------------------------------------------------

// kRowTiles: m16 tiles of one warp, so an item has kWarps * 16 * kRowTiles rows.
template <int kDim, int kRowTiles>
struct Tiles {
  static constexpr int kRows = kWarps * 16 * kRowTiles;
  static constexpr int kChunks = kDim / 8;  // 16-byte chunks of a row
  static constexpr int kRowsPerPass = kThreads / kChunks;
  static constexpr int kQBytes = kRows * kDim * 2;
  static constexpr int kKeyBytes = kKeyTile * kDim * 2;  // of K or of V, one stage
  static constexpr int kTokenBytes = kStages * kKeyTile * 4;
  static constexpr int kBytes = kQBytes + 2 * kStages * kKeyBytes + kTokenBytes;
};

template <int kChunks>
__device__ __forceinline__ std::uint32_t chunk_address(std::uint32_t base, int row, int chunk) {
  return base + static_cast<std::uint32_t>(swizzled_chunk(row, chunk, kChunks)) * 16U;
}

// Element offset 0 of a row; token -1 stands for a row of zeros.
__device__ __forceinline__ const char* row_pointer(const void* base, std::int64_t head,
                                                   std::int64_t head_stride, std::int64_t token,
                                                   std::int64_t token_stride) {
  return static_cast<const char*>(base) + 2 * (head * head_stride + token * token_stride);
}

__device__ __forceinline__ std::int64_t query_token(const ForwardParams& p, const WorkItem& item,
                                                    int row) {
  const std::int64_t position = std::int64_t{item.q_first} + row;
  if (p.q_tokens == nullptr) return position;
  return p.q_tokens[item.head * p.q_tokens_stride + position];
}

template <int kDim, int kRowTiles>
__device__ __forceinline__ void copy_queries(const ForwardParams& p, const WorkItem& item,
                                             std::uint32_t target) {
  using T = Tiles<kDim, kRowTiles>;
  const int chunk = static_cast<int>(threadIdx.x) % T::kChunks;
  for (int row = static_cast<int>(threadIdx.x) / T::kChunks; row < T::kRows;
       row += T::kRowsPerPass) {
    const bool exists = row < item.q_rows;
    const std::int64_t token = exists ? query_token(p, item, row) : 0;
    const char* source = row_pointer(p.q, item.head, p.q_head_stride, token, p.q_token_stride);
    copy_chunk(chunk_address<T::kChunks>(target, row, chunk), source + chunk * 16, exists);
  }
}

// Rows of K and V named by tokens[kKeyTile] (-1: zeros, so that weight 0 times V stays 0).
template <int kDim, int kRowTiles>
__device__ __forceinline__ void copy_keys(const ForwardParams& p, const WorkItem& item,
                                          const std::int32_t* tokens, std::uint32_t k_target,
                                          std::uint32_t v_target) {
  using T = Tiles<kDim, kRowTiles>;
  const int chunk = static_cast<int>(threadIdx.x) % T::kChunks;
  for (int row = static_cast<int>(threadIdx.x) / T::kChunks; row < kKeyTile;
       row += T::kRowsPerPass) {
    const std::int32_t named = tokens[row];
    const bool exists = named >= 0;
    const std::int64_t token = exists ? named : 0;
    const char* k = row_pointer(p.k, item.head, p.k_head_stride, token, p.k_token_stride);
    const char* v = row_pointer(p.v, item.head, p.v_head_stride, token, p.v_token_stride);
    copy_chunk(chunk_address<T::kChunks>(k_target, row, chunk), k + chunk * 16, exists);
    copy_chunk(chunk_address<T::kChunks>(v_target, row, chunk), v + chunk * 16, exists);
  }
}

// ---- one key tile -----------------------------------------------------------------------------

// S = Q K^T: s[m][n] is the m16n8 accumulator of rows m*16.. of the warp and keys n*8.. of the tile.
template <Element E, int kDim, int kRowTiles>
__device__ __forceinline__ void multiply_qk(float (&s)[kRowTiles][kKeyTile / 8][4],
                                            std::uint32_t q_base, std::uint32_t k_base, int warp,
                                            int lane) {
  constexpr int kChunks = kDim / 8;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kKeyTile / 8; ++n) {
      for (int i = 0; i < 4; ++i) s[m][n][i] = 0.0F;
    }
  }
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    std::uint32_t a[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int row = (warp * kRowTiles + m) * 16 + (lane & 15);
      load_matrices(a[m], chunk_address<kChunks>(q_base, row, step * 2 + (lane >> 4)));
    }
#pragma unroll
    for (int pair = 0; pair < kKeyTile / 16; ++pair) {
      std::uint32_t b[4];
      const int row = pair * 16 + (lane & 7) + ((lane >> 4) << 3);
      load_matrices(b, chunk_address<kChunks>(k_base, row, step * 2 + ((lane >> 3) & 1)));
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        Mma<E>::mma(s[m][pair * 2], a[m], b[0], b[1]);
        Mma<E>::mma(s[m][pair * 2 + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// O += P V with P in registers: the accumulator layout of two n8 tiles is the A layout of one k16.
template <Element E, int kDim, int kRowTiles>
__device__ __forceinline__ void multiply_pv(float (&o)[kRowTiles][kDim / 8][4],
                                            const float (&s)[kRowTiles][kKeyTile / 8][4],
                                            std::uint32_t v_base, int lane) {
  constexpr int kChunks = kDim / 8;
#pragma unroll
  for (int step = 0; step < kKeyTile / 16; ++step) {
    std::uint32_t a[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      a[m][0] = Mma<E>::pack(s[m][2 * step][0], s[m][2 * step][1]);
      a[m][1] = Mma<E>::pack(s[m][2 * step][2], s[m][2 * step][3]);
      a[m][2] = Mma<E>::pack(s[m][2 * step + 1][0], s[m][2 * step + 1][1]);
      a[m][3] = Mma<E>::pack(s[m][2 * step + 1][2], s[m][2 * step + 1][3]);
    }
#pragma unroll
    for (int pair = 0; pair < kDim / 16; ++pair) {
      std::uint32_t b[4];
      const int row = step * 16 + (lane & 15);
      load_matrices_transposed(b, chunk_address<kChunks>(v_base, row, pair * 2 + (lane >> 4)));
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        Mma<E>::mma(o[m][pair * 2], a[m], b[0], b[1]);
        Mma<E>::mma(o[m][pair * 2 + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// Running maximum (base 2) and this thread's part of the sum, for the two rows of each m16 tile.
template <int kRowTiles>
struct Softmax {
  float max[kRowTiles][2];
  float sum[kRowTiles][2];
};

// s becomes the weights 2^(s - max); o and the sums move to the new maximum. A NaN score leaves the
// maximum alone and turns its weight, hence the row, into NaN. keys < kKeyTile masks the last tile.
template <int kDim, int kRowTiles>
__device__ __forceinline__ void softmax_step(float (&s)[kRowTiles][kKeyTile / 8][4],
                                             float (&o)[kRowTiles][kDim / 8][4],
                                             Softmax<kRowTiles>& state, float scale_log2, int keys,
                                             int lane) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    float tile_max[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[m][n][i] *= scale_log2;
        if (keys < kKeyTile && n * 8 + (lane & 3) * 2 + (i & 1) >= keys) s[m][n][i] = -INFINITY;
        tile_max[i >> 1] = fmaxf(tile_max[i >> 1], s[m][n][i]);
      }
    }
    float base[2];
    float shrink[2];
    bool grew = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      tile_max[half] = fmaxf(tile_max[half], __shfl_xor_sync(kAllLanes, tile_max[half], 1));
      tile_max[half] = fmaxf(tile_max[half], __shfl_xor_sync(kAllLanes, tile_max[half], 2));
      const float now = fmaxf(state.max[m][half], tile_max[half]);
      base[half] = now == -INFINITY ? 0.0F : now;
      shrink[half] = exp2_fast(state.max[m][half] - base[half]);
      grew = grew || now != state.max[m][half];
      state.max[m][half] = now;
    }
    if (__any_sync(kAllLanes, grew)) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // A row whose maximum stayed keeps its sums bit for bit, whatever its neighbours did.
        state.sum[m][half] *= shrink[half];
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          o[m][n][half * 2] *= shrink[half];
          o[m][n][half * 2 + 1] *= shrink[half];
        }
      }
    }
#pragma unroll
    for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[m][n][i] = exp2_fast(s[m][n][i] - base[i >> 1]);
        state.sum[m][i >> 1] += s[m][n][i];
      }
    }
  }
}

// Divides by the row sums and writes o and lse at the tokens' places. Rows without keys: 0, -inf.
template <int kDim, int kRowTiles>
__device__ __forceinline__ void write_rows(const ForwardParams& p, const WorkItem& item,
                                           const float (&o)[kRowTiles][kDim / 8][4],
                                           const Softmax<kRowTiles>& state, int warp, int lane) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = state.sum[m][half];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const int row = (warp * kRowTiles + m) * 16 + half * 8 + (lane >> 2);
      if (row >= item.q_rows) continue;
      const bool empty = sum == 0.0F;
      const float inverse = 1.0F / sum;
      const std::int64_t out = std::int64_t{item.head} * p.tokens + query_token(p, item, row);
      float* target = p.o + out * kDim + (lane & 3) * 2;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        const float2 value = {empty ? 0.0F : o[m][n][half * 2] * inverse,
                              empty ? 0.0F : o[m][n][half * 2 + 1] * inverse};
        *reinterpret_cast<float2*>(target + n * 8) = value;
      }
      if (p.lse != nullptr && (lane & 3) == 0) {
        p.lse[out] = empty ? -INFINITY : (state.max[m][half] + log2f(sum)) * kLn2;
      }
    }
  }
}

// ---- the kernel -------------------------------------------------------------------------------

template <Element E, int kDim, int kRowTiles>
__global__ void __launch_bounds__(kThreads) forward_kernel(const ForwardParams p) {
  using T = Tiles<kDim, kRowTiles>;
  extern __shared__ __align__(128) unsigned char shared[];
  const std::uint32_t q_base = shared_address(shared);
  const std::uint32_t k_base = q_base + T::kQBytes;
  const std::uint32_t v_base = k_base + kStages * T::kKeyBytes;
  auto* tokens = reinterpret_cast<std::int32_t*>(shared + T::kQBytes + 2 * kStages * T::kKeyBytes);

  const WorkItem item = p.items[blockIdx.x];
  const int tiles = tile_count(item);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread >> 5;
  const int lane = thread & 31;
  const std::int32_t* key_tokens = p.key_tokens + item.head * p.key_tokens_stride;

  // Threads 0 .. kKeyTile-1 each walk one row of the tiles, two tiles ahead of the arithmetic.
  KeyCursor cursor;
  if (thread < kKeyTile) cursor.start(p.runs, item);
  const auto name_tokens = [&](int tile) {
    if (thread >= kKeyTile || tile >= tiles) return;
    const std::int32_t key = cursor.valid_key(tile * kKeyTile + thread);
    tokens[(tile & 1) * kKeyTile + thread] = key < 0 ? -1 : key_tokens[key];
  };
  const auto copy_tile = [&](int tile) {
    if (tile >= tiles) return;
    const int stage = tile & 1;
    copy_keys<kDim, kRowTiles>(p, item, tokens + stage * kKeyTile, k_base + stage * T::kKeyBytes,
                               v_base + stage * T::kKeyBytes);
  };

  float o[kRowTiles][kDim / 8][4];
  Softmax<kRowTiles> state;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      for (int i = 0; i < 4; ++i) o[m][n][i] = 0.0F;
    }
    for (int half = 0; half < 2; ++half) {
      state.max[m][half] = -INFINITY;
      state.sum[m][half] = 0.0F;
    }
  }

  name_tokens(0);
  name_tokens(1);
  copy_queries<kDim, kRowTiles>(p, item, q_base);
  __syncthreads();  // tokens of tiles 0 and 1 are named
  copy_tile(0);
  commit_copies();
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile & 1;
    wait_copies();
    __syncthreads();  // tile has arrived for all threads, and all are done with the other stage
    copy_tile(tile + 1);
    commit_copies();
    name_tokens(tile + 2);  // overwrites the names of `tile`, whose copies were issued before
    float s[kRowTiles][kKeyTile / 8][4];
    multiply_qk<E, kDim, kRowTiles>(s, q_base, k_base + stage * T::kKeyBytes, warp, lane);
    softmax_step<kDim, kRowTiles>(s, o, state, p.scale_log2, keys_in_tile(item, tile), lane);
    multiply_pv<E, kDim, kRowTiles>(o, s, v_base + stage * T::kKeyBytes, lane);
  }
  wait_copies();
  write_rows<kDim, kRowTiles>(p, item, o, state, warp, lane);
}

template <Element E, int kDim, int kRowTiles>
cudaError_t launch(const ForwardParams& params) {
  using T = Tiles<kDim, kRowTiles>;
  const auto kernel = forward_kernel<E, kDim, kRowTiles>;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kBytes);
  if (status != cudaSuccess) return status;
  kernel<<<static_cast<unsigned>(params.item_count), kThreads, T::kBytes>>>(params);
  return cudaGetLastError();
}

template <Element E>
cudaError_t launch_shape(const ForwardParams& params, int head_dim, int row_tile) {
  if (head_dim == 64 && row_tile == 64) return launch<E, 64, 1>(params);
  if (head_dim == 64 && row_tile == 128) return launch<E, 64, 2>(params);
  if (head_dim == 128 && row_tile == 64) return launch<E, 128, 1>(params);
  if (head_dim == 128 && row_tile == 128) return launch<E, 128, 2>(params);
  return cudaErrorInvalidValue;
}

}  // namespace

int launch_forward(const ForwardParams& params, Element element, int head_dim, int row_tile) {
  if (params.item_count == 0) return cudaSuccess;
  return element == Element::bf16 ? launch_shape<Element::bf16>(params, head_dim, row_tile)
                                  : launch_shape<Element::f16>(params, head_dim, row_tile);
}

}  // namespace raingauge::cuda_walk
