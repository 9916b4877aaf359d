// SPDX-License-Identifier: Apache-2.0
// An arm inside the live model: every attention call of the demo DiT becomes a plan and a kernel run.
// Where method and kernel can, the plan is made on the device and stays there.
#pragma once

#include <memory>
#include <string>

#include "data/plan.h"
#include "data/record.h"
#include "harness/experiment.h"
#include "methods/kernels/kernel.h"
#include "methods/method.h"

namespace raingauge {

// One call: bf16 Q, K, V and the fp32 output, [heads, tokens, head_dim], on `device`.
struct LiveCall {
  Site site;
  std::int64_t heads = 0, tokens = 0, head_dim = 0;
  double scale = 1.0;
  const std::uint16_t *q = nullptr, *k = nullptr, *v = nullptr;
  float* o = nullptr;
};

class LiveAttention {
 public:
  // `arm.dense_steps` and `arm.dense_layers` attend densely. `generation` names the clip.
  LiveAttention(const Arm& arm, const std::string& kernel, const Segments& segments,
                const std::string& generation, const Device& device, int threads);

  // Throws what a plan or a kernel throws: Unsupported, Infeasible …
  void operator()(const LiveCall& call);

  double milliseconds() const { return milliseconds_; }  // in plans and kernels
  int calls_planned_on_device() const { return on_device_; }
  double density() const;  // kept pairs / all pairs over all calls, dense ones included

 private:
  bool dense_here(const Site& site) const;
  bool plans_on_device(const RecordView& record, const AttendInputs& inputs);
  double attend_on_device(const AttendInputs& inputs, const AttendOutputs& outputs);
  double attend_from_host(const Method& method, const LiveCall& call, const RecordInfo& info,
                          const AttendInputs& inputs);

  const Arm& arm_;
  Segments segments_;
  std::string generation_;
  Device device_;
  std::unique_ptr<Method> method_, dense_;
  std::unique_ptr<Kernel> kernel_;
  std::unique_ptr<DevicePlanner> planner_;  // calls of one clip have one shape
  bool planner_tried_ = false;
  std::vector<State> states_;  // one a layer
  double milliseconds_ = 0.0, density_sum_ = 0.0;
  int calls_ = 0, on_device_ = 0;
};

}  // namespace raingauge
