// SPDX-License-Identifier: Apache-2.0
// Which kernels are there? The table behind `raingauge list kernels`, the YAML's `kernels:` and the
// contract tests, made from kernels.def. Kernels that this build lacks stay listed with the reason.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "methods/kernels/kernel.h"

namespace raingauge {

struct KernelEntry {
  KernelSpec spec;
  std::unique_ptr<Kernel> (*factory)(const KernelOptions&) = nullptr;

  bool built() const { return spec.not_built.empty(); }
  // Throws Unsupported with spec.not_built when this build lacks the kernel.
  std::unique_ptr<Kernel> make(const KernelOptions& options = {}) const;
};

// In the order of kernels.def.
const std::vector<KernelEntry>& kernel_registry();

// Throws Error that lists the known names and the nearest one.
const KernelEntry& find_kernel(std::string_view name);

// A kernel of the table, or a peer by "python:FILE". Throws what the two above and
// make_peer_kernel() throw.
std::unique_ptr<Kernel> make_kernel(const std::string& name, const KernelOptions& options = {});

// `asked`, or when that is empty our own block-sparse kernel for such a device: "cpu", "cuda".
std::string usual_kernel(const std::string& asked, DeviceKind kind);

// Whether a kernel of the table takes part on such a device; a peer is asked when it runs.
bool may_run_on(const std::string& name, DeviceKind kind);

}  // namespace raingauge
