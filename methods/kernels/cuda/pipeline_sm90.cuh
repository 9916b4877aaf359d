// SPDX-License-Identifier: Apache-2.0
// What the sm_90a kernels share: the rings between the warps that copy and those that compute, the
// copying of keys and query rows, tensor maps.
//
// A work item travels as a message, its query rows through a ring of two tiles, its keys (and values)
// through a ring of slots. Of all rings the consumers free a place when they have read it for the last
// time. Where a lane of its own does not release what it has read (slots), the warp comes together first.
#pragma once

#include <cmath>

#include "methods/kernels/cuda/forward_sm90.h"
#include "methods/kernels/cuda/hopper.cuh"

namespace raingauge::cuda_walk::sm90 {

using namespace raingauge::hopper;

constexpr float kLn2 = 0.69314718055994531F;
constexpr unsigned kAllLanes = 0xffffffffU;
constexpr int kLoaderWarps = 2;  // of Q

// kToken: the warpgroups issue their products in turn. kConsumers: warpgroups that compute.
template <Element kElementType, int kHeadDim, bool kPassToken, int kGroups = 2>
struct Config {
  static constexpr Element kElement = kElementType;
  static constexpr int kDim = kHeadDim;
  static constexpr bool kToken = kPassToken;
  static constexpr int kConsumers = kGroups;
  static constexpr bool kDense = kGroups == 3;  // items meet all boxes
  static constexpr int kConsumerWarps = kGroups * 4;
  static constexpr int kThreads = (kGroups + 1) * 128;
  static constexpr int kRows = kGroups * 64;  // of Q
  static constexpr int kQBytes = kRows * kDim * 2;
  static constexpr int kSlotBytes = kStepKeys * kDim * 2;
  static constexpr int kSlots =
      (224 * 1024 - 2 * kQBytes) / kSlotBytes < 12 ? (224 * 1024 - 2 * kQBytes) / kSlotBytes : 12;
  static constexpr int kSharedBytes = 1024 + 2 * kQBytes + kSlots * kSlotBytes + 1024;
  // Of a thread, as setmaxnreg moves them: (kGroups * kConsumer + kCopier) * 128 <= 65536, and what
  // the launch gives.
  static constexpr int kCopierRegisters = kGroups == 3 ? 32 : 56;
  static constexpr int kConsumerRegisters = kGroups == 2 ? 224 : kGroups == 3 ? 160 : 104;
};

// An item as the copying warp announces it; count < 0: no more items.
struct alignas(16) Message {
  std::int32_t head, q_first, q_rows, count;
};

struct alignas(16) Control {
  std::uint64_t slot_full[12], slot_empty[12];
  std::uint64_t q_full[2], q_empty[2];
  std::uint64_t message_full[2], message_empty[2];
  std::uint32_t columns[12];  // of the K slots, see step_columns()
  Message messages[2];
};
static_assert(sizeof(Control) <= 1024);

// A place in a ring and the parity of its current round.
template <int kSize>
struct Cursor {
  int slot = 0;
  std::uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++slot == kSize) {
      slot = 0;
      phase ^= 1;
    }
  }
};

template <class C>
struct Shared {
  std::uint32_t q, slots;  // shared-memory addresses
  Control* control;
  __device__ __forceinline__ std::uint32_t q_tile(int buffer) const {
    return q + static_cast<std::uint32_t>(buffer * C::kQBytes);
  }
  __device__ __forceinline__ std::uint32_t slot(int index) const {
    return slots + static_cast<std::uint32_t>(index * C::kSlotBytes);
  }
};

// Descriptor offset of columns [16 i, 16 i + 16) in a tile of so many rows.
__device__ __forceinline__ constexpr std::uint64_t operand_offset(int i, int rows) {
  return static_cast<std::uint64_t>((i & 3) * 2 + (i >> 2) * (rows * 128 / 16));
}

__device__ __forceinline__ std::int64_t query_token(const SparseParams& p, int head, int position) {
  if (p.q_tokens == nullptr) return position;
  return p.q_tokens[head * p.q_tokens_stride + position];
}

