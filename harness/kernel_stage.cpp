// SPDX-License-Identifier: Apache-2.0
#include "harness/kernel_stage.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "harness/latency.h"
#include "harness/latency_rows.h"
#include "harness/rows.h"
#include "methods/kernels/conformance.h"
#include "methods/kernels/cpu/peak.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "methods/plan_heads.h"

namespace raingauge {
namespace {

using nlohmann::json;

// The first `count` heads of a record, with a RecordInfo of their own.
struct HeadSubset {
  RecordInfo info;
  RecordView view;
  HeadSubset(const RecordView& record, int count) : info(*record.info), view(record) {
    const auto heads = count < 0 ? record.heads() : std::min<std::int64_t>(count, record.heads());
    info.heads.resize(static_cast<std::size_t>(heads));
    view.info = &info;
    view.q = record.q.slice_heads(0, heads);
    view.k = record.k.slice_heads(0, heads);
    view.v = record.v.slice_heads(0, heads);
  }
};

// Block pairs kept by one of the two alone.
std::int64_t different_pairs(const BlockLists& a, const BlockLists& b) {
  std::int64_t count = 0;
  for (std::int64_t head = 0; head < a.heads; ++head) {
    for (std::int64_t row = 0; row < a.query_blocks; ++row) {
      std::vector<std::int32_t> only;
      std::set_symmetric_difference(a.begin(head, row), a.begin(head, row) + a.count(head, row),
                                    b.begin(head, row), b.begin(head, row) + b.count(head, row),
                                    std::back_inserter(only));
      count += static_cast<std::int64_t>(only.size());
    }
  }
  return count;
}

Arm dense_arm() {
  Arm arm;
  arm.name = arm.base = arm.method = "dense";
  arm.params = {{"block", 128}};
  return arm;
}

json kernel_row(const std::string& cell, const RecordView& record, const TimedArm& arm,
                const Kernel& kernel, const Device& device) {
  json row = base_row(cell, *record.info, *arm.arm);
  row["kernel"] = kernel.spec().name;
  row["device"] = to_string(device);
  return row;
}

}  // namespace

// An experiment may name the kernels of several devices; those of this run's device take part.
KernelStage::KernelStage(const RunContext& context) : context_(context) {
  for (const auto& name : context.experiment.latency.kernels) {
    if (!may_run_on(name, context.device.kind)) continue;
    kernels_.push_back(make_kernel(name, {.threads = context.threads, .isa = {}}));
  }
}

bool KernelStage::wants(const std::string& content) const {
  const auto& latency = context_.experiment.latency;
  if (!latency.enabled || kernels_.empty()) return false;
  return latency.records < 0 || static_cast<int>(timed_.size()) < latency.records ||
         std::find(timed_.begin(), timed_.end(), content) != timed_.end();
}

namespace {

class Stage {
 public:
  Stage(const RunContext& context, const std::string& content, const RecordView& record)
      : context_(context),
        content_(content),
        record_(record),
        arena_(make_arena(record, context.device)),
        cell_(latency_cell(context.experiment, content, to_string(context.device),
                           context.threads)) {}

  void time_around(const Surroundings& surroundings, bool counted) {
    if (surroundings.what.empty()) return;
    around_.what = surroundings.what;
    const double rest = surroundings.rest_ms();
    const double whole = surroundings.whole_ms();
    if (!counted) return;
    around_.rest.samples.push_back(rest);
    around_.whole.samples.push_back(whole);
  }

  // Lets the arm decide on the device where it can. That plan then is everybody's, after the checks
  // that every plan passes; how far it is from the host's goes into the rows.
  void plan_on_device(TimedArm& arm) const {
    if (context_.device.kind == DeviceKind::cpu) return;
    if (arm.method == nullptr) {  // a dense plan: no kernel needs its lists made again and again
      arm.planner = make_fixed_planner(arm.plan, context_.device);
      return;
    }
    try {
      auto planner = arm.method->device_planner(record_, context_.device);
      planner->plan(arena_->inputs().q, arena_->inputs().k);
      Plan plan = planner->fetch();
      check_plan(plan, record_.key_valid);
      arm.plan_hamming = different_pairs(arm.plan.lists, plan.lists);
      arm.plan = std::move(plan);
      arm.planner = std::move(planner);
    } catch (const std::exception& reason) {
      arm.host_reason = reason.what();  // the host's plan stands; the row says why
    }
  }

