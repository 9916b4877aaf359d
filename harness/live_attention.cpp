// SPDX-License-Identifier: Apache-2.0
#include "harness/live_attention.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>

#include "data/error.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "methods/registry.h"

namespace raingauge {
namespace {

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

State& LiveAttention::state_of(const Site& site) {
  State& state = states_[{site.expert, site.branch, site.batch_item, site.layer}];
  if (site.step < state.last_step) state = State();
  return state;
}

// Only what does not depend on the tensors is asked of `record`.
LiveAttention::DeviceSide LiveAttention::make_device_side(const Method& method,
                                                          const RecordView& record) const {
  DeviceSide side{{record.heads(), record.tokens(), record.head_dim(), record.info->segments},
                  nullptr,
                  std::numeric_limits<double>::quiet_NaN()};
  if (method.stateful()) return side;
  try {
    side.planner = method.device_planner(record, device_);
  } catch (const Unsupported&) {
    return side;
  }
  if (!side.planner->decides()) side.density = measure_density(side.planner->fetch()).mean_pairs;
  return side;
}

// Made once for every shape: guidance branches may have prompts of other lengths.
LiveAttention::DeviceSide* LiveAttention::device_side(const RecordView& record,
                                                      const AttendInputs& inputs) {
  if (device_.kind == DeviceKind::cpu || record.key_valid != nullptr) return nullptr;
  const bool dense = arm_.dense_at(record.info->site);
  auto& sides = dense ? dense_sides_ : sparse_sides_;
  const PlannerShape shape{record.heads(), record.tokens(), record.head_dim(),
                           record.info->segments};
  auto side = std::find_if(sides.begin(), sides.end(),
                           [&](const DeviceSide& known) { return known.shape == shape; });
  if (side == sides.end()) {
    side = sides.insert(side, make_device_side(dense ? *dense_ : *method_, record));
  }
  const bool taken =
      side->planner != nullptr && kernel_->takes_device_lists(side->planner->frame(), inputs);
  return taken ? &*side : nullptr;
}

// Returns the density of the plan.
double LiveAttention::attend_on_device(const LiveCall& call, const AttendInputs& inputs,
                                       DeviceSide& side) {
  DevicePlanner& planner = *side.planner;
  const auto start = std::chrono::steady_clock::now();
  // Keys that are padded for the kernel alone are not the planner's.
  planner.plan(call.q, call.k, call.padded ? KeyBoxes() : key_boxes_of(*kernel_, planner, inputs));
  const auto prepared = kernel_->prepare_on_device(planner.frame(), planner.lists(), inputs);
  kernel_->attend(*prepared, inputs, {call.o, nullptr});
  kernel_->synchronize();
  milliseconds_ += milliseconds_since(start);
  ++on_device_;
  return planner.decides() ? measure_density(planner.fetch()).mean_pairs : side.density;
}

Plan LiveAttention::plan_on_host(const LiveCall& call, const RecordInfo& info) {
  State& state = state_of(call.site);
  // The dense plan reads shapes alone.
  if (arm_.dense_at(call.site)) {
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
  DeviceSide* side = device_side(shapes, inputs);
  density_sum_ += side != nullptr ? attend_on_device(call, inputs, *side)
                                  : attend_from_host(call, info, inputs);
  state_of(call.site).last_step = call.site.step;
  ++calls_;
}

double LiveAttention::density() const { return calls_ == 0 ? 0.0 : density_sum_ / calls_; }

}  // namespace raingauge
