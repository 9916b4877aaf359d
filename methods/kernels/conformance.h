// SPDX-License-Identifier: Apache-2.0
// Did a kernel execute this plan? Its output is gated row by row against the fp32 reference on the
// same plan: pass or fail, before any latency of it is shown. How good the plan is (fidelity) is
// another question, never mixed with this one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "methods/kernels/kernel.h"

namespace raingauge {

enum class ConformanceOutcome { ok, incorrect, not_finite };

struct ConformanceOptions {
  std::int64_t blocks =
      8;                   // whole query blocks a head, at least; first, last and ragged ones first
  std::uint64_t seed = 0;  // of the other blocks, and of the row taken from every remaining block
  int threads = 0;         // 0 = all
};

struct Conformance {
  ConformanceOutcome outcome = ConformanceOutcome::ok;
  bool ok = false;
  // Of the row that comes closest to its tolerance (or exceeds it most): |o - reference| over the
  // row's scale, which is at least |reference| (RowScale::error_scale), and what is allowed there.
  double max_row_error = 0.0;
  double tolerance = 0.0;
  double max_lse_error = 0.0;  // likewise; both 0 when the kernel gives no LSE
  double lse_tolerance = 0.0;
  std::int64_t rows = 0;  // compared with the reference; every row is checked for being finite
  std::string reason;     // empty when ok; else head, query block, token and the two numbers
};

// What is allowed of one row: the row's error over RowScale::error_scale, and |dLSE|.
struct RowTolerance {
  double row = 0.0;
  double lse = 0.0;
};
struct RowScale;
RowTolerance row_tolerance(const KernelSpec& kernel, DType dtype, std::int64_t head_dim,
                           const RowScale& scale, double lse);

// What kernels should return for one plan and one set of inputs: computed once, for all of them.
//
// Compared: all rows of at least `blocks` whole query blocks a head (first, last, up to eight whose
// size is not the usual one, the others drawn by the seed), and one drawn row of every other query
// block. An error that fills a block is therefore always seen, wherever it is; an error in a single
// row of a block of n rows that is not among the whole ones is seen with probability 1/n. All rows
// of the output are checked for finite values and for the meaning of rows without keys (o = 0,
// lse = -inf).
class ConformanceReference {
 public:
  // `inputs` in host memory; plan and inputs must outlive this object.
  ConformanceReference(const Plan& plan, const AttendInputs& inputs,
                       const ConformanceOptions& options = {});
  ~ConformanceReference();
  ConformanceReference(const ConformanceReference&) = delete;
  ConformanceReference& operator=(const ConformanceReference&) = delete;

  // `outputs` in host memory; outputs.lse null when the kernel gives none.
  Conformance check(const KernelSpec& kernel, const AttendOutputs& outputs) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

// For one kernel alone.
Conformance check_conformance(const KernelSpec& kernel, const Plan& plan,
                              const AttendInputs& inputs, const AttendOutputs& outputs,
                              const ConformanceOptions& options = {});

}  // namespace raingauge
