// SPDX-License-Identifier: Apache-2.0
// A kernel executes a plan: O = softmax(scale * Q K^T restricted to the kept blocks) V, and the
// log-sum-exp of every row. It reads the record's token order and writes the record's token order.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "data/error.h"
#include "data/plan.h"
#include "data/record.h"
#include "methods/device_plan.h"

namespace raingauge {

struct KernelSpec {
  std::string_view name;
  std::string_view help;    // one line for `raingauge list kernels`
  bool cpu = true;          // takes inputs and outputs in host memory
  bool cuda = false;        // takes inputs and outputs in CUDA memory; some kernels take either
  bool dense_only = false;  // executes only plans that keep every pair
  bool folds_permutation = true;  // reads tokens through the order: no separate permute phase
  bool rounds_scores = false;     // rounds q.k to the inputs' dtype before the softmax
  // The library returns the inputs' dtype: with outputs.o null, attend() leaves the conversion to
  // fp32 out, which is no part of attention and is not timed.
  bool converts_output = false;
  std::string_view not_built = {};  // why it is not in this build; empty when it is

  bool runs_on(DeviceKind kind) const { return kind == DeviceKind::cpu ? cpu : cuda; }
};

// nullopt: supported. Otherwise the reason, for the row's `reason` field.
using Support = std::optional<std::string>;

struct AttendInputs {
  TensorView q, k, v;                       // [H, N, D] on the kernel's device
  const std::uint8_t* key_valid = nullptr;  // [N] host, or null
  float scale = 1.0F;
  // Names the contents of q, k, v: equal numbers, equal tensors. 0: not known. Kernels in another
  // process copy the tensors once for every number.
  std::uint64_t contents = 0;
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

// Milliseconds of one execution, by phase. NaN: this kernel has no such phase.
struct PhaseSample {
  // The prediction; where the planner places keys (Kernel::key_boxes), moving K and V is part of it.
  double plan = std::numeric_limits<double>::quiet_NaN();
  double permute = std::numeric_limits<double>::quiet_NaN();
  double prepare = std::numeric_limits<double>::quiet_NaN();
  double attend = std::numeric_limits<double>::quiet_NaN();
  double unpermute = std::numeric_limits<double>::quiet_NaN();
  bool prepared_before = false;  // what the sample before had prepared was used again
  bool launch_hidden = true;     // see DeviceTimer; of other devices than the host's
};

// One plan on one set of inputs, ready to be timed again and again. Plan, inputs and outputs must
// outlive it.
class TimedRun {
 public:
  virtual ~TimedRun() = default;
  // Executes once, from the plan to the finished output. On CUDA devices attend and what surrounds it
  // are measured with events, after L2 was flushed and while the device is still busy with that; on the
  // host by its clock. `reuse`: what the host prepared for an earlier sample may be used again.
  virtual PhaseSample sample(bool reuse = false) = 0;
  virtual double density_tiles() const = 0;
  // Where the phase `plan` of a sample was decided: a device, "peer"; empty: samples have none.
  virtual std::string plans_on() const { return {}; }
};

struct KernelOptions {
  int threads = 0;  // CPU threads; 0 = all
  std::string isa;  // CPU: "amx_bf16", "avx512_bf16", "avx512", "avx2", "portable"; "" = best
  double answer_seconds = 600.0;  // how long a peer's process may take for one answer
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
  // Kernels that read lists where a device made them: no list crosses the bus. False too where supports()
  // has a reason against such plans and inputs.
  virtual bool takes_device_lists(const Plan& /*frame*/, const AttendInputs& /*inputs*/) const {
    return false;
  }
  // Where the planner of these lists may leave the keys while it plans: the prepare_on_device() after it
  // then finds them there. Not every frame has such a place.
  virtual KeyBoxes key_boxes(const Plan& /*frame*/, const DeviceLists& /*lists*/,
                             const AttendInputs& /*inputs*/) {
    return {};
  }
  // `frame` has the orders and layouts. Launches on the default stream and waits for nothing.
  virtual std::unique_ptr<Prepared> prepare_on_device(const Plan& /*frame*/,
                                                      const DeviceLists& /*lists*/,
                                                      const AttendInputs& /*inputs*/) {
    throw Unsupported(std::string(spec().name) + ": takes no lists on a device");
  }
  // Kernels that move keys into block order before they attend: permute() does that as a phase of its
  // own, and the attend() after it need not; without it attend() does both.
  virtual bool permutes(const Prepared& /*prepared*/) const { return false; }
  virtual void permute(const Prepared& /*prepared*/, const AttendInputs& /*inputs*/) {}
  // Everything that is to be timed goes through here. The default calls prepare() and attend(); with a
  // planner, kernels that take a device's lists time planner->plan() too and prepare from those.
  virtual std::unique_ptr<TimedRun> open_run(const Plan& plan, const AttendInputs& inputs,
                                             const AttendOutputs& outputs,
                                             DevicePlanner* planner = nullptr);
  // What results depend on beside the plan: the name; for a peer, its file's contents too.
  virtual std::string identity() const { return std::string(spec().name); }
  // What the last attend() resolved to where the kernel is a dispatcher ("cuDNN"); may be empty.
  virtual std::string detail() const { return {}; }
};

// Where `planner` leaves the keys for `kernel`; nowhere when it reads none itself.
inline KeyBoxes key_boxes_of(Kernel& kernel, const DevicePlanner& planner,
                             const AttendInputs& inputs) {
  if (!planner.decides()) return {};
  return kernel.key_boxes(planner.frame(), planner.lists(), inputs);
}

}  // namespace raingauge
