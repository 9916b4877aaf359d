// SPDX-License-Identifier: Apache-2.0
// What a row of latency.jsonl says of one arm on one kernel.
#pragma once

#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/plan.h"
#include "data/record.h"
#include "harness/experiment.h"
#include "harness/latency.h"
#include "methods/kernels/cpu/peak.h"
#include "methods/method.h"

namespace raingauge {

// One arm on the subset of heads that is timed.
struct TimedArm {
  const Arm* arm;
  const Method* method;
  Plan plan;
  bool dense;
  std::unique_ptr<DevicePlanner> planner = nullptr;  // where the method decides on the device too
  std::string host_reason = {};                      // why it does not; empty for the dense plan
  std::int64_t plan_hamming = -1;  // block pairs in which device and host differ; -1: no planner
};

// Medians of attend of everything that ran dense, by kernel, and the fastest of them.
struct DenseTimes {
  double best_ms = std::numeric_limits<double>::infinity();
  std::string best;
  nlohmann::json all = nlohmann::json::object();  // {"kernel (detail)": ms}
};

// What surrounds the attention of a record in its model, timed in the same rounds.
struct AroundAttention {
  std::string what;    // empty: not known
  Timing rest, whole;  // everything else; the whole with libtorch's dense attention inside
};

struct LatencyScene {
  const RecordView& record;
  const Device& device;
  int threads;
  const cpu::MeasuredPeak& peak;
  const AroundAttention& around;
};

// Adds shapes, densities, phases, speed-ups, and the state of the machine to a row of kernel and arm.
void fill_latency_row(nlohmann::json& row, const TimedArm& arm, const PhaseTimes& times,
                      const DenseTimes& dense, const LatencyScene& scene);

}  // namespace raingauge
