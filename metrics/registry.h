// SPDX-License-Identifier: Apache-2.0
// Which metrics are there? The tables behind `raingauge list metrics`, the YAML's `metrics:` and
// the contract tests.
#pragma once

#include <string_view>
#include <vector>

#include "metrics/metric.h"

namespace raingauge {

// In the order of metrics.def.
const std::vector<MetricEntry>& metric_registry();

// Throws Error that lists the known names.
const MetricEntry& find_metric(std::string_view name);

}  // namespace raingauge
