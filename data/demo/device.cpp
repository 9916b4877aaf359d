// SPDX-License-Identifier: Apache-2.0
#include "data/demo/device.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <filesystem>

#include "data/error.h"

namespace raingauge::demo {
namespace {

std::filesystem::path torch_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&at::globalContext), &info) == 0 || !info.dli_fname) {
    throw Error("device: cannot tell where libtorch_cpu.so was loaded from");
  }
  return std::filesystem::canonical(info.dli_fname).parent_path();
}

void load_cuda() {
  const std::filesystem::path library = torch_folder() / "libtorch_cuda.so";
  if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw Error("device: CUDA needs " + library.string() + " and the libraries of torch's CUDA " +
                "wheels; loading it failed: " + dlerror());
  }
  // torch remembers the answer of the first question about CUDA: nothing may ask before this.
  if (!at::hasCUDA()) throw Error("device: libtorch_cuda.so is loaded, but no CUDA GPU was found");
  at::globalContext().lazyInitDevice(at::kCUDA);
}

}  // namespace

at::Device open_device(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  if (name != "cuda" && name.rfind("cuda:", 0) != 0) {
    throw Error("device: got '" + name + "', allowed are cpu, cuda and cuda:N");
  }
  load_cuda();
  const at::Device device(name == "cuda" ? "cuda:0" : name);
  const int count = c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
  if (device.index() >= count) {
    throw Error("device: got '" + name + "', this machine has " + std::to_string(count) +
                " CUDA device(s)");
  }
  return device;
}

at::Tensor upload(const std::vector<float>& values, at::Device device) {
  const at::Tensor host = at::tensor(values, at::kFloat);
  if (device.is_cpu()) return host;
  return host.pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace raingauge::demo
