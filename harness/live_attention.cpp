// SPDX-License-Identifier: Apache-2.0
#include "harness/live_attention.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "data/error.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "methods/registry.h"

namespace raingauge {
namespace {

bool contains(const std::vector<int>& values, int value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

RecordInfo info_of(const LiveCall& call, const Segments& segments, const std::string& generation) {
  RecordInfo info;
  info.number = call.site.step * 1000 + call.site.layer;
  info.capture = "live";
  info.generation = generation;
  info.site = call.site;
  info.scale = call.scale;
  for (int head = 0; head < call.q.heads; ++head) info.heads.push_back(head);
  info.heads_total = static_cast<int>(call.q.heads);
  info.dtype = call.q.dtype;
  info.tokens = call.q.tokens;
  info.head_dim = call.q.head_dim;
  info.segments = segments;
  info.has_key_valid = call.key_valid != nullptr;
  return info;
}

// Host copy of a device tensor, for methods that decide on the host; the tensor itself on the host.
class HostCopy {
 public:
  explicit HostCopy(const TensorView& source) : view_(source) {
    if (source.device.kind != DeviceKind::cuda) return;
    values_.resize(static_cast<std::size_t>(source.heads * source.tokens * source.head_dim) *
                   size_of(source.dtype));
    copy_to_host(source.device, source.data, values_.data(), values_.size());
    view_ =
        contiguous_view(values_.data(), source.dtype, source.heads, source.tokens, source.head_dim);
  }
  const TensorView& view() const { return view_; }

 private:
  std::vector<std::byte> values_;
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

State& LiveAttention::state_of(const Site& site) {
  State& state = states_[{site.expert, site.branch, site.batch_item, site.layer}];
  if (site.step < state.last_step) state = State();
  return state;
}

// A planner is made for one shape and kept until another one comes. Only what does not depend on the
// tensors is asked of `record`.
bool LiveAttention::plans_on_device(const RecordView& record, const AttendInputs& inputs) {
  if (device_.kind == DeviceKind::cpu || method_->stateful() || record.key_valid != nullptr) {
    return false;
  }
  const PlannerShape shape{record.heads(), record.tokens(), record.head_dim(),
                           record.info->segments};
  if (!planner_shape_ || !(*planner_shape_ == shape)) {
    planner_shape_ = shape;
    try {
      planner_ = method_->device_planner(record, device_);
    } catch (const Unsupported&) {
      planner_ = nullptr;  // the host decides
    }
  }
  return planner_ != nullptr && kernel_->takes_device_lists(planner_->frame(), inputs);
}

// Returns the density of the plan.
double LiveAttention::attend_on_device(const LiveCall& call, const AttendInputs& inputs) {
  const auto start = std::chrono::steady_clock::now();
  // Keys that are padded for the kernel alone are not the planner's.
  planner_->plan(
      call.q, call.k,
      call.padded ? KeyBoxes() : kernel_->key_boxes(planner_->frame(), planner_->lists(), inputs));
  const auto prepared = kernel_->prepare_on_device(planner_->frame(), planner_->lists(), inputs);
  kernel_->attend(*prepared, inputs, {call.o, nullptr});
  kernel_->synchronize();
  milliseconds_ += milliseconds_since(start);
  ++on_device_;
  return measure_density(planner_->fetch()).mean_pairs;
}

Plan LiveAttention::plan_on_host(const LiveCall& call, const RecordInfo& info) {
  State& state = state_of(call.site);
  // The dense plan reads shapes alone.
  if (dense_here(call.site)) {
    return dense_->plan({&info, call.q, call.k, call.v, call.key_valid}, state);
  }
  const HostCopy q(call.q);
  const HostCopy k(call.k);
  const HostCopy v(call.v);
  return method_->plan({&info, q.view(), k.view(), v.view(), call.key_valid}, state);
}

double LiveAttention::attend_from_host(const LiveCall& call, const RecordInfo& info,
                                       const AttendInputs& inputs) {
  const auto start = std::chrono::steady_clock::now();
  const Plan plan = plan_on_host(call, info);
  if (const Support reason = kernel_->supports(plan, inputs)) {
    throw Unsupported("kernel " + std::string(kernel_->spec().name) + ": " + *reason);
  }
  const auto prepared = kernel_->prepare(plan, inputs);
  kernel_->attend(*prepared, inputs, {call.o, nullptr});
  kernel_->synchronize();
  milliseconds_ += milliseconds_since(start);
  return measure_density(plan, call.key_valid).mean_pairs;
}

void LiveAttention::attend(const LiveCall& call, const Segments& segments) {
  if (!(call.q.device == device_)) {
    throw Error("an attention call on " + to_string(call.q.device) + " came to a session on " +
                to_string(device_));
  }
  const RecordInfo info = info_of(call, segments, generation_);
  const auto views = call.padded.value_or(std::array<TensorView, 3>{call.q, call.k, call.v});
  const AttendInputs inputs{
      views[0], views[1], views[2], call.key_valid, static_cast<float>(call.scale), 0};
  const RecordView shapes{&info, call.q, call.k, call.v, call.key_valid};
  density_sum_ += !dense_here(call.site) && plans_on_device(shapes, inputs)
                      ? attend_on_device(call, inputs)
                      : attend_from_host(call, info, inputs);
  state_of(call.site).last_step = call.site.step;
  ++calls_;
}

double LiveAttention::density() const { return calls_ == 0 ? 0.0 : density_sum_ / calls_; }

}  // namespace raingauge
