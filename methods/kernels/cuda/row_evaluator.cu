// SPDX-License-Identifier: Apache-2.0
// The fp32 judge on NVIDIA GPUs from sm_80 on: as forward.cu a thread block takes up to 64 query rows,
// key tiles of 64 in two stages of shared memory, mma.sync m16n8k16. What makes it a judge:
//   scores   products of bf16 or f16 values are exact in fp32; their sums are fp32 sums of the tensor
//            cores, which cut off where fp32 rounds;
//   weights  2^(s - r) in fp32, r an integer not below the row's largest score so far, so that moving to a
//            larger r multiplies sums by a power of two and rounds nothing;
//   P V      every weight is the sum of two values of the inputs' type (hi + lo): 2^-18 of the weight is
//            left out with bf16, less with f16, whose weights are taken times 2^15 for its range's sake;
//   sums     each tile's product starts from zero and is added to the row's in fp32; sums of weights are
//            fp32 within a thread's part of a tile and fp64 beyond.
// Rows depend on their own keys alone and nothing depends on timing: results are the same bits each run.
#include "methods/kernels/cuda/row_evaluator.h"

#include <cuda_runtime.h>

#include "methods/kernels/cuda/mma.cuh"

namespace raingauge::cuda_walk {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kStages = 2;
constexpr int kTiles8 = kKeyTile / 8;  // n8 tiles of a key tile
constexpr int kColumns = 64;           // columns of V whose product is held at once
constexpr double kLn2 = 0.69314718055994530942;

// ---- weights ----------------------------------------------------------------------------------

// 2^n of an integer n <= 0, exactly; 0 below 2^-126.
__device__ __forceinline__ float power_of_two(float n) {
  return n < -126.0F ? 0.0F : __int_as_float((static_cast<int>(n) + 127) << 23);
}

template <Element E>
struct Weights;

template <>
struct Weights<Element::bf16> {
  static constexpr float kWeight = 1.0F;
  // hi + lo of two neighbouring weights.
  static __device__ __forceinline__ void split(float x, float y, std::uint32_t& hi,
                                               std::uint32_t& lo) {
    const __nv_bfloat162 top = __floats2bfloat162_rn(x, y);
    hi = *reinterpret_cast<const std::uint32_t*>(&top);
    const __nv_bfloat162 rest =
        __floats2bfloat162_rn(x - __uint_as_float(hi << 16), y - __uint_as_float(hi & 0xffff0000U));
    lo = *reinterpret_cast<const std::uint32_t*>(&rest);
  }
};

template <>
struct Weights<Element::f16> {
  static constexpr float kWeight = 32768.0F;
  static __device__ __forceinline__ void split(float x, float y, std::uint32_t& hi,
                                               std::uint32_t& lo) {
    const float u = x * kWeight;
    const float w = y * kWeight;
    const __half2 top = __floats2half2_rn(u, w);
    hi = *reinterpret_cast<const std::uint32_t*>(&top);
    const __half2 rest = __floats2half2_rn(u - __low2float(top), w - __high2float(top));
    lo = *reinterpret_cast<const std::uint32_t*>(&rest);
  }
};

// ---- shared memory ----------------------------------------------------------------------------

template <int kDim>
struct Tiles {
  static constexpr int kChunks = kDim / 8;  // 16-byte chunks of a row
  static constexpr int kRowsPerPass = kThreads / kChunks;
  static constexpr int kQBytes = kRowTile * kDim * 2;
  static constexpr int kKeyBytes = kKeyTile * kDim * 2;  // of K or of V, one stage
  static constexpr int kTokensAt = kQBytes + 2 * kStages * kKeyBytes;
  static constexpr int kMasksAt = kTokensAt + kStages * kKeyTile * 4;
  static constexpr int kBytes = kMasksAt + kMaskSlots * static_cast<int>(sizeof(TileMasks));
};

template <int kChunks>
__device__ __forceinline__ std::uint32_t chunk_address(std::uint32_t base, int row, int chunk) {
  return base + static_cast<std::uint32_t>(swizzled_chunk(row, chunk, kChunks)) * 16U;
}

__device__ __forceinline__ const char* row_pointer(const void* base, std::int64_t head,
                                                   std::int64_t head_stride, std::int64_t token,
                                                   std::int64_t token_stride) {
  return static_cast<const char*>(base) + 2 * (head * head_stride + token * token_stride);
}

template <int kDim>
__device__ __forceinline__ void copy_queries(const RowParams& p, const RowItem& item,
                                             std::uint32_t target) {
  using T = Tiles<kDim>;
  const int chunk = static_cast<int>(threadIdx.x) % T::kChunks;
  for (int row = static_cast<int>(threadIdx.x) / T::kChunks; row < kRowTile;
       row += T::kRowsPerPass) {
    const bool exists = row < item.rows;
    const std::int64_t token = exists ? p.sample[p.row_slots[item.first_row + row]] : 0;
    const char* source = row_pointer(p.q, item.head, p.q_head_stride, token, p.q_token_stride);
    copy_chunk(chunk_address<T::kChunks>(target, row, chunk), source + chunk * 16, exists);
  }
}

// Rows of K and V named by tokens[kKeyTile]; -1: zeros, so that weight 0 times V stays 0.
template <int kDim>
__device__ __forceinline__ void copy_keys(const RowParams& p, const RowItem& item,
                                          const std::int32_t* tokens, std::uint32_t k_target,
                                          std::uint32_t v_target) {
  using T = Tiles<kDim>;
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

// ---- the rows of one warp ---------------------------------------------------------------------

// Two rows a thread, each shared by four threads; sums are this thread's part.
template <Element E, int kDim>
struct WarpRows {
  float o[kDim / 8][4];
  float largest[2];    // score, sign applied, not scaled
  float reference[2];  // in log2 units: an integer where that matters
  double sum[2], first_frame[2], text[2];

  __device__ __forceinline__ WarpRows() {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      for (int i = 0; i < 4; ++i) o[n][i] = 0.0F;
    }
    for (int half = 0; half < 2; ++half) {
      largest[half] = -INFINITY;
      reference[half] = 0.0F;
      sum[half] = first_frame[half] = text[half] = 0.0;
    }
  }

  // s = sign Q K^T; s[n] is the m16n8 accumulator of keys 8 n .. of the tile, -inf beyond `keys`.
  __device__ __forceinline__ void score(float (&s)[kTiles8][4], float sign, std::uint32_t q_base,
                                        std::uint32_t k_base, int keys, int warp, int lane) const {
    constexpr int kChunks = kDim / 8;
#pragma unroll
    for (int n = 0; n < kTiles8; ++n) {
      for (int i = 0; i < 4; ++i) s[n][i] = 0.0F;
    }
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      std::uint32_t a[4];
      load_matrices(
          a, chunk_address<kChunks>(q_base, warp * 16 + (lane & 15), step * 2 + (lane >> 4)));
#pragma unroll
      for (int pair = 0; pair < kTiles8 / 2; ++pair) {
        std::uint32_t b[4];
        const int row = pair * 16 + (lane & 7) + ((lane >> 4) << 3);
        load_matrices(b, chunk_address<kChunks>(k_base, row, step * 2 + ((lane >> 3) & 1)));
        Mma<E>::mma(s[pair * 2], a, b[0], b[1]);
        Mma<E>::mma(s[pair * 2 + 1], a, b[2], b[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < kTiles8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[n][i] *= sign;
        if (keys < kKeyTile && n * 8 + (lane & 3) * 2 + (i & 1) >= keys) s[n][i] = -INFINITY;
      }
    }
  }

  // References that the tile's scores do not exceed; what was summed so far moves along.
  __device__ __forceinline__ void raise_references(const float (&s)[kTiles8][4], float scale_log2) {
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < kTiles8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) top[i >> 1] = fmaxf(top[i >> 1], s[n][i]);
    }
    bool grew = false;
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top[half] = fmaxf(top[half], __shfl_xor_sync(kAllLanes, top[half], 1));
      top[half] = fmaxf(top[half], __shfl_xor_sync(kAllLanes, top[half], 2));
      const bool first = largest[half] == -INFINITY;
      largest[half] = fmaxf(largest[half], top[half]);
      const float wanted = ceilf(largest[half] * scale_log2);
      const bool moves = largest[half] != -INFINITY && (first || wanted > reference[half]);
      // Nothing was summed before the first score; from then on an exact power of two.
      shrink[half] = moves && !first ? power_of_two(reference[half] - wanted) : 1.0F;
      if (moves) reference[half] = wanted;
      grew = grew || shrink[half] != 1.0F;
    }
    if (!__any_sync(kAllLanes, grew)) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] *= static_cast<double>(shrink[half]);
      first_frame[half] *= static_cast<double>(shrink[half]);
      text[half] *= static_cast<double>(shrink[half]);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        o[n][half * 2] *= shrink[half];
        o[n][half * 2 + 1] *= shrink[half];
      }
    }
  }

  // Scores -> weights, and their sums over all keys and over two classes.
  __device__ __forceinline__ void weigh(float (&s)[kTiles8][4], float scale_log2,
                                        const TileMasks& masks, int lane) {
    float part[2] = {0.0F, 0.0F};
#pragma unroll
    for (int n = 0; n < kTiles8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[n][i] = exp2_fast(fmaf(s[n][i], scale_log2, -reference[i >> 1]));
        part[i >> 1] += s[n][i];
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) sum[half] += static_cast<double>(part[half]);
    add_class(s, masks.first_frame, first_frame, lane);
    add_class(s, masks.text, text, lane);
  }
  static __device__ __forceinline__ void add_class(const float (&s)[kTiles8][4],
                                                   const std::uint32_t (&mask)[2],
                                                   double (&total)[2], int lane) {
    if ((mask[0] | mask[1]) == 0) return;  // the same for all threads
    float part[2] = {0.0F, 0.0F};
#pragma unroll
    for (int n = 0; n < kTiles8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (in_mask(mask, n * 8 + (lane & 3) * 2 + (i & 1))) part[i >> 1] += s[n][i];
      }
    }
    total[0] += static_cast<double>(part[0]);
    total[1] += static_cast<double>(part[1]);
  }

  // o += P V, lo before hi, 64 columns of V at a time.
  __device__ __forceinline__ void multiply(const float (&s)[kTiles8][4], std::uint32_t v_base,
                                           int lane) {
    constexpr int kChunks = kDim / 8;
    constexpr int kHeld = kColumns / 8;
#pragma unroll
    for (int part = 0; part < kDim / kColumns; ++part) {
      float product[kHeld][4];
#pragma unroll
      for (int n = 0; n < kHeld; ++n) {
        for (int i = 0; i < 4; ++i) product[n][i] = 0.0F;
      }
#pragma unroll
      for (int step = 0; step < kKeyTile / 16; ++step) {
        std::uint32_t hi[4], lo[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float(&w)[4] = s[2 * step + (i >> 1)];
          Weights<E>::split(w[(i & 1) * 2], w[(i & 1) * 2 + 1], hi[i], lo[i]);
        }
#pragma unroll
        for (int pair = 0; pair < kHeld / 2; ++pair) {
          std::uint32_t b[4];
          const int row = step * 16 + (lane & 15);
          const int chunk = (part * kHeld / 2 + pair) * 2 + (lane >> 4);
          load_matrices_transposed(b, chunk_address<kChunks>(v_base, row, chunk));
          Mma<E>::mma(product[pair * 2], lo, b[0], b[1]);
          Mma<E>::mma(product[pair * 2], hi, b[0], b[1]);
          Mma<E>::mma(product[pair * 2 + 1], lo, b[2], b[3]);
          Mma<E>::mma(product[pair * 2 + 1], hi, b[2], b[3]);
        }
      }
#pragma unroll
      for (int n = 0; n < kHeld; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) o[part * kHeld + n][i] += product[n][i];
      }
    }
  }

  static __device__ __forceinline__ double over_row(double x) {
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
  }

  // Rows without keys: o and masses 0, lse -inf.
  __device__ __forceinline__ void write(const RowParams& p, const RowItem& item, int warp,
                                        int lane) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const double total = over_row(sum[half]);
      const double first = over_row(first_frame[half]);
      const double in_text = over_row(text[half]);
      const int row = warp * 16 + half * 8 + (lane >> 2);
      if (row >= item.rows) continue;
      const std::int64_t place = item.out + p.row_slots[item.first_row + row];
      const bool empty = item.keys == 0;
      const auto inverse = static_cast<float>(1.0 / (total * double{Weights<E>::kWeight}));
      float* target = p.o + place * kDim + (lane & 3) * 2;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        const float2 value = {empty ? 0.0F : o[n][half * 2] * inverse,
                              empty ? 0.0F : o[n][half * 2 + 1] * inverse};
        *reinterpret_cast<float2*>(target + n * 8) = value;
      }
      if ((lane & 3) != 0) continue;
      p.lse[place] = empty ? -INFINITY : static_cast<double>(reference[half]) * kLn2 + log(total);
      p.mass_first_frame[place] = empty ? 0.0 : first / total;
      p.mass_text[place] = empty ? 0.0 : in_text / total;
    }
  }
};

