// SPDX-License-Identifier: Apache-2.0
// Latency of executing plans on one record, by phase, all arms and kernels interleaved in one
// process so that a drift of the machine's speed hits them alike.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "harness/experiment.h"
#include "harness/gpu_state.h"
#include "methods/kernels/kernel.h"
#include "methods/method.h"

namespace raingauge {

struct Timing {
  std::vector<double> samples;  // ms
  double median() const;
  double iqr() const;              // third minus first quartile
  nlohmann::json to_json() const;  // {median, iqr, n, samples}
};

// Q, K, V on a kernel's device and room for its output. Owns device copies; host views are borrowed.
class KernelArena {
 public:
  virtual ~KernelArena() = default;
  virtual const AttendInputs& inputs() const = 0;
  virtual const AttendOutputs& outputs() const = 0;
  // The outputs in host memory (copied when the device is not the host).
  virtual AttendOutputs host_outputs() = 0;
};
std::unique_ptr<KernelArena> make_arena(const RecordView& record, const Device& device);

// One contender: a method (null: the dense plan given) executed by a kernel.
struct Contender {
  std::string arm;
  const Method* method = nullptr;
  const Plan* plan = nullptr;  // what `method` decided (same record), already conformant
  Kernel* kernel = nullptr;
  DevicePlanner* planner = nullptr;  // decides the same on the kernel's device; may be null
  bool dense = false;                // keeps every pair: a candidate for the dense denominator
};

struct PhaseTimes {
  // Phases that a contender does not have hold no samples.
  Timing plan, permute, prepare, attend, unpermute;
  // Of rounds in which every phase was measured.
  Timing total;                // of all phases
  Timing total_given_prepare;  // without prepare: lists in the kernel's own form at hand
  std::string plan_device;     // where `plan` was decided: "cpu", "cuda:0", "peer", "none"
  double density_tiles = 0.0;
  int launches_seen = 0;  // samples that may hold some of the host's time to launch
  std::string kernel_detail;
  std::string failure;        // why there are no (more) samples; empty: none
  std::vector<GpuState> gpu;  // read after every sample; empty on the host
  bool noisy = false;
};

// `every_round` is called in every round too; warm-up rounds do not count.
// Rounds over all contenders until every total is within `max_noise` (IQR / median) or the time is
// up: `max_seconds` per contender. Every contender that does not fail gets the same number of
// samples; of phases of the host (plan, prepare) `host_samples` at most, unless that is -1.
std::vector<PhaseTimes> time_contenders(const std::vector<Contender>& contenders,
                                        const RecordView& record, KernelArena& arena,
                                        const LatencyPlan& settings,
                                        const std::function<void(double done)>& progress,
                                        const std::function<void(bool counted)>& every_round = {});

}  // namespace raingauge
