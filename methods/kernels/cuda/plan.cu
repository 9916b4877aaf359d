// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/cuda/plan.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace raingauge::cuda_plan {
namespace {

constexpr unsigned kAllLanes = 0xffffffffU;

__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

// One group of head_dim / 8 threads a block; each sums eight channels over the block's tokens.
template <class T>
__global__ void __launch_bounds__(256) pool_kernel(PoolParams p) {
  constexpr int kAhead = 8;  // tokens in flight
  const int lanes = p.head_dim / 8;
  const int groups = static_cast<int>(blockDim.x) / lanes;
  const int group = static_cast<int>(threadIdx.x) / lanes;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const std::int64_t item = std::int64_t{blockIdx.x} * groups + group;
  if (group >= groups || item >= std::int64_t{p.heads} * p.blocks) return;
  const std::int64_t head = item / p.blocks;
  const int block = static_cast<int>(item % p.blocks);
  const T* base = static_cast<const T*>(p.x) + head * p.head_stride + lane * 8;
  const int end = p.offsets[block + 1];
  float sum[8] = {};
  int count = 0;
  uint4* box = p.boxes == nullptr ? nullptr
                                  : static_cast<uint4*>(p.boxes) + item * p.box_rows * lanes + lane;
  for (int first = p.offsets[block]; first < end; first += kAhead) {
    uint4 raw[kAhead];
    bool counts[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      counts[i] = false;
      if (first + i >= end) continue;
      const int token = p.tokens == nullptr ? first + i : p.tokens[first + i];
      counts[i] = p.key_valid == nullptr || p.key_valid[token] != 0;
      if (counts[i]) raw[i] = *reinterpret_cast<const uint4*>(base + token * p.token_stride);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (!counts[i]) continue;
      if (box != nullptr) box[std::int64_t{count} * lanes] = raw[i];
      const T* values = reinterpret_cast<const T*>(&raw[i]);
#pragma unroll
      for (int c = 0; c < 8; ++c) sum[c] = __fadd_rn(sum[c], to_float(values[c]));
      ++count;
    }
  }
  if (box != nullptr) {
    for (int row = count; row < p.box_rows; ++row) {
      box[std::int64_t{row} * lanes] = make_uint4(0, 0, 0, 0);
    }
  }
  float* mean = p.means + item * p.head_dim + lane * 8;
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    mean[c] = count > 0 ? __fdiv_rn(sum[c], static_cast<float>(count)) : 0.0F;
  }
}

// Tiles of one thread block; a thread has eight neighbouring rows and every sixteenth column.
constexpr int kScoreRows = 128;
constexpr int kScoreColumns = 64;
constexpr int kScoreChannels = 32;  // in shared memory at a time
constexpr int kScoreThreads = 256;
constexpr int kScorePad = 4;  // elements after every row of a tile: fewer bank conflicts

// Means of `kRows` blocks from `first` on, kScoreChannels channels from `channel` on, transposed.
template <int kRows>
__device__ __forceinline__ void load_means(const float* means, int first, int rows, int head_dim,
                                           int channel,
                                           float (&tile)[kScoreChannels][kRows + kScorePad]) {
  constexpr int kQuads = kScoreChannels / 4;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kQuads; i += kScoreThreads) {
    const int row = i / kQuads;
    const int quad = i % kQuads * 4;
    float4 x = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    if (first + row < rows && channel + quad < head_dim) {
      x = *reinterpret_cast<const float4*>(means + std::int64_t{first + row} * head_dim + channel +
                                           quad);
    }
    tile[quad][row] = x.x;
    tile[quad + 1][row] = x.y;
    tile[quad + 2][row] = x.z;
    tile[quad + 3][row] = x.w;
  }
}