// ---- the kernel -------------------------------------------------------------------------------

template <Element E, int kDim>
__global__ void __launch_bounds__(kThreads, kDim == 64 ? 3 : 2) rows_kernel(const RowParams p) {
  using T = Tiles<kDim>;
  extern __shared__ __align__(128) unsigned char shared[];
  const std::uint32_t q_base = shared_address(shared);
  const std::uint32_t k_base = q_base + T::kQBytes;
  const std::uint32_t v_base = k_base + kStages * T::kKeyBytes;
  auto* tokens = reinterpret_cast<std::int32_t*>(shared + T::kTokensAt);
  auto* masks = reinterpret_cast<TileMasks*>(shared + T::kMasksAt);

  const RowItem item = p.items[blockIdx.x];
  const WorkItem stream = stream_of(item);
  const int tiles = tile_count(stream);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread >> 5;
  const int lane = thread & 31;

  // Threads 0 .. kKeyTile-1, whole warps, each walk one column of the tiles, two tiles ahead.
  KeyCursor cursor;
  if (thread < kKeyTile) cursor.start(p.runs, stream);
  const auto name_tokens = [&](int tile) {
    if (thread >= kKeyTile || tile >= tiles) return;
    const std::int32_t token = token_at(cursor, item, p.key_tokens, tile, thread);
    tokens[(tile & 1) * kKeyTile + thread] = token;
    const std::uint8_t kind = token < 0 ? kPlainKey : p.key_class[token];
    const unsigned first_frame = __ballot_sync(kAllLanes, kind == kFirstFrameKey);
    const unsigned text = __ballot_sync(kAllLanes, kind == kTextKey);
    if (lane != 0) return;
    masks[mask_slot(tile)].first_frame[warp] = first_frame;
    masks[mask_slot(tile)].text[warp] = text;
  };
  const auto copy_tile = [&](int tile) {
    if (tile >= tiles) return;
    const int stage = tile & 1;
    copy_keys<kDim>(p, item, tokens + stage * kKeyTile, k_base + stage * T::kKeyBytes,
                    v_base + stage * T::kKeyBytes);
  };

  WarpRows<E, kDim> rows;
  name_tokens(0);
  name_tokens(1);
  copy_queries<kDim>(p, item, q_base);
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
    float s[kTiles8][4];
    rows.score(s, p.sign, q_base, k_base + stage * T::kKeyBytes, keys_in_tile(stream, tile), warp,
               lane);
    rows.raise_references(s, p.scale_log2);
    rows.weigh(s, p.scale_log2, masks[mask_slot(tile)], lane);
    rows.multiply(s, v_base + stage * T::kKeyBytes, lane);
  }
  wait_copies();
  rows.write(p, item, warp, lane);
}