// One thread of a block, after its last item: the last block to leave resets the counter, so that a
// captured graph can be replayed.
__device__ __forceinline__ void leave(const SparseParams& p) {
  __threadfence();
  if (atomicAdd(p.counter + 1, 1) == static_cast<int>(gridDim.x) - 1) {
    p.counter[0] = 0;
    p.counter[1] = 0;
  }
}

// ---- copying ----------------------------------------------------------------------------------

// Reads a message and frees its place.
__device__ __forceinline__ Message read_message(Control* control, Cursor<2>& cursor) {
  barrier_wait(shared_address(&control->message_full[cursor.slot]), cursor.phase);
  const Message message = control->messages[cursor.slot];
  barrier_arrive(shared_address(&control->message_empty[cursor.slot]));
  cursor.advance();
  return message;
}

// Of the record's head_dim; items that meet all boxes have no other than the tile's.
template <class C>
__device__ __forceinline__ int channels(const SparseParams& p) {
  return C::kDense ? C::kDim : p.head_dim;
}

// Rows [first, first + 64) of an item's query tile; rows beyond the item and channels beyond head_dim
// become zeros.
template <class C>
__device__ __forceinline__ void copy_query_rows(const SparseParams& p, const Message& item,
                                                std::uint32_t target, int first) {
  constexpr int kChunks = C::kDim / 8;
  constexpr int kRowsAtOnce = 32 / kChunks;
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int chunk = lane % kChunks;
  const bool real = chunk * 8 < channels<C>(p);
  int tokens[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first + i * 32 + lane;
    tokens[i] =
        row < item.q_rows ? static_cast<int>(query_token(p, item.head, item.q_first + row)) : -1;
  }
  const char* base = static_cast<const char*>(p.q) + 2 * item.head * p.q_head_stride;
  constexpr int kAhead = C::kDense ? 1 : 4;  // its copying warps have few registers
#pragma unroll kAhead
  for (int i = 0; i < 64; i += kRowsAtOnce) {
    const int row = i + lane / kChunks;
    const int token = __shfl_sync(kAllLanes, i < 32 ? tokens[0] : tokens[1], row & 31);
    const char* source = base + 2 * (max(token, 0) * p.q_token_stride + chunk * 8);
    copy_chunk(target + tile_byte(first + row, chunk, C::kRows), source, token >= 0 && real);
  }
}

// Every kLoaderWarps-th 64 rows of every item's query tile; missing rows become zeros.
template <class C>
__device__ void copy_queries(const SparseParams& p, const Shared<C>& s, int loader) {
  Cursor<2> message, buffer;
  for (;;) {
    const Message item = read_message(s.control, message);
    if (item.count < 0) return;
    barrier_wait(shared_address(&s.control->q_empty[buffer.slot]), buffer.phase ^ 1);
    if (item.count > 0) {
      for (int first = loader * 64; first < C::kRows; first += kLoaderWarps * 64) {
        copy_query_rows<C>(p, item, s.q_tile(buffer.slot), first);
      }
      wait_chunks();
      fence_async_proxy();
    }
    barrier_arrive(shared_address(&s.control->q_full[buffer.slot]));
    buffer.advance();
  }
}

// Boxes [first, second] of a step, by one thread; a missing second box (-1) and channels beyond head_dim
// become zeros.
template <class C>
__device__ __forceinline__ void copy_boxes(std::uint32_t target, const CUtensorMap* map,
                                           std::uint32_t full, int first, int second, int box_keys,
                                           int head, std::uint64_t policy) {
  barrier_expect(full, C::kSlotBytes);
#pragma unroll
  for (int half = 0; half < C::kDim / 64; ++half) {
    const std::uint32_t place = target + half * kStepKeys * 128;
    copy_box(place, map, full, half * 64, first * box_keys, head, policy);
    if (box_keys == kHalfKeys) {
      const int row = second < 0 ? 0x7fffff00 : second * box_keys;  // beyond every tensor: zeros
      copy_box(place + kHalfKeys * 128, map, full, half * 64, row, head, policy);
    }
  }
}

