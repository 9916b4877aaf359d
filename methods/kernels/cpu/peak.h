// SPDX-License-Identifier: Apache-2.0
// What can the cores do at most? A control to measure beside every latency: independent chains of the
// instruction that the kernel's products use, nothing loaded, nothing stored.
#pragma once

#include <string>

#include "data/dtype.h"
#include "methods/kernels/kernel.h"

namespace raingauge::cpu {

struct MeasuredPeak {
  double gflops = 0.0;     // of all threads together; one fused multiply-add counts 2
  std::string arithmetic;  // "avx2 fp32", "avx512_bf16 bf16 pairs", "amx_bf16 bf16 tiles"
};

// The best of about `milliseconds` of attempts, all threads at work at once. `dtype` is that of the
// inputs: bf16 is multiplied as bf16 at the levels that can. Throws like level_ops().
MeasuredPeak measure_peak(const KernelOptions& options, DType dtype, double milliseconds = 30.0);

}  // namespace raingauge::cpu
