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

Plan LiveAttention::make_plan(const LiveCall& call, const Segments& segments) {
  const RecordInfo info = info_of(call, segments, generation_);
  const HostCopy q(call.q);
  const HostCopy k(call.k);
  const HostCopy v(call.v);
  const RecordView record{&info, q.view(), k.view(), v.view(), call.key_valid};
  const Site& site = call.site;
  State& state = states_[{site.expert, site.branch, site.batch_item, site.layer}];
  if (site.step < state.last_step) state = State();
  const Method& method = dense_here(site) ? *dense_ : *method_;
  Plan plan = method.plan(record, state);
  state.last_step = site.step;
  return plan;
}

void LiveAttention::attend(const LiveCall& call, const Segments& segments) {
  const auto start = std::chrono::steady_clock::now();
  if (!(call.q.device == device_)) {
    throw Error("an attention call on " + to_string(call.q.device) + " came to a session on " +
                to_string(device_));
  }
  const Plan plan = make_plan(call, segments);
  const auto views = call.padded.value_or(std::array<TensorView, 3>{call.q, call.k, call.v});
  const AttendInputs inputs{
      views[0], views[1], views[2], call.key_valid, static_cast<float>(call.scale), 0};
  if (const Support reason = kernel_->supports(plan, inputs)) {
    throw Unsupported("kernel " + std::string(kernel_->spec().name) + ": " + *reason);
  }
  const auto prepared = kernel_->prepare(plan, inputs);
  kernel_->attend(*prepared, inputs, {call.o, nullptr});
  kernel_->synchronize();
  milliseconds_ +=
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  density_sum_ += measure_density(plan, call.key_valid).mean_pairs;
  ++calls_;
}

double LiveAttention::density() const { return calls_ == 0 ? 0.0 : density_sum_ / calls_; }

}  // namespace raingauge
