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

#include <cmath>

#include "methods/kernels/cuda/forward_sm90.h"
#include "methods/kernels/cuda/hopper.cuh"

namespace raingauge::cuda_walk::sm90 {

using namespace raingauge::hopper;

constexpr float kLn2 = 0.69314718055994531F;
constexpr unsigned kAllLanes = 0xffffffffU;
constexpr int kLoaderWarps = 2;  // of Q
// What a thread's weights of one step may sum to under a kept reference. Weights are relative numbers:
// only overflow bounds them, of f16 itself, or of fp32 sums of bf16 weights times large values.
template <Element kElement>
constexpr float kLimit = kElement == Element::f16 ? 32768.0F : 4294967296.0F;

// kToken: the warpgroups issue their products in turn. kConsumers: warpgroups that compute.
template <Element kElementType, int kHeadDim, bool kPassToken, int kGroups = 2>
struct Config {
  static constexpr Element kElement = kElementType;
  static constexpr int kDim = kHeadDim;
  static constexpr bool kToken = kPassToken;
  static constexpr int kConsumers = kGroups;
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
  static constexpr int kCopierRegisters = 56;
  static constexpr int kConsumerRegisters = kGroups == 2 ? 224 : kGroups == 3 ? 152 : 104;
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

// ---- the copying warpgroup --------------------------------------------------------------------

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
    leave();
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
      barrier_expect(full, C::kSlotBytes);
      const std::uint32_t target = s.slot(ring.slot);
      const int rows = p.table.box_keys;
#pragma unroll
      for (int half = 0; half < C::kDim / 64; ++half) {
        const std::uint32_t place = target + half * kStepKeys * 128;
        copy_box(place, map, full, half * 64, first * rows, head, policy);
        if (rows == kHalfKeys) {
          const int row = second < 0 ? 0x7fffff00 : second * rows;  // beyond every tensor: zeros
          copy_box(place + kHalfKeys * 128, map, full, half * 64, row, head, policy);
        }
      }
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

