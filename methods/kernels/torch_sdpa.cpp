// SPDX-License-Identifier: Apache-2.0
// What does the attention that everybody calls cost? torch's scaled_dot_product_attention, dense, on
// the CPU or on CUDA, whichever its inputs are on.
#include <memory>
#include <string>

#include "data/error.h"
#include "methods/kernels/kernel.h"
#include "methods/kernels/reference.h"

#ifdef RAINGAUGE_WITH_TORCH
#include "methods/kernels/torch/torch_ops.h"
#endif

namespace raingauge {

KernelSpec torch_sdpa_kernel_spec() {
  KernelSpec spec{
      .name = "torch_sdpa",
      .help = "libtorch's scaled_dot_product_attention (dense), output converted to fp32",
      .cpu = true,
      .cuda = true,
      .dense_only = true,
      .folds_permutation = true,
      .converts_output = true};
#ifndef RAINGAUGE_WITH_TORCH
  spec.not_built = "not built (libtorch was not found)";
#endif
  return spec;
}

KernelSpec torch_cudnn_kernel_spec() {
  KernelSpec spec = torch_sdpa_kernel_spec();
  spec.name = "torch_cudnn";
  spec.help = "the same with cuDNN as the only backend allowed (dense)";
  spec.cpu = false;
  return spec;
}

#ifdef RAINGAUGE_WITH_TORCH
namespace {

struct DensePrepared final : Prepared {
  double density_tiles() const override { return 1.0; }
};

class TorchSdpaKernel final : public Kernel {
 public:
  TorchSdpaKernel(const KernelOptions& options, KernelSpec spec) : options_(options), spec_(spec) {}
  const KernelSpec& spec() const override { return spec_; }
  bool gives_lse() const override { return false; }
  std::string detail() const override { return backend_; }

  Support supports(const Plan& plan, const AttendInputs& inputs) const override {
    if (!plan.terms.empty()) {
      return std::string(spec_.name) + ": the plan adds the output term `" +
             plan.terms.front().name + "`";
    }
    if (inputs.q.device.kind == DeviceKind::cpu && !spec_.cpu) {
      return std::string(spec_.name) + ": inputs must be in CUDA memory";
    }
    if (!keeps_every_pair(plan))
      return std::string(spec_.name) + " is dense: the plan leaves pairs out";
    std::string why;
    if (inputs.q.device.kind == DeviceKind::cuda && !load_torch_cuda(&why)) {
      return std::string(spec_.name) + " on CUDA: " + why;
    }
    if (!spec_.cpu) {
      const std::string refusal = torch_cudnn_refusal(inputs);
      if (!refusal.empty()) return "torch_cudnn: cuDNN does not cover these inputs: " + refusal;
    }
    return std::nullopt;
  }

  std::unique_ptr<Prepared> prepare(const Plan& plan, const AttendInputs& inputs) override {
    check_attend_inputs(plan, inputs);
    if (const Support reason = supports(plan, inputs)) throw Unsupported(*reason);
    return std::make_unique<DensePrepared>();
  }

  void attend(const Prepared& prepared, const AttendInputs& inputs,
              const AttendOutputs& outputs) override {
    if (dynamic_cast<const DensePrepared*>(&prepared) == nullptr) {
      throw Error(std::string(spec_.name) + ": attend() got what another kernel prepared");
    }
    backend_ = torch_sdpa_forward(inputs, outputs, options_.threads, !spec_.cpu);
    cuda_device_ = inputs.q.device.kind == DeviceKind::cuda ? inputs.q.device.index : -1;
  }

  void synchronize() override {
    if (cuda_device_ >= 0) torch_cuda_synchronize(cuda_device_);
  }

 private:
  KernelOptions options_;
  KernelSpec spec_;
  std::string backend_;
  int cuda_device_ = -1;
};

}  // namespace

std::unique_ptr<Kernel> make_torch_sdpa_kernel(const KernelOptions& options) {
  return std::make_unique<TorchSdpaKernel>(options, torch_sdpa_kernel_spec());
}
std::unique_ptr<Kernel> make_torch_cudnn_kernel(const KernelOptions& options) {
  return std::make_unique<TorchSdpaKernel>(options, torch_cudnn_kernel_spec());
}
#else
std::unique_ptr<Kernel> make_torch_sdpa_kernel(const KernelOptions&) {
  throw Unsupported("kernel `torch_sdpa`: " + std::string(torch_sdpa_kernel_spec().not_built));
}
std::unique_ptr<Kernel> make_torch_cudnn_kernel(const KernelOptions&) {
  throw Unsupported("kernel `torch_cudnn`: " + std::string(torch_sdpa_kernel_spec().not_built));
}
#endif

}  // namespace raingauge
