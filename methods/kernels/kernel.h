// SPDX-License-Identifier: Apache-2.0
// A kernel executes a plan: O = softmax(scale * Q K^T restricted to the kept blocks) V, and the
// log-sum-exp of every row. It reads the record's token order and writes the record's token order.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "data/plan.h"
#include "data/record.h"

namespace raingauge {

struct KernelSpec {
  std::string_view name;
  std::string_view help;    // one line for `raingauge list kernels`
  bool cpu = true;          // takes inputs and outputs in host memory
  bool cuda = false;        // takes inputs and outputs in CUDA memory; some kernels take either
  bool dense_only = false;  // executes only plans that keep every pair
  bool folds_permutation = true;    // reads tokens through the order: no separate permute phase
  bool rounds_scores = false;       // rounds q.k to the inputs' dtype before the softmax
  std::string_view not_built = {};  // why it is not in this build; empty when it is

  bool runs_on(DeviceKind kind) const { return kind == DeviceKind::cpu ? cpu : cuda; }
};

// nullopt: supported. Otherwise the reason, for the row's `reason` field.
using Support = std::optional<std::string>;

struct AttendInputs {
  TensorView q, k, v;                       // [H, N, D] on the kernel's device
  const std::uint8_t* key_valid = nullptr;  // [N] host, or null
  float scale = 1.0F;
};

// fp32, contiguous, record order, on the kernel's device. Rows without any kept key: o = 0,
// lse = -inf. lse is the natural log of the sum of exp(scale * q.k) over the kept keys.
struct AttendOutputs {
  float* o = nullptr;    // [H, N, D]
  float* lse = nullptr;  // [H, N]; may be null for kernels whose library gives none
};

// What prepare() made of a plan: device copies of lists, work order. Holds a reference to the plan.
class Prepared {
 public:
  virtual ~Prepared() = default;
  // Tiles executed (padding inside tiles counted) / all tiles; drives latency.
  virtual double density_tiles() const = 0;
};

struct KernelOptions {
  int threads = 0;  // CPU threads; 0 = all
  std::string isa;  // CPU: "", "avx512_bf16", "avx512", "avx2", "portable"; "" = best here
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual const KernelSpec& spec() const = 0;
  virtual Support supports(const Plan& plan, const AttendInputs& inputs) const = 0;
  // Its own timed phase. `inputs` gives shapes, dtype and device; the tensors are not read.
  virtual std::unique_ptr<Prepared> prepare(const Plan& plan, const AttendInputs& inputs) = 0;
  // Returns when the work is done, except that CUDA kernels may return after launching it on the
  // default stream (see synchronize()).
  virtual void attend(const Prepared& prepared, const AttendInputs& inputs,
                      const AttendOutputs& outputs) = 0;
  virtual void synchronize() {}
  virtual bool gives_lse() const { return true; }
  // What the last attend() resolved to where the kernel is a dispatcher ("cuDNN"); may be empty.
  virtual std::string detail() const { return {}; }
};

}  // namespace raingauge