template <Element E, int kDim>
cudaError_t launch(const RowParams& params, cudaStream_t stream) {
  using T = Tiles<kDim>;
  const auto kernel = rows_kernel<E, kDim>;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kBytes);
  if (status != cudaSuccess) return status;
  kernel<<<static_cast<unsigned>(params.item_count), kThreads, T::kBytes, stream>>>(params);
  return cudaGetLastError();
}

template <Element E>
cudaError_t launch_dim(const RowParams& params, int head_dim, cudaStream_t stream) {
  if (head_dim == 64) return launch<E, 64>(params, stream);
  if (head_dim == 128) return launch<E, 128>(params, stream);
  return cudaErrorInvalidValue;
}

// ---- moments ----------------------------------------------------------------------------------

constexpr int kMomentThreads = 128;
constexpr int kMomentCount = 7;

// A thread a row, elements ascending, every operation rounded on its own: the bits of row_moments().
__global__ void __launch_bounds__(kMomentThreads) moments_kernel(MomentParams p) {
  const std::int64_t place = std::int64_t{blockIdx.x} * kMomentThreads + threadIdx.x;
  if (place >= p.places) return;
  const auto* o = reinterpret_cast<const float4*>(p.o + place * p.head_dim);
  const auto* reference = reinterpret_cast<const float4*>(p.dense + place % p.rows * p.head_dim);
  double error_l1 = 0.0, error_l2 = 0.0, error_max = 0.0;
  double dense_l1 = 0.0, dense_l2 = 0.0, sparse_l2 = 0.0, product = 0.0;
  const auto add = [&](float dense_element, float sparse_element) {
    const double dense = dense_element;
    const double sparse = sparse_element;
    const double error = __dsub_rn(sparse, dense);
    const double size = fabs(error);
    error_l1 = __dadd_rn(error_l1, size);
    error_l2 = __dadd_rn(error_l2, __dmul_rn(error, error));
    error_max = size > error_max ? size : error_max;
    dense_l1 = __dadd_rn(dense_l1, fabs(dense));
    dense_l2 = __dadd_rn(dense_l2, __dmul_rn(dense, dense));
    sparse_l2 = __dadd_rn(sparse_l2, __dmul_rn(sparse, sparse));
    product = __dadd_rn(product, __dmul_rn(dense, sparse));
  };
  for (int chunk = 0; chunk < p.head_dim / 4; ++chunk) {
    const float4 dense = reference[chunk];
    const float4 sparse = o[chunk];
    add(dense.x, sparse.x);
    add(dense.y, sparse.y);
    add(dense.z, sparse.z);
    add(dense.w, sparse.w);
  }
  double* moments = p.moments + place * kMomentCount;
  moments[0] = error_l1;
  moments[1] = error_l2;
  moments[2] = error_max;
  moments[3] = dense_l1;
  moments[4] = dense_l2;
  moments[5] = sparse_l2;
  moments[6] = product;
}

}  // namespace

int launch_rows(const RowParams& params, Element element, int head_dim, void* stream) {
  if (params.item_count == 0) return cudaSuccess;
  const auto on = static_cast<cudaStream_t>(stream);
  return element == Element::bf16 ? launch_dim<Element::bf16>(params, head_dim, on)
                                  : launch_dim<Element::f16>(params, head_dim, on);
}

int launch_moments(const MomentParams& params, void* stream) {
  if (params.places == 0) return cudaSuccess;
  const std::int64_t blocks = (params.places + kMomentThreads - 1) / kMomentThreads;
  moments_kernel<<<static_cast<unsigned>(blocks), kMomentThreads, 0,
                   static_cast<cudaStream_t>(stream)>>>(params);
  return cudaGetLastError();
}

}  // namespace raingauge::cuda_walk
