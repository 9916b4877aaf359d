// SPDX-License-Identifier: Apache-2.0
// Is there a faster dense denominator on this CPU than torch's fused attention? Two matrix products
// and a softmax over chunks of query rows: on processors with matrix units libtorch's bf16 matmul can
// outrun its fused kernel. Where the CPU multiplies bf16, scores pass through it: the spec declares that.
#include <memory>
#include <string>

#include "data/error.h"
#include "methods/kernels/kernel.h"
#include "methods/kernels/reference.h"

#ifdef RAINGAUGE_WITH_TORCH
#include "methods/kernels/torch/torch_ops.h"
#endif

namespace raingauge {

KernelSpec torch_chunked_kernel_spec() {
  KernelSpec spec{.name = "torch_chunked",
                  .help = "libtorch matmul, softmax, matmul over chunks of query rows (dense, CPU)",
                  .cpu = true,
                  .cuda = false,
                  .dense_only = true,
                  .folds_permutation = true,
                  .rounds_scores = true};
#ifndef RAINGAUGE_WITH_TORCH
  spec.not_built = "not built (libtorch was not found)";
#endif
  return spec;
}

#ifdef RAINGAUGE_WITH_TORCH
namespace {

struct ChunkedPrepared final : Prepared {
  double density_tiles() const override { return 1.0; }
};

class TorchChunkedKernel final : public Kernel {
 public:
  explicit TorchChunkedKernel(const KernelOptions& options)
      : options_(options), spec_(torch_chunked_kernel_spec()) {}
  const KernelSpec& spec() const override { return spec_; }

  Support supports(const Plan& plan, const AttendInputs& inputs) const override {
    if (inputs.q.device.kind != DeviceKind::cpu) {
      return "torch_chunked: inputs must be in host memory";
    }
    if (!plan.terms.empty()) {
      return "torch_chunked: the plan adds the output term `" + plan.terms.front().name + "`";
    }
    if (!keeps_every_pair(plan)) return "torch_chunked is dense: the plan leaves pairs out";
    return std::nullopt;
  }

  std::unique_ptr<Prepared> prepare(const Plan& plan, const AttendInputs& inputs) override {
    check_attend_inputs(plan, inputs);
    if (const Support reason = supports(plan, inputs)) throw Unsupported(*reason);
    return std::make_unique<ChunkedPrepared>();
  }

  void attend(const Prepared& prepared, const AttendInputs& inputs,
              const AttendOutputs& outputs) override {
    if (dynamic_cast<const ChunkedPrepared*>(&prepared) == nullptr) {
      throw Error("torch_chunked: attend() got what another kernel prepared");
    }
    torch_chunked_forward(inputs, outputs, options_.threads);
  }

 private:
  KernelOptions options_;
  KernelSpec spec_;
};

}  // namespace

std::unique_ptr<Kernel> make_torch_chunked_kernel(const KernelOptions& options) {
  return std::make_unique<TorchChunkedKernel>(options);
}
#else
std::unique_ptr<Kernel> make_torch_chunked_kernel(const KernelOptions&) {
  throw Unsupported("kernel `torch_chunked`: " +
                    std::string(torch_chunked_kernel_spec().not_built));
}
#endif

}  // namespace raingauge