template <class C>
class KeyCopier {
 public:
  __device__ KeyCopier(const SparseParams& params, const Shared<C>& shared,
                       const CUtensorMap* k_map, const CUtensorMap* v_map)
      : p(params), s(shared), k(k_map), v(v_map), lane(static_cast<int>(threadIdx.x & 31)) {}

  __device__ void run() {
    policy = policy_evict_last();
    int index = take();
    TileItem item = load(index);
    publish(item);
    int ahead = take();
    while (item.count >= 0) {
      index = __shfl_sync(kAllLanes, ahead, 0);
      const TileItem next = load(index);
      ahead = take();  // used one item later: its latency is hidden
      copy_item(item, next);
      item = next;
    }
    flush();
    if (lane == 0) leave(p);
  }

 private:
  // The next item's number, in lane 0.
  __device__ __forceinline__ int take() {
    int index = 0;
    if (lane == 0) index = atomicAdd(p.counter, 1);
    return index;
  }
  __device__ __forceinline__ TileItem load(int index) {
    index = __shfl_sync(kAllLanes, index, 0);
    if (index < p.item_count) return p.items[index];
    return TileItem{0, 0, 0, 0, -1};
  }
  __device__ __forceinline__ void publish(const TileItem& item) {
    barrier_wait(shared_address(&s.control->message_empty[message.slot]), message.phase ^ 1);
    if (lane == 0) {
      s.control->messages[message.slot] = {item.head, item.q_first, item.q_rows, item.count};
      barrier_arrive(shared_address(&s.control->message_full[message.slot]));
    }
    __syncwarp();
    message.advance();
  }

  // Boxes [first, second] of one slot; a missing second box (-1) becomes zeros.
  __device__ __forceinline__ void copy_slot(const CUtensorMap* map, int first, int second, int head,
                                            std::uint32_t columns) {
    const std::uint32_t full = shared_address(&s.control->slot_full[ring.slot]);
    barrier_wait(shared_address(&s.control->slot_empty[ring.slot]), ring.phase ^ 1);
    if (lane == 0) {
      s.control->columns[ring.slot] = columns;
      copy_boxes<C>(s.slot(ring.slot), map, full, first, second, p.table.box_keys, head, policy);
    }
    __syncwarp();
    ring.advance();
  }

  // V of the step before goes out after K of this one: the order in which they are used.
  __device__ __forceinline__ void flush() {
    if (v_first >= 0) copy_slot(v, v_first, v_second, v_head, 0);
    v_first = -1;
  }

  __device__ void copy_item(const TileItem& item, const TileItem& next) {
    const int per_step = boxes_per_step(p.table);
    const int head = item.head / p.group;
    int box = lane < item.count ? p.boxes[item.first + lane] : 0;
    int valid = lane < item.count ? valid_keys(p.table, head, box) : 0;
    bool published = false;
    for (int chunk = 0; chunk < item.count; chunk += 32) {
      const int mine = chunk + 32 + lane;
      const int box_ahead = mine < item.count ? p.boxes[item.first + mine] : 0;
      const int in_chunk = min(32, item.count - chunk);
      for (int i = 0; i < in_chunk; i += per_step) {
        const int first = __shfl_sync(kAllLanes, box, i);
        const int first_valid = __shfl_sync(kAllLanes, valid, i);
        int second = -1;
        int second_valid = 0;
        if (per_step == 2) {
          second = __shfl_sync(kAllLanes, box, (i + 1) & 31);
          second_valid = __shfl_sync(kAllLanes, valid, (i + 1) & 31);
          if (i + 1 >= in_chunk) {
            second = -1;
            second_valid = 0;
          }
        }
        copy_slot(k, first, second, head, step_columns(p.table, first_valid, second_valid));
        flush();
        v_first = first;
        v_second = second;
        v_head = head;
        if (!published) {
          publish(next);
          published = true;
        }
      }
      box = box_ahead;
      valid = mine < item.count ? valid_keys(p.table, head, box) : 0;
    }
    if (!published) {
      flush();
      publish(next);
    }
    if (next.count <= 0) flush();
  }