// scores[row, column] = scale * dot, the sum over channels ascending.
__global__ void __launch_bounds__(kScoreThreads) score_kernel(SelectParams p) {
  __shared__ float q[kScoreChannels][kScoreRows + kScorePad];
  __shared__ float k[kScoreChannels][kScoreColumns + kScorePad];
  const SelectFrame& f = p.frame;
  const std::int64_t head = blockIdx.z;
  const int first_row = static_cast<int>(blockIdx.y) * kScoreRows;
  const int first_column = static_cast<int>(blockIdx.x) * kScoreColumns;
  const float* q_means = p.q_means + head * f.rows * f.head_dim;
  const float* k_means = p.k_means + head * f.columns * f.head_dim;
  const int x = static_cast<int>(threadIdx.x) % 16;
  const int y = static_cast<int>(threadIdx.x) / 16 * 8;
  float dot[8][4] = {};
  for (int channel = 0; channel < f.head_dim; channel += kScoreChannels) {
    __syncthreads();
    load_means<kScoreRows>(q_means, first_row, f.rows, f.head_dim, channel, q);
    load_means<kScoreColumns>(k_means, first_column, f.columns, f.head_dim, channel, k);
    __syncthreads();
    const int channels = min(kScoreChannels, f.head_dim - channel);
#pragma unroll 8
    for (int c = 0; c < channels; ++c) {
      const float4 low = *reinterpret_cast<const float4*>(&q[c][y]);
      const float4 high = *reinterpret_cast<const float4*>(&q[c][y + 4]);
      const float a[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float b = k[c][x + 16 * j];
#pragma unroll
        for (int i = 0; i < 8; ++i) dot[i][j] = fmaf(a[i], b, dot[i][j]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int row = first_row + y + i;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = first_column + x + 16 * j;
      if (row >= f.rows || column >= f.columns) continue;
      p.scores[(head * f.rows + row) * f.columns + column] = __fmul_rn(p.scale, dot[i][j]);
    }
  }
}

// Larger scores, larger keys; NaN below every number, -0 like +0; 0 is no candidate.
__device__ __forceinline__ std::uint32_t key_of(float score, std::uint8_t kind) {
  if (kind != 1) return 0;
  if (isnan(score)) return 1;
  const std::uint32_t bits = __float_as_uint(score + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// Rank of every ragged candidate in its row: one warp a row.
__global__ void __launch_bounds__(256) rank_kernel(SelectParams p) {
  const SelectFrame& f = p.frame;
  const std::int64_t line = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (line >= std::int64_t{f.heads} * f.rows) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const float* scores = p.scores + line * f.columns;
  const std::uint8_t* kind = f.kind + (line % f.rows) * f.columns;
  for (int r = 0; r < f.ragged_count; ++r) {
    const int column = f.ragged[r];
    const std::uint32_t mine = key_of(scores[column], kind[column]);
    int better = 0;
    for (int j = lane; j < f.columns; j += 32) {
      const std::uint32_t key = key_of(scores[j], kind[j]);
      better += key > mine || (key == mine && j < column) ? 1 : 0;
    }
    better = __reduce_add_sync(kAllLanes, better);
    if (lane == 0) {
      p.ragged_rank[line * f.ragged_count + r] = mine == 0 ? 0x7fffffff : better;
    }
  }
}

__device__ __forceinline__ int taken_at(const SelectFrame& f, int row, int price) {
  return min(max(price - f.already[row] + 1, f.must[row]), f.candidates[row]);
}

// Token pairs of the best `taken` candidates of a row.
__device__ std::int64_t pairs_of(const SelectParams& p, std::int64_t head, int row, int taken) {
  const SelectFrame& f = p.frame;
  std::int64_t tokens = std::int64_t{f.full_tokens} * taken;
  const std::int32_t* ranks = p.ragged_rank + (head * f.rows + row) * f.ragged_count;
  for (int r = 0; r < f.ragged_count; ++r) {
    if (ranks[r] < taken) tokens -= f.full_tokens - f.ragged_tokens[r];
  }
  return tokens * f.row_tokens[row];
}

constexpr int kSolveThreads = 512;

// Sums over the thread block; every thread gets the sum.
__device__ std::int64_t block_sum(std::int64_t value, std::int64_t* shared) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  std::int64_t sum = 0;
  for (int i = 0; i < kSolveThreads / 32; ++i) sum += shared[i];
  return sum;
}

__device__ std::int64_t kept_at(const SelectParams& p, std::int64_t head, int price,
                                std::int64_t* shared) {
  std::int64_t kept = 0;
  for (int i = static_cast<int>(threadIdx.x); i < p.frame.rows; i += kSolveThreads) {
    kept += pairs_of(p, head, i, taken_at(p.frame, i, price));
  }
  return block_sum(kept, shared) + p.frame.forced_pairs;
}

// How many candidates every row of one head takes. Candidate j of a row costs already + j; prices are
// paid in ascending order, equal ones in the seeded order of rows, until half of the next block pair
// would lie beyond the target.
__global__ void __launch_bounds__(kSolveThreads) solve_kernel(SelectParams p) {
  __shared__ std::int64_t shared[kSolveThreads];
  __shared__ int first_refused;
  const SelectFrame& f = p.frame;
  const std::int64_t head = blockIdx.x;
  int low = -1;  // kept_at(low) <= target, or low = -1
  int high = f.most_price;
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (static_cast<double>(kept_at(p, head, middle, shared)) > f.target) {
      high = middle;
    } else {
      low = middle;
    }
  }
  const std::int64_t before = kept_at(p, head, high - 1, shared);
  const int chunk = (f.rows + kSolveThreads - 1) / kSolveThreads;
  const int begin = min(f.rows, static_cast<int>(threadIdx.x) * chunk);
  const int end = min(f.rows, begin + chunk);
  const auto more = [&](int rank) {
    const int row = f.row_of_rank[rank];
    return pairs_of(p, head, row, taken_at(f, row, high)) -
           pairs_of(p, head, row, taken_at(f, row, high - 1));
  };
  std::int64_t sum = 0;
  for (int rank = begin; rank < end; ++rank) sum += more(rank);
  __syncthreads();
  shared[threadIdx.x] = sum;
  if (threadIdx.x == 0) first_refused = f.rows;
  __syncthreads();
  std::int64_t kept = before;
  for (int i = 0; i < static_cast<int>(threadIdx.x); ++i) kept += shared[i];
  for (int rank = begin; rank < end; ++rank) {
    const std::int64_t next = more(rank);
    if (next > 0 && static_cast<double>(kept) + 0.5 * static_cast<double>(next) > f.target) {
      atomicMin(&first_refused, rank);
      break;
    }
    kept += next;
  }
  __syncthreads();
  for (int rank = static_cast<int>(threadIdx.x); rank < f.rows; rank += kSolveThreads) {
    const int row = f.row_of_rank[rank];
    p.taken[head * f.rows + row] = taken_at(f, row, rank < first_refused ? high : high - 1);
  }
}

constexpr int kSelectWarps = 4;

// The best `taken` candidates and all forced blocks of one row, ascending: one warp a row.
__global__ void __launch_bounds__(kSelectWarps * 32) select_kernel(SelectParams p) {
  extern __shared__ std::uint32_t keys_of_warps[];
  const SelectFrame& f = p.frame;
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t line = std::int64_t{blockIdx.x} * kSelectWarps + warp;
  if (line >= std::int64_t{f.heads} * f.rows) return;
  std::uint32_t* keys = keys_of_warps + warp * f.columns;
  const float* scores = p.scores + line * f.columns;
  const std::uint8_t* kind = f.kind + (line % f.rows) * f.columns;
  for (int j = lane; j < f.columns; j += 32) keys[j] = key_of(scores[j], kind[j]);
  __syncwarp();
  const int taken = p.taken[line];
  const auto count_from = [&](std::uint32_t least) {
    int count = 0;
    for (int j = lane; j < f.columns; j += 32) count += keys[j] >= least ? 1 : 0;
    return __reduce_add_sync(kAllLanes, count);
  };
  // A key that exactly `taken` keys reach, or else the largest that as many reach. Bits that all
  // candidates share need no counting.
  std::uint32_t in_all = 0xffffffffU;
  std::uint32_t in_any = 0;
  for (int j = lane; j < f.columns; j += 32) {
    if (keys[j] == 0) continue;
    in_all &= keys[j];
    in_any |= keys[j];
  }
  in_all = __reduce_and_sync(kAllLanes, in_all);
  in_any = __reduce_or_sync(kAllLanes, in_any);
  const int differing = 32 - __clz(static_cast<int>(in_all ^ in_any));  // low bits
  std::uint32_t threshold = 0;
  if (taken > 0) {
    threshold = differing == 32 ? 0 : in_all >> differing << differing;
    for (int bit = differing - 1; bit >= 0; --bit) {
      const std::uint32_t higher = threshold | 1U << bit;
      const int count = count_from(higher);
      if (count >= taken) threshold = higher;
      if (count == taken) break;
    }
  }
  const int above = taken > 0 && threshold != 0xffffffffU ? count_from(threshold + 1) : 0;
  int ties = taken - above;  // of the keys equal to the threshold, the first so many
  int written = 0;
  std::int32_t* list = p.lists + line * f.columns;
  const unsigned before = (1U << lane) - 1;
  for (int first = 0; first < f.columns; first += 32) {
    const int j = first + lane;
    const bool there = j < f.columns;
    const std::uint32_t key = there ? keys[j] : 0;
    const bool tied = taken > 0 && there && key == threshold && key != 0;
    const unsigned tied_lanes = __ballot_sync(kAllLanes, tied);
    const bool wins = tied && __popc(tied_lanes & before) < ties;
    const bool keeps =
        there && (kind[j] == 2 || wins || (taken > 0 && key != 0 && key > threshold));
    const unsigned keeping = __ballot_sync(kAllLanes, keeps);
    if (keeps) list[written + __popc(keeping & before)] = j;
    written += __popc(keeping);
    ties -= __popc(tied_lanes);
  }
  if (lane == 0) p.counts[line] = written;
}

template <class T>
void pool(const PoolParams& params, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const std::int64_t groups = kThreads / (params.head_dim / 8);
  const std::int64_t items = std::int64_t{params.heads} * params.blocks;
  pool_kernel<T>
      <<<static_cast<unsigned>((items + groups - 1) / groups), kThreads, 0, stream>>>(params);
}

}  // namespace

int launch_pool(const PoolParams& params, Element element, void* stream) {
  if (params.heads == 0 || params.blocks == 0) return cudaSuccess;
  if (element == Element::bf16) {
    pool<__nv_bfloat16>(params, static_cast<cudaStream_t>(stream));
  } else {
    pool<__half>(params, static_cast<cudaStream_t>(stream));
  }
  return cudaGetLastError();
}

int launch_select(const SelectParams& params, void* stream) {
  const SelectFrame& f = params.frame;
  const auto on = static_cast<cudaStream_t>(stream);
  if (f.columns > kMostColumns || f.ragged_count > kMostRagged) return cudaErrorInvalidValue;
  const int bytes = kSelectWarps * f.columns * static_cast<int>(sizeof(std::uint32_t));
  const cudaError_t status =
      cudaFuncSetAttribute(select_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (status != cudaSuccess) return status;
  const auto lines = static_cast<unsigned>(f.heads * f.rows);
  const dim3 tiles(static_cast<unsigned>((f.columns + kScoreColumns - 1) / kScoreColumns),
                   static_cast<unsigned>((f.rows + kScoreRows - 1) / kScoreRows),
                   static_cast<unsigned>(f.heads));
  score_kernel<<<tiles, kScoreThreads, 0, on>>>(params);
  if (f.ragged_count > 0) rank_kernel<<<(lines + 7) / 8, 256, 0, on>>>(params);
  solve_kernel<<<static_cast<unsigned>(f.heads), kSolveThreads, 0, on>>>(params);
  select_kernel<<<(lines + kSelectWarps - 1) / kSelectWarps, kSelectWarps * 32,
                  static_cast<std::size_t>(bytes), on>>>(params);
  return cudaGetLastError();
}

}  // namespace raingauge::cuda_plan
