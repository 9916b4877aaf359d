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

  PhaseSample sample() override {
    PhaseSample sample;
    const auto start = std::chrono::steady_clock::now();
    const auto prepared = kernel_.prepare(plan_, inputs_);
    kernel_.synchronize();
    sample.prepare = milliseconds_since(start);
    tiles_ = prepared->density_tiles();
    timer_.start();
    execute(kernel_, *prepared, inputs_, outputs_, timer_);
    read_execution(timer_.finish(), 0, sample);
    kernel_.synchronize();
    return sample;
  }
  double density_tiles() const override { return tiles_; }

 private:
  Kernel& kernel_;
  const Plan& plan_;
  const AttendInputs& inputs_;
  AttendOutputs outputs_;
  DeviceTimer timer_;
  double tiles_ = std::numeric_limits<double>::quiet_NaN();
};

// From Q and K to the output without leaving the device.
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

  PhaseSample sample() override {
    timer_.start();
    planner_.plan(inputs_.q, inputs_.k,
                  kernel_.key_boxes(planner_.frame(), planner_.lists(), inputs_));
    timer_.mark();
    const auto prepared = kernel_.prepare_on_device(planner_.frame(), planner_.lists(), inputs_);
    timer_.mark();
    execute(kernel_, *prepared, inputs_, outputs_, timer_);
    const std::vector<double> phases = timer_.finish();
    PhaseSample sample;
    sample.plan = phases.at(0);
    sample.prepare = phases.at(1);
    read_execution(phases, 2, sample);
    kernel_.synchronize();
    return sample;
  }
  double density_tiles() const override { return tiles_; }
  std::string plans_on() const override { return to_string(inputs_.q.device); }

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
