// SPDX-License-Identifier: Apache-2.0
// libtorch's attention on views of our tensors. Only libtorch_cpu and libc10 are linked; the CUDA half
// registers its operators when it is loaded at run time.
#include "methods/kernels/torch/torch_ops.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/SDPBackend.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sum.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "data/error.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return at::kFloat;
    case DType::f16:
      return at::kHalf;
    case DType::bf16:
      return at::kBFloat16;
  }
  throw Error("torch: unknown element type");
}

at::Device device_of(const Device& device) {
  if (device.kind == DeviceKind::cpu) return at::Device(at::kCPU);
  return {at::kCUDA, static_cast<at::DeviceIndex>(device.index)};
}

// [1, H, N, D] over the same memory; from_blob wants a mutable pointer, nothing writes to it.
at::Tensor as_tensor(const TensorView& view) {
  const auto options =
      at::TensorOptions().dtype(scalar_type(view.dtype)).device(device_of(view.device));
  return at::from_blob(
      const_cast<void*>(view.data), {1, view.heads, view.tokens, view.head_dim},
      {view.heads * view.head_stride, view.head_stride, view.token_stride, 1}, [](void*) {},
      options, options.device());
}

at::Tensor output_tensor(float* data, std::vector<std::int64_t> shape, const Device& device) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device_of(device));
  return at::from_blob(data, shape, options);
}

// K and V without the keys that key_valid rules out: dense kernels know no key mask, and a mask tensor
// would push torch to its slow backends.
at::Tensor without_invalid(const at::Tensor& tensor, const AttendInputs& inputs) {
  if (inputs.key_valid == nullptr) return tensor;
  std::vector<std::int64_t> kept;
  for (std::int64_t x = 0; x < inputs.q.tokens; ++x) {
    if (inputs.key_valid[x] != 0) kept.push_back(x);
  }
  if (static_cast<std::int64_t>(kept.size()) == inputs.q.tokens) return tensor;
  const at::Tensor index =
      at::from_blob(kept.data(), {static_cast<std::int64_t>(kept.size())},
                    at::TensorOptions().dtype(at::kLong))
          .to(tensor.device(), at::kLong, /*non_blocking=*/false, /*copy=*/true);
  return tensor.index_select(2, index);
}

std::string backend_name(std::int64_t choice) {
  switch (static_cast<at::SDPBackend>(choice)) {
    case at::SDPBackend::flash_attention:
      return "flash";
    case at::SDPBackend::efficient_attention:
      return "efficient";
    case at::SDPBackend::cudnn_attention:
      return "cuDNN";
    case at::SDPBackend::math:
      return "math";
    default:
      return "backend " + std::to_string(choice);
  }
}

// While an active one lives, torch may choose cuDNN and nothing else.
class OnlyCudnn {
 public:
  explicit OnlyCudnn(bool active) : active_(active) {
    if (active_) set(false, false, false, true);
  }
  ~OnlyCudnn() {
    if (active_) set(flash_, efficient_, math_, cudnn_);
  }
  OnlyCudnn(const OnlyCudnn&) = delete;
  OnlyCudnn& operator=(const OnlyCudnn&) = delete;

 private:
  static void set(bool flash, bool efficient, bool math, bool cudnn) {
    at::Context& context = at::globalContext();
    context.setSDPUseFlash(flash);
    context.setSDPUseMemEfficient(efficient);
    context.setSDPUseMath(math);
    context.setSDPUseCuDNN(cudnn);
  }
  bool active_;
  bool flash_ = at::globalContext().userEnabledFlashSDP();
  bool efficient_ = at::globalContext().userEnabledMemEfficientSDP();
  bool math_ = at::globalContext().userEnabledMathSDP();
  bool cudnn_ = at::globalContext().userEnabledCuDNNSDP();
};

// Every failure of libtorch becomes an Error that names the kernel.
template <typename Body>
auto guarded(const char* kernel, Body body) {
  try {
    const c10::InferenceMode inference;
    return body();
  } catch (const c10::Error& error) {
    throw Error(std::string(kernel) + ": libtorch: " + error.what_without_backtrace());
  }
}

void write_empty(const AttendInputs& inputs, const AttendOutputs& outputs) {
  const TensorView& q = inputs.q;
  if (outputs.o != nullptr) {
    output_tensor(outputs.o, {q.heads, q.tokens, q.head_dim}, q.device).zero_();
  }
  if (outputs.lse != nullptr) {
    output_tensor(outputs.lse, {q.heads, q.tokens}, q.device).fill_(-INFINITY);
  }
}

bool any_valid(const AttendInputs& inputs) {
  if (inputs.key_valid == nullptr) return true;
  return std::any_of(inputs.key_valid, inputs.key_valid + inputs.q.tokens,
                     [](std::uint8_t valid) { return valid != 0; });
}

std::string load_cuda_half() {
  Dl_info here{};
  if (dladdr(reinterpret_cast<void*>(&at::globalContext), &here) == 0 ||
      here.dli_fname == nullptr) {
    return "cannot find the folder of libtorch_cpu.so";
  }
  std::string path = here.dli_fname;
  path = path.substr(0, path.find_last_of('/') + 1) + "libtorch_cuda.so";
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = dlerror();
    return "cannot load " + path + ": " + (reason == nullptr ? "unknown reason" : reason);
  }
  if (at::detail::getCUDAHooks().deviceCount() < 1) return "libtorch sees no CUDA device";
  return {};
}

}  // namespace

bool load_torch_cuda(std::string* why) {
  static const std::string kReason = load_cuda_half();
  if (why != nullptr) *why = kReason;
  return kReason.empty();
}