  // Conformance of one kernel on one plan; true when it may be timed.
  bool gate(const TimedArm& arm, Kernel& kernel) {
    json row =
        kernel_row(conformance_cell(*arm.arm, content_, kernel.identity(),
                                    to_string(context_.device), record_.heads(), arm.arm->match),
                   record_, arm, kernel, context_.device);
    const auto outcome = measure_conformance(arm, kernel, row);
    row["outcome"] = name_of(outcome);
    if (!context_.folder.done("conformance", row["cell"].get<std::string>())) {
      context_.folder.append("conformance", {row});
    }
    if (outcome != Outcome::ok) {
      json latency = kernel_row(cell_, record_, arm, kernel, context_.device);
      latency_rows_.push_back(failed_row(latency, outcome, row["reason"].get<std::string>()));
    }
    return outcome == Outcome::ok;
  }

  void time(const std::vector<std::pair<const TimedArm*, Kernel*>>& pairs,
            const Surroundings& surroundings) {
    std::vector<Contender> contenders;
    for (const auto& [arm, kernel] : pairs) {
      contenders.push_back(
          {arm->arm->name, arm->method, &arm->plan, kernel, arm->planner.get(), arm->dense});
    }
    if (!contenders.empty()) {
      measure_peak();
      const auto times = time_contenders(
          contenders, record_, *arena_, context_.experiment.latency,
          [&](double done) { context_.progress.note(done); },
          [&](bool counted) { time_around(surroundings, counted); });
      measure_peak();
      add_rows(pairs, contenders, times);
    }
    context_.folder.append("latency", latency_rows_);
  }

 private:
  Outcome measure_conformance(const TimedArm& arm, Kernel& kernel, json& row) {
    try {
      if (const Support reason = kernel.supports(arm.plan, arena_->inputs())) {
        row["reason"] = *reason;
        return Outcome::unsupported;
      }
      const auto prepared = prepared_for(arm, kernel);
      kernel.attend(*prepared, arena_->inputs(), arena_->outputs());
      kernel.synchronize();
      AttendOutputs host = arena_->host_outputs();
      if (!kernel.gives_lse()) host.lse = nullptr;
      const auto result = reference_of(arm).check(kernel.spec(), host);
      row["reason"] = result.reason;
      row["rows"] = result.rows;
      row["max_row_error"] = number_or_null(result.max_row_error);
      row["tolerance"] = result.tolerance;
      row["max_lse_error"] = kernel.gives_lse() ? number_or_null(result.max_lse_error) : json();
      row["lse_tolerance"] = kernel.gives_lse() ? json(result.lse_tolerance) : json();
      row["kernel_detail"] = kernel.detail();
      if (result.ok) return Outcome::ok;
      return result.outcome == ConformanceOutcome::not_finite ? Outcome::not_finite
                                                              : Outcome::incorrect;
    } catch (const std::exception& error) {
      row["reason"] = error.what();
      return outcome_of(error);
    }
  }

  // Kernels of one arm come one after another and share it.
  const ConformanceReference& reference_of(const TimedArm& arm) {
    if (referenced_ != &arm) {
      const AttendInputs inputs{record_.q, record_.k, record_.v, record_.key_valid,
                                static_cast<float>(record_.info->scale)};
      ConformanceOptions options;
      options.threads = context_.threads;
      reference_.reset();
      reference_ = std::make_unique<ConformanceReference>(arm.plan, inputs, options);
      referenced_ = &arm;
    }
    return *reference_;
  }

  // What will be timed is what is checked: from the device's lists where the kernel takes them.
  std::unique_ptr<Prepared> prepared_for(const TimedArm& arm, Kernel& kernel) {
    if (arm.planner == nullptr ||
        !kernel.takes_device_lists(arm.planner->frame(), arena_->inputs())) {
      return kernel.prepare(arm.plan, arena_->inputs());
    }
    arm.planner->plan(arena_->inputs().q, arena_->inputs().k,
                      key_boxes_of(kernel, *arm.planner, arena_->inputs()));
    return kernel.prepare_on_device(arm.planner->frame(), arm.planner->lists(), arena_->inputs());
  }