  // The last thread block to leave resets the counter, so that a captured graph can be replayed.
  __device__ void leave() {
    if (lane != 0) return;
    __threadfence();
    if (atomicAdd(p.counter + 1, 1) == static_cast<int>(gridDim.x) - 1) {
      p.counter[0] = 0;
      p.counter[1] = 0;
    }
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

__device__ __forceinline__ Message read_message(Control* control, Cursor<2>& cursor) {
  barrier_wait(shared_address(&control->message_full[cursor.slot]), cursor.phase);
  const Message message = control->messages[cursor.slot];
  barrier_arrive(shared_address(&control->message_empty[cursor.slot]));
  cursor.advance();
  return message;
}

// Rows [first, first + 64) of an item's query tile; rows beyond the item become zeros.
template <class C>
__device__ __forceinline__ void copy_query_rows(const SparseParams& p, const Message& item,
                                                std::uint32_t target, int first) {
  constexpr int kChunks = C::kDim / 8;
  constexpr int kRowsAtOnce = 32 / kChunks;
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int chunk = lane % kChunks;
  int tokens[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first + i * 32 + lane;
    tokens[i] =
        row < item.q_rows ? static_cast<int>(query_token(p, item.head, item.q_first + row)) : -1;
  }
  const char* base = static_cast<const char*>(p.q) + 2 * item.head * p.q_head_stride;
#pragma unroll 4
  for (int i = 0; i < 64; i += kRowsAtOnce) {
    const int row = i + lane / kChunks;
    const int token = __shfl_sync(kAllLanes, i < 32 ? tokens[0] : tokens[1], row & 31);
    const char* source = base + 2 * (max(token, 0) * p.q_token_stride + chunk * 8);
    copy_chunk(target + tile_byte(first + row, chunk, C::kRows), source, token >= 0);
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
      while (item.count == 0) {
        write_empty();
        release_q();
        next_item();
      }
      if (item.count < 0) return;
      open();
      for (;;) {
        const int steps = step_count(p.table, item.count);
        for (int i = 1; i < steps; ++i) step();
        const Item done = item;
        next_item();
        if (item.count <= 0) {
          close(done);
          while (item.count == 0) {
            write_empty();
            release_q();
            next_item();
          }
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
    int head, count, rows;
    int token;  // of row (lane & 15) of this warp; -1 beyond the item
  };

  __device__ __forceinline__ void next_item() {
    const Message m = read_message(s.control, message);
    item.head = m.head;
    item.count = m.count;
    const int row = group * 64 + warp * 16 + (lane & 15);
    item.token = m.count >= 0 && row < m.q_rows
                     ? static_cast<int>(query_token(p, m.head, m.q_first + row))
                     : -1;
    q_read = q_next;
    q_next.advance();
  }
  __device__ __forceinline__ void release_q() {
    barrier_arrive(shared_address(&s.control->q_empty[q_done.slot]));
    q_done.advance();
  }
  __device__ __forceinline__ void wait_q() {
    barrier_wait(shared_address(&s.control->q_full[q_read.slot]), q_read.phase);
  }

  // ---- slots ----
  __device__ __forceinline__ int wait_slot() {
    const int slot = ring.slot;
    barrier_wait(shared_address(&s.control->slot_full[slot]), ring.phase);
    ring.advance();
    return slot;
  }
  // Read by the lane that releases the slot.
  __device__ __forceinline__ std::uint32_t columns_of(int slot) const {
    return __shfl_sync(kAllLanes, lane == 0 ? s.control->columns[slot] : 0, 0);
  }
  __device__ __forceinline__ void release_slot(int slot) {
    __syncwarp();
    if (lane == 0) barrier_arrive(shared_address(&s.control->slot_empty[slot]));
  }
  __device__ __forceinline__ void take_token() {
    if (C::kToken) named_sync(1 + group, 256);
  }
  __device__ __forceinline__ void pass_token() {
    if (C::kToken) named_arrive(1 + (group + 1) % C::kConsumers, 256);
  }

  // ---- products ----
  __device__ __forceinline__ void issue_qk(int slot) {
    const std::uint64_t q =
        matrix(s.q_tile(q_read.slot) + static_cast<std::uint32_t>(group * 64 * 128), 16, 1024);
    const std::uint64_t k = matrix(s.slot(slot), 16, 1024);
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
  __device__ __forceinline__ void issue_pv(int slot) {
    const std::uint64_t v = matrix(s.slot(slot), kStepKeys * 128, 1024);
    pin(out);
    pin(weight);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kStepKeys / 16; ++i) {
      multiply_pv<C::kElement>(out, weight + 4 * i, v + i * (2048 / 16), i == 0 ? accumulate : 1);
    }
    wgmma_commit();
    pin(out);
    accumulate = 1;
  }

  // ---- softmax ----
  __device__ __forceinline__ void mask(std::uint32_t columns) {
    if (columns == kAllColumns) return;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const int column = (i >> 2) * 8 + (lane & 3) * 2 + (i & 1);
      if (!column_counts(columns, column)) score[i] = -INFINITY;
    }
  }

  // The largest scaled score of both rows of this thread.
  __device__ __forceinline__ void find_tops(float (&tops)[2]) {
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
      tops[half] = m * p.scale_log2;
    }
  }
  // What the exponents subtract: a row that has met only -inf subtracts 0.
  __device__ __forceinline__ float base(int half) const {
    return reference[half] == -INFINITY ? 0.0F : reference[half];
  }
  // Weights 2^(score - base), packed as the second product's operand, and their sums in this thread.
  __device__ __forceinline__ void weigh(float base0, float base1, float (&add)[2]) {
    const float bases[2] = {base0, base1};
    float part[2][2] = {{0.0F, 0.0F}, {0.0F, 0.0F}};
#pragma unroll
    for (int i = 0; i < 64; i += 2) {
      const int half = (i >> 1) & 1;
      float w[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float x = fmaf(score[i + j], p.scale_log2, -bases[half]);
        w[j] = exp2_unit(x);
        part[half][j] += w[j];
      }
      weight[i >> 1] = pack<C::kElement>(w[0], w[1]);
    }
    add[0] = part[0][0] + part[0][1];
    add[1] = part[1][0] + part[1][1];
  }
  // The weights of a further step. They are first taken with the references as they are: as long as
  // no weight exceeds kLimit, sums and weights keep their relative precision and no maximum is
  // needed. Rows that have met only -inf have the reference -inf, hence infinite or NaN weights, and
  // come here for their first reference too.
  __device__ __forceinline__ void soften(int v) {
    float add[2];
    finish_pv(v);
    weigh(reference[0], reference[1], add);
    const bool fits = (add[0] <= kLimit<C::kElement>)&(add[1] <= kLimit<C::kElement>);
    if (!__all_sync(kAllLanes, fits)) {
      move_references(add);
      weigh(base(0), base(1), add);
    }
    sum[0] += add[0];
    sum[1] += add[1];
  }
  // Of the rows whose weights do not fit; the others keep theirs, so that no row's bits depend on its
  // neighbours.
  __device__ __forceinline__ void move_references(const float (&add)[2]) {
    float tops[2];
    float shrink[2];
    find_tops(tops);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const unsigned row =
          __ballot_sync(kAllLanes, !(add[half] <= kLimit<C::kElement>)) >> (lane & 28) & 15U;
      const float former = reference[half];
      if (row != 0) reference[half] = fmaxf(former, tops[half]);
      shrink[half] = row != 0 ? exp2_unit(former - base(half)) : 1.0F;
      sum[half] *= shrink[half];
    }
    shrink_out(shrink);
  }
  __device__ __forceinline__ void finish_pv(int v) {
    wgmma_wait<0>();
    pin(out);
    pin(weight);
    release_slot(v);
  }
  __device__ __forceinline__ void shrink_out(const float (&shrink)[2]) {
#pragma unroll
    for (int i = 0; i < C::kDim / 2; ++i) out[i] *= shrink[(i >> 1) & 1];
  }

  // ---- the steps of an item ----
  __device__ __forceinline__ void open() {
    wait_q();
    const int k = wait_slot();
    const std::uint32_t columns = columns_of(k);
    take_token();
    issue_qk(k);
    pass_token();
    wgmma_wait<0>();
    pin(score);
    release_slot(k);
    start(columns);
  }
  __device__ __forceinline__ void start(std::uint32_t columns) {
    mask(columns);
    find_tops(reference);
    weigh(base(0), base(1), sum);
    accumulate = 0;
  }
  __device__ __forceinline__ void step() {
    const int k = wait_slot();
    const std::uint32_t columns = columns_of(k);
    take_token();
    issue_qk(k);
    const int v = wait_slot();
    issue_pv(v);
    pass_token();
    wgmma_wait<1>();
    pin(score);
    release_slot(k);
    mask(columns);
    soften(v);
  }
  // The last product of one item beside the first of the next.
  __device__ __forceinline__ void chain(const Item& done) {
    wait_q();
    const int k = wait_slot();
    const std::uint32_t columns = columns_of(k);
    take_token();
    issue_qk(k);
    const int v = wait_slot();
    issue_pv(v);
    pass_token();
    wgmma_wait<0>();
    pin(score);
    pin(out);
    pin(weight);
    release_slot(k);
    release_slot(v);
    write(done);
    start(columns);
  }
  __device__ __forceinline__ void close(const Item& done) {
    const int v = wait_slot();
    take_token();
    issue_pv(v);
    pass_token();
    wgmma_wait<0>();
    pin(out);
    pin(weight);
    release_slot(v);
    write(done);
  }

  // ---- results ----
  __device__ __forceinline__ void write(const Item& done) {
    float inverse[2];
    float total[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] = sum[half];
      total[half] += __shfl_xor_sync(kAllLanes, total[half], 1);
      total[half] += __shfl_xor_sync(kAllLanes, total[half], 2);
      inverse[half] = total[half] == 0.0F ? 0.0F : 1.0F / total[half];
    }
    shrink_out(inverse);
    if (p.lse != nullptr) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int token = __shfl_sync(kAllLanes, done.token, half * 8 + (lane >> 2));
        if ((lane & 3) == 0 && token >= 0) {
          p.lse[done.head * p.lse_head_stride + token] =
              total[half] == 0.0F ? -INFINITY : (base(half) + log2f(total[half])) * kLn2;
        }
      }
    }
    if (p.o_is_float) {
      write_float(done);
    } else {
      write_element(done);
    }
    release_q();
  }
  __device__ __forceinline__ void write_float(const Item& done) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = __shfl_sync(kAllLanes, done.token, half * 8 + (lane >> 2));
      if (token < 0) continue;
      float* target = static_cast<float*>(p.o) + done.head * p.o_head_stride +
                      token * p.o_token_stride + (lane & 3) * 2;
