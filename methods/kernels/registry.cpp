// SPDX-License-Identifier: Apache-2.0
// The table of kernels: one entry for every line of kernels.def.
#include "methods/kernels/registry.h"

#include "data/error.h"
#include "methods/kernels/peer.h"
#include "methods/params.h"

namespace raingauge {

#define RAINGAUGE_KERNEL(name, ...) \
  KernelSpec name##_kernel_spec();  \
  std::unique_ptr<Kernel> make_##name##_kernel(const KernelOptions& options);
#include "methods/kernels/kernels.def"
#undef RAINGAUGE_KERNEL

std::unique_ptr<Kernel> KernelEntry::make(const KernelOptions& options) const {
  if (!built()) {
    throw Unsupported("kernel `" + std::string(spec.name) + "`: " + std::string(spec.not_built));
  }
  return factory(options);
}

const std::vector<KernelEntry>& kernel_registry() {
  static const std::vector<KernelEntry> kEntries = {
#define RAINGAUGE_KERNEL(name, ...) KernelEntry{name##_kernel_spec(), make_##name##_kernel},
#include "methods/kernels/kernels.def"
#undef RAINGAUGE_KERNEL
  };
  return kEntries;
}

const KernelEntry& find_kernel(std::string_view name) {
  std::vector<std::string> known;
  for (const KernelEntry& entry : kernel_registry()) {
    if (entry.spec.name == name) return entry;
    known.emplace_back(entry.spec.name);
  }
  throw Error("unknown kernel `" + std::string(name) + "`" + known_names_hint(name, known));
}

std::unique_ptr<Kernel> make_kernel(const std::string& name, const KernelOptions& options) {
  if (is_peer(name)) return make_peer_kernel(name, options);
  return find_kernel(name).make(options);
}

std::string usual_kernel(const std::string& asked, DeviceKind kind) {
  if (!asked.empty()) return asked;
  return kind == DeviceKind::cpu ? "cpu" : "cuda";
}

bool may_run_on(const std::string& name, DeviceKind kind) {
  return is_peer(name) || find_kernel(name).spec.runs_on(kind);
}

}  // namespace raingauge