  // The dense denominator is the fastest contender that keeps every pair, whoever that is.
  DenseTimes dense_times(const std::vector<std::pair<const TimedArm*, Kernel*>>& pairs,
                         const std::vector<Contender>& contenders,
                         const std::vector<PhaseTimes>& times) const {
    DenseTimes dense;
    for (std::size_t i = 0; i < times.size(); ++i) {
      if (!contenders[i].dense || !times[i].failure.empty()) continue;
      const double median = times[i].attend.median();
      std::string label(pairs[i].second->spec().name);
      if (!times[i].kernel_detail.empty()) label += " (" + times[i].kernel_detail + ")";
      const auto known = dense.all.find(label);
      if (known == dense.all.end() || median < known->get<double>()) dense.all[label] = median;
      if (median >= dense.best_ms) continue;
      dense.best_ms = median;
      dense.best = label;
    }
    return dense;
  }

  void add_rows(const std::vector<std::pair<const TimedArm*, Kernel*>>& pairs,
                const std::vector<Contender>& contenders, const std::vector<PhaseTimes>& times) {
    const DenseTimes dense = dense_times(pairs, contenders, times);
    for (std::size_t i = 0; i < times.size(); ++i) {
      json row = kernel_row(cell_, record_, *pairs[i].first, *pairs[i].second, context_.device);
      if (!times[i].failure.empty()) {
        latency_rows_.push_back(failed_row(row, Outcome::failed, times[i].failure));
        continue;
      }
      fill_latency_row(row, *pairs[i].first, times[i], dense,
                       {record_, context_.device, context_.threads, peak_, around_});
      latency_rows_.push_back(std::move(row));
    }
  }

  // The best of the peaks around the timings: a busy neighbour halves both.
  void measure_peak() {
    if (context_.device.kind != DeviceKind::cpu) return;
    const auto peak =
        cpu::measure_peak({.threads = context_.threads, .isa = {}}, record_.q.dtype, 100.0);
    if (peak.gflops > peak_.gflops) peak_ = peak;
  }

  const RunContext& context_;
  const std::string& content_;
  const RecordView& record_;
  cpu::MeasuredPeak peak_;
  std::unique_ptr<KernelArena> arena_;
  std::string cell_;
  std::vector<json> latency_rows_;
  const TimedArm* referenced_ = nullptr;
  std::unique_ptr<ConformanceReference> reference_;
  AroundAttention around_;
};

}  // namespace

void KernelStage::run(const RecordView& record, const std::string& content,
                      const std::vector<PlannedArm>& arms, const Surroundings& surroundings) {
  timed_.push_back(content);
  const auto& settings = context_.experiment.latency;
  const auto cell =
      latency_cell(context_.experiment, content, to_string(context_.device), context_.threads);
  if (context_.folder.done("latency", cell)) return;
  const HeadSubset subset(record, settings.heads);
  std::vector<std::int64_t> heads;
  for (std::int64_t h = 0; h < subset.view.heads(); ++h) heads.push_back(h);

  const Arm dense = dense_arm();
  std::vector<TimedArm> timed;
  timed.push_back({&dense, nullptr, dense_plan(subset.view.heads(), record.tokens(), 128), true});
  for (const auto& planned : arms) {
    const bool listed = settings.arms.empty() ||
                        std::find(settings.arms.begin(), settings.arms.end(), planned.arm->name) !=
                            settings.arms.end();
    if (!listed || planned.arm->method == "dense") continue;
    Plan plan = select_heads(*planned.plan, heads);
    const bool every_pair = keeps_every_pair(plan);
    timed.push_back({planned.arm, planned.method, std::move(plan), every_pair});
  }

  Stage stage(context_, content, subset.view);
  for (auto& arm : timed) stage.plan_on_device(arm);
  std::vector<std::pair<const TimedArm*, Kernel*>> passed;
  for (const auto& arm : timed) {
    for (const auto& kernel : kernels_) {
      if (kernel->spec().dense_only && !arm.dense)
        continue;  // nothing to say: it is a dense kernel
      if (stage.gate(arm, *kernel)) passed.emplace_back(&arm, kernel.get());
    }
  }
  stage.time(passed, surroundings);
}

}  // namespace raingauge
