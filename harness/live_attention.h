// SPDX-License-Identifier: Apache-2.0
// An arm inside a live model (the demo DiT, or any torch model through harness/torch): every attention
// call becomes a plan and a kernel run. Where method and kernel can, the plan is made on the device and
// stays there.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "data/segments.h"
#include "harness/experiment.h"
#include "methods/kernels/kernel.h"
#include "methods/method.h"

namespace raingauge {

// One call, on the device of the LiveAttention.
struct LiveCall {
  Site site;
  double scale = 1.0;
  TensorView q, k,
      v;  // [heads, tokens, head_dim]; contiguous in CUDA memory, any strides on the host
  float* o = nullptr;                       // contiguous
  const std::uint8_t* key_valid = nullptr;  // [tokens] in host memory; null: every key is valid
  // What the kernel reads instead of q, k, v: the same with head_dim padded by zeros, which changes
  // neither scores nor outputs. `o` then has the padded head_dim.
  std::optional<std::array<TensorView, 3>> padded = {};
};

class LiveAttention {
 public:
  // `arm.dense_steps` and `arm.dense_layers` attend densely. `generation` names the clip.
  LiveAttention(const Arm& arm, const std::string& kernel, const Segments& segments,
                const std::string& generation, const Device& device, int threads);

  // Throws what a plan or a kernel throws: Unsupported, Infeasible … A step before the last one of its
  // layer begins a new generation: the layer's state starts afresh.
  void operator()(const LiveCall& call) { attend(call, segments_); }
  // … of a sequence with other segments (guidance branches with prompts of other lengths).
  void attend(const LiveCall& call, const Segments& segments);

  double milliseconds() const { return milliseconds_; }  // in plans and kernels
  double density() const;  // kept pairs / all pairs over all calls, dense ones included
  int calls() const { return calls_; }
  int calls_planned_on_device() const { return on_device_; }

 private:
  using Place = std::tuple<std::string, std::string, int, int>;  // expert, branch, item, layer

  struct PlannerShape {
    std::int64_t heads, tokens, head_dim;
    Segments segments;
    bool operator==(const PlannerShape&) const = default;
  };

  State& state_of(const Site& site);
  struct DeviceSide {
    PlannerShape shape;
    std::unique_ptr<DevicePlanner> planner;  // null: the host decides
    double density;                          // of lists that never change
  };

  DeviceSide make_device_side(const Method& method, const RecordView& record) const;
  // Null where the host decides.
  DeviceSide* device_side(const RecordView& record, const AttendInputs& inputs);
  double attend_on_device(const LiveCall& call, const AttendInputs& inputs, DeviceSide& side);
  Plan plan_on_host(const LiveCall& call, const RecordInfo& info);
  double attend_from_host(const LiveCall& call, const RecordInfo& info, const AttendInputs& inputs);

  Arm arm_;
  Segments segments_;
  std::string generation_;
  Device device_;
  std::unique_ptr<Method> method_, dense_;
  std::unique_ptr<Kernel> kernel_;
  std::vector<DeviceSide> sparse_sides_, dense_sides_;  // one a shape
  std::map<Place, State> states_;
  double milliseconds_ = 0.0, density_sum_ = 0.0;
  int calls_ = 0, on_device_ = 0;
};

}  // namespace raingauge