  const SparseParams& p;
  const Shared<C>& s;
  const CUtensorMap* k;
  const CUtensorMap* v;
  int lane;
  std::uint64_t policy = 0;
  Cursor<C::kSlots> ring;
  Cursor<2> message;
  int v_first = -1, v_second = -1, v_head = 0;
};

// For items that meet all boxes: no lists, no counter. With kValues, V of a step follows K of the next.
template <class C, bool kValues>
class AllBoxCopier {
 public:
  __device__ AllBoxCopier(const SparseParams& params, const Shared<C>& shared,
                          const CUtensorMap* k_map, const CUtensorMap* v_map)
      : p(params), s(shared), k(k_map), v(v_map), lane(static_cast<int>(threadIdx.x & 31)) {}

  __device__ void run(int boxes) {
    const int per_step = boxes_per_step(p.table);
    for (int t = static_cast<int>(blockIdx.x);; t += static_cast<int>(gridDim.x)) {
      const bool last = t >= p.item_count;
      if (last) flush(boxes);
      publish(last ? nullptr : p.items + t, boxes);
      if (last) return;
      const int head = p.items[t].head / p.group;
      for (int box = 0; box < boxes; box += per_step) {
        send(k, box, boxes, head);
        flush(boxes);
        v_box = box;
        v_head = head;
      }
    }
  }

 private:
  __device__ __forceinline__ void publish(const TileItem* item, int boxes) {
    barrier_wait(shared_address(&s.control->message_empty[message.slot]), message.phase ^ 1);
    if (lane == 0) {
      Message& to = s.control->messages[message.slot];
      if (item == nullptr) {
        to.count = -1;
      } else {
        to = {item->head, item->q_first, item->q_rows, boxes};
      }
      barrier_arrive(shared_address(&s.control->message_full[message.slot]));
    }
    __syncwarp();
    message.advance();
  }
  __device__ __forceinline__ void flush(int boxes) {
    if (kValues && v_box >= 0) send(v, v_box, boxes, v_head);
    v_box = -1;
  }
  __device__ __forceinline__ void send(const CUtensorMap* map, int box, int boxes, int head) {
    barrier_wait(shared_address(&s.control->slot_empty[ring.slot]), ring.phase ^ 1);
    if (lane == 0) {
      const bool second = p.table.box_keys == kHalfKeys && box + 1 < boxes;
      s.control->columns[ring.slot] = step_columns(p.table, valid_keys(p.table, head, box),
                                                   second ? valid_keys(p.table, head, box + 1) : 0);
      copy_boxes<C>(s.slot(ring.slot), map, shared_address(&s.control->slot_full[ring.slot]), box,
                    second ? box + 1 : -1, p.table.box_keys, head, policy_evict_last());
    }
    __syncwarp();
    ring.advance();
  }

  const SparseParams& p;
  const Shared<C>& s;
  const CUtensorMap* k;
  const CUtensorMap* v;
  int lane;
  Cursor<C::kSlots> ring;
  Cursor<2> message;
  int v_box = -1, v_head = 0;
};

// The work of the first warpgroup in a forward pass.
template <class C>
__device__ __forceinline__ void copy_all(const SparseParams& p, const Shared<C>& s,
                                         const CUtensorMap* k_map, const CUtensorMap* v_map) {
  const int warp = static_cast<int>(threadIdx.x / 32);
  if (warp == 0) {
    if constexpr (C::kDense) {
      AllBoxCopier<C, true>(p, s, k_map, v_map).run(p.every_box);
    } else {
      KeyCopier<C>(p, s, k_map, v_map).run();
    }
  } else if (warp <= kLoaderWarps) {
    copy_queries<C>(p, s, warp - 1);
  }
}

// ---- consumers --------------------------------------------------------------------------------

// Valid columns of a K slot, read by the lane that releases the slot.
__device__ __forceinline__ std::uint32_t columns_of(const std::uint32_t* columns, int slot) {
  return __shfl_sync(kAllLanes, (threadIdx.x & 31) == 0 ? columns[slot] : 0, 0);
}
__device__ __forceinline__ void release_slot(Control* control, int slot) {
  __syncwarp();
  if ((threadIdx.x & 31) == 0) barrier_arrive(shared_address(&control->slot_empty[slot]));
}
__device__ __forceinline__ void mask_columns(float (&score)[64], std::uint32_t columns) {
  if (columns == kAllColumns) return;
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    const int column = (i >> 2) * 8 + static_cast<int>(threadIdx.x & 3) * 2 + (i & 1);
    if (!column_counts(columns, column)) score[i] = -INFINITY;
  }
}

