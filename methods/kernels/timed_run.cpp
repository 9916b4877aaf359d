// SPDX-License-Identifier: Apache-2.0
// Timing a kernel of this process: prepare() of a host's plan by the host's clock, everything that runs
// on the device by the device's.
#include <chrono>

#include "methods/kernels/device.h"
#include "methods/kernels/kernel.h"

namespace raingauge {
namespace {

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

// The phases permute (where there is one) and attend.
void execute(Kernel& kernel, const Prepared& prepared, const AttendInputs& inputs,
             const AttendOutputs& outputs, DeviceTimer& timer) {
  if (kernel.permutes(prepared)) {
    kernel.permute(prepared, inputs);
    timer.mark();
  }
  kernel.attend(prepared, inputs, outputs);
  timer.mark();
}

void read_execution(const std::vector<double>& phases, std::size_t first, PhaseSample& sample) {
  if (phases.size() == first + 2) sample.permute = phases.at(first);
  sample.attend = phases.back();
}

AttendOutputs timed_outputs(const Kernel& kernel, const AttendOutputs& outputs) {
  AttendOutputs used = outputs;
  if (kernel.spec().converts_output) used.o = nullptr;
  if (!kernel.gives_lse()) used.lse = nullptr;
  return used;
}

class LocalRun final : public TimedRun {
 public:
  LocalRun(Kernel& kernel, const Plan& plan, const AttendInputs& inputs,
           const AttendOutputs& outputs)
      : kernel_(kernel),
        plan_(plan),
        inputs_(inputs),
        outputs_(timed_outputs(kernel, outputs)),
        timer_(inputs.q.device) {}

  PhaseSample sample(bool reuse) override {
    PhaseSample sample;
    sample.prepared_before = reuse && prepared_ != nullptr;
    if (!sample.prepared_before) sample.prepare = prepare();
    timer_.start();
    execute(kernel_, *prepared_, inputs_, outputs_, timer_);
    read_execution(timer_.finish(), 0, sample);
    sample.launch_hidden = timer_.launch_hidden();
    kernel_.synchronize();
    return sample;
  }
  double density_tiles() const override { return tiles_; }

 private:
  double prepare() {
    prepared_.reset();  // its memory may be needed
    const auto start = std::chrono::steady_clock::now();
    prepared_ = kernel_.prepare(plan_, inputs_);
    kernel_.synchronize();
    tiles_ = prepared_->density_tiles();
    return milliseconds_since(start);
  }

  Kernel& kernel_;
  const Plan& plan_;
  const AttendInputs& inputs_;
  AttendOutputs outputs_;
  DeviceTimer timer_;
  std::unique_ptr<Prepared> prepared_;
  double tiles_ = std::numeric_limits<double>::quiet_NaN();
};

// From Q and K to the output without leaving the device. A planner that decides nothing has no phase.
class DeviceRun final : public TimedRun {
 public:
  DeviceRun(Kernel& kernel, const Plan& plan, const AttendInputs& inputs,
            const AttendOutputs& outputs, DevicePlanner& planner)
      : kernel_(kernel),
        planner_(planner),
        inputs_(inputs),
        outputs_(timed_outputs(kernel, outputs)),
        timer_(inputs.q.device),
        tiles_(kernel.prepare(plan, inputs)->density_tiles()) {}

  PhaseSample sample(bool /*reuse*/) override {
    timer_.start();
    if (planner_.decides()) {
      planner_.plan(inputs_.q, inputs_.k, key_boxes_of(kernel_, planner_, inputs_));
      timer_.mark();
    }
    const auto prepared = kernel_.prepare_on_device(planner_.frame(), planner_.lists(), inputs_);
    timer_.mark();
    execute(kernel_, *prepared, inputs_, outputs_, timer_);
    const std::vector<double> phases = timer_.finish();
    PhaseSample sample;
    const std::size_t decided = planner_.decides() ? 1 : 0;
    if (decided == 1) sample.plan = phases.at(0);
    sample.prepare = phases.at(decided);
    read_execution(phases, decided + 1, sample);
    sample.launch_hidden = timer_.launch_hidden();
    kernel_.synchronize();
    return sample;
  }
  double density_tiles() const override { return tiles_; }
  std::string plans_on() const override {
    return planner_.decides() ? to_string(inputs_.q.device) : "";
  }

 private:
  Kernel& kernel_;
  DevicePlanner& planner_;
  const AttendInputs& inputs_;
  AttendOutputs outputs_;
  DeviceTimer timer_;
  double tiles_;
};

}  // namespace

std::unique_ptr<TimedRun> Kernel::open_run(const Plan& plan, const AttendInputs& inputs,
                                           const AttendOutputs& outputs, DevicePlanner* planner) {
  if (planner != nullptr && takes_device_lists(planner->frame(), inputs)) {
    return std::make_unique<DeviceRun>(*this, plan, inputs, outputs, *planner);
  }
  return std::make_unique<LocalRun>(*this, plan, inputs, outputs);
}

}  // namespace raingauge
