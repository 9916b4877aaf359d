// SPDX-License-Identifier: Apache-2.0
// The sm_90a instructions that the kernels use, one function each: mbarriers, tensor copies, wgmma.
// Names follow the PTX ISA. Device code only.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "methods/kernels/cuda/forward.h"

namespace raingauge::hopper {

using cuda_walk::Element;

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- mbarriers --------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_expect(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n"
      "}\n" ::"r"(barrier),
      "r"(phase)
      : "memory");
}

// Named barriers: `id` 1..15, `threads` of the sync and the arrive together.
__device__ __forceinline__ void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- copies -----------------------------------------------------------------------------------

// Makes ordinary shared-memory writes of this thread visible to wgmma and the copy engine.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// One box of a [head, row, column] tensor; rows beyond the tensor arrive as zeros.
__device__ __forceinline__ void copy_box(std::uint32_t target, const CUtensorMap* map,
                                         std::uint32_t barrier, int column, int row, int head,
                                         std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(target),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "r"(head), "l"(policy)
      : "memory");
}
__device__ __forceinline__ std::uint64_t policy_evict_last() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// 16 bytes from global to shared memory; zeros instead when `exists` is false.
__device__ __forceinline__ void copy_chunk(std::uint32_t target, const void* source, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source),
               "r"(exists ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void wait_chunks() { asm volatile("cp.async.wait_all;" ::: "memory"); }
__device__ __forceinline__ void store_matrices(std::uint32_t target, std::uint32_t a,
                                               std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(target),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
__device__ __forceinline__ uint4 load_shared(std::uint32_t address) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address)
               : "memory");
  return value;
}

// ---- wgmma ------------------------------------------------------------------------------------

template <int kRegisters>
__device__ __forceinline__ void registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Pins registers of a product that is in flight: the compiler must not move their uses across.
template <int kCount>
__device__ __forceinline__ void pin(float (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(r[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void pin(std::uint32_t (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(r[i])::"memory");
}

// Matrix descriptor, 128-byte swizzle. `lead`: bytes to the next 64 columns of an operand that is
// contiguous along N (V); `stride`: bytes between groups of eight rows.
__device__ __forceinline__ std::uint64_t matrix(std::uint32_t address, int lead, int stride) {
  return static_cast<std::uint64_t>((address & 0x3ffffU) >> 4) |
         static_cast<std::uint64_t>(lead >> 4) << 16 |
         static_cast<std::uint64_t>(stride >> 4) << 32 | std::uint64_t{1} << 62;
}

#define RAINGAUGE_F4(r, i) "+f"(r[i]), "+f"(r[i + 1]), "+f"(r[i + 2]), "+f"(r[i + 3])
#define RAINGAUGE_F16(r, i) \
  RAINGAUGE_F4(r, i), RAINGAUGE_F4(r, i + 4), RAINGAUGE_F4(r, i + 8), RAINGAUGE_F4(r, i + 12)
#define RAINGAUGE_F32(r, i) RAINGAUGE_F16(r, i), RAINGAUGE_F16(r, i + 16)
#define RAINGAUGE_F64(r) RAINGAUGE_F32(r, 0), RAINGAUGE_F32(r, 32)
#define RAINGAUGE_D32                                                                              \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
  "%26,%27,%28,%29,%30,%31"
#define RAINGAUGE_D64                                                                             \
  RAINGAUGE_D32                                                                                   \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54," \
  "%55,%56,%57,%58,%59,%60,%61,%62,%63"

// d (+)= A B for 64 x 128 results; A and B both contiguous along the summed dimension.
#define RAINGAUGE_QK(type)                                                            \
  asm volatile(                                                                       \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                    \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" RAINGAUGE_D64 \
      "}, %64, %65, p, 1, 1, 0, 0;\n}\n"                                              \
      : RAINGAUGE_F64(d)                                                              \
      : "l"(a), "l"(b), "r"(accumulate))
template <Element E>
__device__ __forceinline__ void multiply_qk(float (&d)[64], std::uint64_t a, std::uint64_t b,
                                            int accumulate) {
  if constexpr (E == Element::bf16) {
    RAINGAUGE_QK("bf16");
  } else {
    RAINGAUGE_QK("f16");
  }
}

// d (+)= A B with A in registers; `t` 1: B is contiguous along N, 0: along the summed dimension.
#define RAINGAUGE_RS(type, shape, regs, outs, a0, a1, a2, a3, b_, p_, t)                       \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p_                                          \
               ", 0;\n"                                                                        \
               "wgmma.mma_async.sync.aligned." shape ".f32." type "." type " {" regs "}, {" a0 \
               "," a1 "," a2 "," a3 "}, " b_ ", p, 1, 1, " t ";\n}\n"                          \
               : outs                                                                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
template <Element E>
__device__ __forceinline__ void multiply_pv(float (&d)[64], const std::uint32_t* a, std::uint64_t b,
                                            int accumulate) {
  if constexpr (E == Element::bf16) {
    RAINGAUGE_RS("bf16", "m64n128k16", RAINGAUGE_D64, RAINGAUGE_F64(d), "%64", "%65", "%66", "%67",
                 "%68", "%69", "1");
  } else {
    RAINGAUGE_RS("f16", "m64n128k16", RAINGAUGE_D64, RAINGAUGE_F64(d), "%64", "%65", "%66", "%67",
                 "%68", "%69", "1");
  }
}
template <Element E>
__device__ __forceinline__ void multiply_pv(float (&d)[32], const std::uint32_t* a, std::uint64_t b,
                                            int accumulate) {
  if constexpr (E == Element::bf16) {
    RAINGAUGE_RS("bf16", "m64n64k16", RAINGAUGE_D32, RAINGAUGE_F32(d, 0), "%32", "%33", "%34",
                 "%35", "%36", "%37", "1");
  } else {
    RAINGAUGE_RS("f16", "m64n64k16", RAINGAUGE_D32, RAINGAUGE_F32(d, 0), "%32", "%33", "%34", "%35",
                 "%36", "%37", "1");
  }
}

// ---- arithmetic -------------------------------------------------------------------------------

__device__ __forceinline__ float exp2_unit(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Absolute error below 2^-22 near 1, -inf for 0.
__device__ __forceinline__ float log2_unit(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <Element E>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  std::uint32_t both;
  if constexpr (E == Element::bf16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  }
  return both;
}

}  // namespace raingauge::hopper