// score = Q K^T of 64 query rows and a slot; issued, not waited for.
template <class C>
__device__ __forceinline__ void issue_scores(float (&score)[64], std::uint32_t q_rows,
                                             std::uint32_t k_slot) {
  const std::uint64_t q = matrix(q_rows, 16, 1024);
  const std::uint64_t k = matrix(k_slot, 16, 1024);
  pin(score);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < C::kDim / 16; ++i) {
    multiply_qk<C::kElement>(score, q + operand_offset(i, C::kRows),
                             k + operand_offset(i, kStepKeys), i == 0 ? 0 : 1);
  }
  wgmma_commit();
  pin(score);
}

// Lays out dynamic shared memory and readies its barriers; every thread of the block calls it.
template <class C>
__device__ __forceinline__ Shared<C> share(unsigned char* raw) {
  const std::uint32_t start = shared_address(raw);
  const std::uint32_t aligned = (start + 1023U) & ~1023U;
  Shared<C> s;
  s.q = aligned;
  s.slots = aligned + 2 * C::kQBytes;
  s.control = reinterpret_cast<Control*>(raw + (aligned - start) + 2 * C::kQBytes +
                                         C::kSlots * C::kSlotBytes);
  if (threadIdx.x == 0) {
    Control* c = s.control;
    for (int i = 0; i < C::kSlots; ++i) {
      barrier_init(shared_address(&c->slot_full[i]), 1);
      barrier_init(shared_address(&c->slot_empty[i]), C::kConsumerWarps);
    }
    for (int i = 0; i < 2; ++i) {
      barrier_init(shared_address(&c->q_full[i]), kLoaderWarps * 32);
      barrier_init(shared_address(&c->q_empty[i]), C::kConsumerWarps * 32);
      barrier_init(shared_address(&c->message_full[i]), 1);
      barrier_init(shared_address(&c->message_empty[i]), (kLoaderWarps + C::kConsumerWarps) * 32);
    }
    barrier_init_fence();
  }
  __syncthreads();
  return s;
}

// ---- host -------------------------------------------------------------------------------------

// [head, row, column] map of K or V with boxes of box_keys rows and 64 columns.
inline cudaError_t encode_map(CUtensorMap& map, const KeyTensor& t, Element element, int head_dim,
                              int heads, int box_keys) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static Encode encode = nullptr;
  if (encode == nullptr) {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry,
                                                                12000, cudaEnableDefault, &found);
    if (status != cudaSuccess) return status;
    if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
    encode = reinterpret_cast<Encode>(entry);
  }
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(head_dim), static_cast<cuuint64_t>(t.rows),
                               static_cast<cuuint64_t>(heads)};
  // A head stride of 0 (one head) is not allowed.
  const cuuint64_t strides[2] = {
      static_cast<cuuint64_t>(t.token_stride) * 2,
      static_cast<cuuint64_t>(heads == 1 ? t.rows * t.token_stride : t.head_stride) * 2};
  const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(box_keys), 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result = encode(
      &map,
      element == Element::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      3, const_cast<void*>(t.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// Refuses a build without sm_90a, raises the kernel's shared-memory limit, counts multiprocessors.
template <class Kernel>
cudaError_t ready(Kernel* kernel, int shared_bytes, int& multiprocessors) {
  cudaFuncAttributes attributes{};
  cudaError_t status = cudaFuncGetAttributes(&attributes, kernel);
  if (status != cudaSuccess) return status;
  if (attributes.ptxVersion != 90) return cudaErrorNoKernelImageForDevice;
  status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (status != cudaSuccess) return status;
  int device = 0;
  status = cudaGetDevice(&device);
  if (status != cudaSuccess) return status;
  return cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace raingauge::cuda_walk::sm90