std::string torch_sdpa_forward(const AttendInputs& inputs, const AttendOutputs& outputs,
                               int threads, bool only_cudnn) {
  constexpr double kMathLimit = 1 << 30;  // bytes of scores that the math backend may hold
  const TensorView& q = inputs.q;
  return guarded("torch_sdpa", [&]() -> std::string {
    if (q.device.kind == DeviceKind::cpu) at::set_num_threads(resolve_threads(threads));
    if (!any_valid(inputs)) {
      write_empty(inputs, outputs);
      return "none";
    }
    // Fused backends mask their tails with -inf before they scale, which a negative scale turns into
    // NaN: change the sign of the queries instead.
    const bool negative = inputs.scale < 0.0F;
    const at::Tensor query = negative ? as_tensor(inputs.q).neg() : as_tensor(inputs.q);
    const at::Tensor key = without_invalid(as_tensor(inputs.k), inputs);
    const at::Tensor value = without_invalid(as_tensor(inputs.v), inputs);
    const double scale = std::abs(double{inputs.scale});
    const OnlyCudnn restriction(only_cudnn);
    const std::int64_t choice =
        at::_fused_sdp_choice(query, key, value, std::nullopt, 0.0, false, scale);
    const std::string backend = backend_name(choice);
    if (only_cudnn && backend != "cuDNN") {
      throw Unsupported("torch_cudnn: cuDNN does not cover these inputs (torch chose " + backend +
                        ")");
    }
    const double scores = static_cast<double>(q.heads) * static_cast<double>(q.tokens) *
                          static_cast<double>(key.size(2)) * 4.0;
    if (backend == "math" && scores > kMathLimit) {
      throw Unsupported(
          "torch_sdpa: torch has no fused kernel for these inputs; its math backend "
          "would hold " +
          std::to_string(scores / kMathLimit) + " GiB of scores");
    }
    const at::Tensor out =
        at::scaled_dot_product_attention(query, key, value, std::nullopt, 0.0, false, scale);
    if (outputs.o != nullptr) {
      output_tensor(outputs.o, {1, q.heads, q.tokens, q.head_dim}, q.device).copy_(out);
    }
    return backend;
  });
}

namespace {

// The element type that libtorch's matmul is fast in here: without half-precision instructions it
// multiplies bf16 at 2 % of the speed of fp32 (measured on Zen 3).
at::ScalarType matmul_type(DType dtype) {
  const auto levels = cpu::available_levels();
  const bool bf16 = std::find(levels.begin(), levels.end(), "avx512_bf16") != levels.end();
  return dtype == DType::bf16 && bf16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace

std::string torch_cudnn_refusal(const AttendInputs& inputs) {
  const c10::InferenceMode inference;
  const OnlyCudnn restriction(true);
  try {
    const std::int64_t choice =
        at::_fused_sdp_choice(as_tensor(inputs.q), as_tensor(inputs.k), as_tensor(inputs.v),
                              std::nullopt, 0.0, false, std::abs(double{inputs.scale}));
    const std::string backend = backend_name(choice);
    return backend == "cuDNN" ? "" : "torch chose " + backend;
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
}

void torch_chunked_forward(const AttendInputs& inputs, const AttendOutputs& outputs, int threads) {
  constexpr std::int64_t kScores = std::int64_t{1} << 22;  // fp32 scores of one chunk: 16 MiB
  const TensorView& q = inputs.q;
  const std::int64_t rows = std::clamp<std::int64_t>(kScores / q.tokens, 16, 512);
  guarded("torch_chunked", [&] {
    at::set_num_threads(resolve_threads(threads));
    if (!any_valid(inputs)) return write_empty(inputs, outputs);
    const at::Tensor query = as_tensor(inputs.q)[0];
    const at::Tensor keys = without_invalid(as_tensor(inputs.k), inputs)[0].transpose(1, 2);
    const at::Tensor values = without_invalid(as_tensor(inputs.v), inputs)[0];
    const at::Tensor o = output_tensor(outputs.o, {q.heads, q.tokens, q.head_dim}, q.device);
    at::Tensor lse;
    if (outputs.lse != nullptr) lse = output_tensor(outputs.lse, {q.heads, q.tokens}, q.device);
    const at::ScalarType type = matmul_type(q.dtype);
    for (std::int64_t head = 0; head < q.heads; ++head) {
      const at::Tensor head_keys = keys[head].to(type);
      const at::Tensor head_values = values[head].to(type);
      for (std::int64_t first = 0; first < q.tokens; first += rows) {
        const std::int64_t count = std::min(rows, q.tokens - first);
        at::Tensor scores =
            at::matmul(query[head].narrow(0, first, count).to(type), head_keys).to(at::kFloat);
        scores.mul_(double{inputs.scale});
        const at::Tensor max = at::amax(scores, {-1}, /*keepdim=*/true);
        scores.sub_(max).exp_();
        const at::Tensor sum = at::sum(scores, {-1}, /*keepdim=*/true);
        const at::Tensor out = at::matmul(scores.to(type), head_values);
        o[head].narrow(0, first, count).copy_(out.to(at::kFloat).div_(sum));
        if (lse.defined()) lse[head].narrow(0, first, count).copy_(sum.log().add_(max).squeeze(-1));
      }
    }
  });
}

void torch_cuda_synchronize(int device) {
  guarded("torch_sdpa", [&] {
    at::detail::getCUDAHooks().deviceSynchronize(static_cast<at::DeviceIndex>(device));
  });
}

}  // namespace raingauge
