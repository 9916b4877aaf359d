// SPDX-License-Identifier: Apache-2.0
// What kernels make of the plans of one record: conformance first (a gate), then latency of those that
// passed, all interleaved.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "harness/runner.h"
#include "methods/kernels/kernel.h"
#include "methods/method.h"

namespace raingauge {

// A plan that an arm decided for the current record.
struct PlannedArm {
  const Arm* arm = nullptr;
  const Method* method = nullptr;  // null: the arm is dense here, whatever its method
  const Plan* plan = nullptr;
};

class KernelStage {
 public:
  explicit KernelStage(const RunContext& context);

  // False when the record lies beyond `latency.records`, or is done.
  bool wants(const std::string& content) const;

  // Appends conformance and latency rows for every planned arm and every kernel, and for the dense
  // plan, which gives the denominator of speed-ups. `arms` were planned on all heads of `record`.
  // What surrounds the attention, where it is known, is timed in the same rounds; rows then say what
  // the whole gains.
  void run(const RecordView& record, const std::string& content,
           const std::vector<PlannedArm>& arms, const Surroundings& surroundings);

 private:
  const RunContext& context_;
  std::vector<std::unique_ptr<Kernel>> kernels_;
  std::vector<std::string> timed_;  // contents of the records timed or found done so far
};

}  // namespace raingauge
