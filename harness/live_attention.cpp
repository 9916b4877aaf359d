// SPDX-License-Identifier: Apache-2.0
#include "harness/live_attention.h"

#include <algorithm>
#include <chrono>

#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "methods/registry.h"

namespace raingauge {
namespace {

bool contains(const std::vector<int>& values, int value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

RecordInfo info_of(const LiveCall& call, const Segments& segments, const std::string& generation) {
  RecordInfo info;
  info.number = call.site.step * 1000 + call.site.layer;
  info.capture = "live";
  info.generation = generation;
  info.site = call.site;
  info.scale = call.scale;
  for (int head = 0; head < call.heads; ++head) info.heads.push_back(head);
  info.heads_total = static_cast<int>(call.heads);
  info.dtype = DType::bf16;
  info.tokens = call.tokens;
  info.head_dim = call.head_dim;
  info.segments = segments;
  return info;
}

// Host copy of a device tensor, for methods that decide on the host; the tensor itself on the host.
class HostCopy {
 public:
  HostCopy(const Device& device, const std::uint16_t* source, const LiveCall& call) {
    data_ = source;
    if (device.kind == DeviceKind::cuda) {
      values_.resize(static_cast<std::size_t>(call.heads * call.tokens * call.head_dim));
      copy_to_host(device, source, values_.data(), values_.size() * sizeof(std::uint16_t));
      data_ = values_.data();
    }
    view_ = contiguous_view(data_, DType::bf16, call.heads, call.tokens, call.head_dim);
  }
  const TensorView& view() const { return view_; }

 private:
  std::vector<std::uint16_t> values_;
  const std::uint16_t* data_ = nullptr;
  TensorView view_;
};

}  // namespace

LiveAttention::LiveAttention(const Arm& arm, const std::string& kernel, const Segments& segments,
                             const std::string& generation, const Device& device, int threads)
    : arm_(arm), segments_(segments), generation_(generation), device_(device) {
  MethodOptions options;
  // Every call is solved for the density asked for, so no knob is carried over from other clips.
  options.match = DensityMatch::measured;
  options.threads = threads;
  options.base_folder = arm.base_folder;
  method_ = make_method(arm.method, arm.params, options);
  dense_ = make_method("dense", nlohmann::json::object(), options);
  kernel_ = make_kernel(kernel, {.threads = threads, .isa = {}});
}

bool LiveAttention::dense_here(const Site& site) const {
  return contains(arm_.dense_steps, site.step) || contains(arm_.dense_layers, site.layer);
}

// Only what does not depend on the tensors is asked of `record`.
bool LiveAttention::plans_on_device(const RecordView& record, const AttendInputs& inputs) {
  if (device_.kind == DeviceKind::cpu || method_->stateful()) return false;
  if (!planner_tried_) {
    planner_tried_ = true;
    try {
      planner_ = method_->device_planner(record, device_);
    } catch (const Unsupported&) {
      planner_ = nullptr;  // the host decides
    }
  }
  return planner_ != nullptr && kernel_->takes_device_lists(planner_->frame(), inputs);
}

// Returns the density of the plan.
double LiveAttention::attend_on_device(const AttendInputs& inputs, const AttendOutputs& outputs) {
  const auto start = std::chrono::steady_clock::now();
  planner_->plan(inputs.q, inputs.k);
  const auto prepared = kernel_->prepare_on_device(planner_->frame(), planner_->lists(), inputs);
  kernel_->attend(*prepared, inputs, outputs);
  kernel_->synchronize();
  milliseconds_ += milliseconds_since(start);
  ++on_device_;
  return measure_density(planner_->fetch()).mean_pairs;
}

double LiveAttention::attend_from_host(const Method& method, const LiveCall& call,
                                       const RecordInfo& info, const AttendInputs& inputs) {
  const auto start = std::chrono::steady_clock::now();
  State& state = states_[static_cast<std::size_t>(call.site.layer)];
  const auto decide = [&]() -> Plan {
    // The dense plan reads shapes alone.
    if (&method == dense_.get()) {
      return method.plan({&info, inputs.q, inputs.k, inputs.v, nullptr}, state);
    }
    const HostCopy q(device_, call.q, call);
    const HostCopy k(device_, call.k, call);
    const HostCopy v(device_, call.v, call);
    return method.plan({&info, q.view(), k.view(), v.view(), nullptr}, state);
  };
  const Plan plan = decide();
  if (const Support reason = kernel_->supports(plan, inputs)) {
    throw Unsupported("kernel " + std::string(kernel_->spec().name) + ": " + *reason);
  }
  const auto prepared = kernel_->prepare(plan, inputs);
  kernel_->attend(*prepared, inputs, {call.o, nullptr});
  kernel_->synchronize();
  milliseconds_ += milliseconds_since(start);
  return measure_density(plan).mean_pairs;
}

void LiveAttention::operator()(const LiveCall& call) {
  const RecordInfo info = info_of(call, segments_, generation_);
  const auto layer = static_cast<std::size_t>(call.site.layer);
  if (states_.size() <= layer) states_.resize(layer + 1);
  const auto on_device = [&](const std::uint16_t* data) {
    return contiguous_view(data, DType::bf16, call.heads, call.tokens, call.head_dim, device_);
  };
  const AttendInputs inputs{on_device(call.q), on_device(call.k), on_device(call.v), nullptr,
                            static_cast<float>(call.scale), 0};
  const RecordView shapes{&info, inputs.q, inputs.k, inputs.v, nullptr};
  if (!dense_here(call.site) && plans_on_device(shapes, inputs)) {
    density_sum_ += attend_on_device(inputs, {call.o, nullptr});
  } else {
    const Method& method = dense_here(call.site) ? *dense_ : *method_;
    density_sum_ += attend_from_host(method, call, info, inputs);
  }
  states_[layer].last_step = call.site.step;
  ++calls_;
}

double LiveAttention::density() const { return calls_ == 0 ? 0.0 : density_sum_ / calls_; }

}  // namespace raingauge
