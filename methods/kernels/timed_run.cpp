// SPDX-License-Identifier: Apache-2.0
// The usual way of timing a kernel of this process: prepare() by the host's clock, attend() by the
// device's.
#include <chrono>

#include "methods/kernels/device.h"
#include "methods/kernels/kernel.h"

namespace raingauge {
namespace {

class LocalRun final : public TimedRun {
 public:
  LocalRun(Kernel& kernel, const Plan& plan, const AttendInputs& inputs,
           const AttendOutputs& outputs)
      : kernel_(kernel), plan_(plan), inputs_(inputs), timer_(inputs.q.device) {
    if (!kernel.spec().converts_output) outputs_ = outputs;
    if (!kernel.gives_lse()) outputs_.lse = nullptr;
  }

  PhaseSample sample() override {
    PhaseSample sample;
    const auto start = std::chrono::steady_clock::now();
    const auto prepared = kernel_.prepare(plan_, inputs_);
    kernel_.synchronize();
    sample.prepare =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    tiles_ = prepared->density_tiles();
    timer_.start();
    kernel_.attend(*prepared, inputs_, outputs_);
    sample.attend = timer_.stop();
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

}  // namespace

std::unique_ptr<TimedRun> Kernel::open_run(const Plan& plan, const AttendInputs& inputs,
                                           const AttendOutputs& outputs) {
  return std::make_unique<LocalRun>(*this, plan, inputs, outputs);
}

}  // namespace raingauge