#pragma unroll
      for (int j = 0; j < C::kDim / 8; ++j) {
        *reinterpret_cast<float2*>(target + j * 8) =
            make_float2(out[j * 4 + half * 2], out[j * 4 + half * 2 + 1]);
      }
    }
  }
  // Through the warp's own sixteen rows of the query tile, which its last product has read.
  __device__ __forceinline__ void write_element(const Item& done) {
    constexpr int kChunks = C::kDim / 8;
    constexpr int kRowsAtOnce = 32 / kChunks;
    const std::uint32_t tile = s.q_tile(q_done.slot);
    const int first = group * 64 + warp * 16;
#pragma unroll
    for (int j = 0; j < kChunks; j += 2) {
      const int row = first + (lane & 15);
      store_matrices(tile + tile_byte(row, j + (lane >> 4), C::kRows),
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
      const int token = __shfl_sync(kAllLanes, done.token, row);
      const uint4 value = load_shared(tile + tile_byte(first + row, chunk, C::kRows));
      if (token < 0) continue;
      char* target = static_cast<char*>(p.o) +
                     2 * (done.head * p.o_head_stride + token * p.o_token_stride + chunk * 8);
      *reinterpret_cast<uint4*>(target) = value;
    }
  }
  __device__ void write_empty() {
    for (int row = 0; row < 16; ++row) {
      const int token = __shfl_sync(kAllLanes, item.token, row);
      if (token < 0) continue;
      if (lane == 0 && p.lse != nullptr) {
        p.lse[item.head * p.lse_head_stride + token] = -INFINITY;
      }
      const std::int64_t at = item.head * p.o_head_stride + token * p.o_token_stride;
      for (int d = lane; d < C::kDim; d += 32) {
        if (p.o_is_float) {
          static_cast<float*>(p.o)[at + d] = 0.0F;
        } else {
          static_cast<std::uint16_t*>(p.o)[at + d] = 0;
        }
      }
    }
  }

  const SparseParams& p;
  const Shared<C>& s;
  int group, warp, lane;
  Cursor<C::kSlots> ring;
  Cursor<2> message, q_read, q_next, q_done;
  Item item{0, 0, 0, -1};
  float score[64];
  float out[C::kDim / 2];
  std::uint32_t weight[32];
  float reference[2];  // base 2, of the weights; -inf until the row meets a score above it
  float sum[2];        // this thread's part of the row sums
  int accumulate = 0;
};

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
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp == 0) {
      KeyCopier<C>(p, s, &k_map, &v_map).run();
    } else if (warp <= kLoaderWarps) {
      copy_queries<C>(p, s, warp - 1);
    }
  } else {
    registers_up<C::kConsumerRegisters>();
    Consumer<C>(p, s).run();
  }
#else
  __trap();  // compiled for another target; launch() refuses before this
#endif
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

template <class C>
cudaError_t launch(const SparseParams& params, const KeyTensor& k, const KeyTensor& v,
                   cudaStream_t stream) {
  if (params.item_count == 0) return cudaSuccess;
  const int kv_heads = params.heads / params.group;
  CUtensorMap k_map;
  CUtensorMap v_map;
  cudaError_t status = encode_map(k_map, k, C::kElement, C::kDim, kv_heads, params.table.box_keys);
  if (status != cudaSuccess) return status;
  status = encode_map(v_map, v, C::kElement, C::kDim, kv_heads, params.table.box_keys);
  if (status != cudaSuccess) return status;
  int blocks = 0;
  status = ready(sparse_forward<C>, C::kSharedBytes, blocks);
  if (status != cudaSuccess) return status;
  if (blocks > params.item_count) blocks = params.item_count;
  sparse_forward<C><<<static_cast<unsigned>(blocks), C::kThreads, C::kSharedBytes, stream>>>(
      k_map, v_map, params);
  return cudaGetLastError();
}

}  // namespace raingauge::cuda_walk::sm90
