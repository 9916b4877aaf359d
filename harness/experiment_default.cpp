// SPDX-License-Identifier: Apache-2.0
// Loading with the names of this build's registries.
#include "harness/experiment.h"
#include "methods/kernels/registry.h"
#include "metrics/frames/registry.h"
#include "metrics/registry.h"

namespace raingauge {

KnownNames registered_names() {
  KnownNames known;
  for (const auto& entry : metric_registry()) known.metrics.emplace_back(entry.spec.name);
  for (const auto& entry : frame_metric_registry()) {
    known.frame_metrics.emplace_back(entry.spec.name);
  }
  for (const auto& entry : kernel_registry()) known.kernels.emplace_back(entry.spec.name);
  return known;
}

Experiment load_experiment(const std::filesystem::path& path,
                           const std::vector<std::string>& overrides) {
  return load_experiment(path, overrides, registered_names());
}

}  // namespace raingauge
