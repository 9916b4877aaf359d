// SPDX-License-Identifier: Apache-2.0
// The table of metrics: one entry for every line of metrics.def.
#include "metrics/registry.h"

#include <string>

#include "data/error.h"

namespace raingauge {

#define RAINGAUGE_METRIC(name) MetricEntry name##_metric();
#include "metrics/metrics.def"
#undef RAINGAUGE_METRIC

const std::vector<MetricEntry>& metric_registry() {
  static const std::vector<MetricEntry> kEntries = {
#define RAINGAUGE_METRIC(name) name##_metric(),
#include "metrics/metrics.def"
#undef RAINGAUGE_METRIC
  };
  return kEntries;
}

const MetricEntry& find_metric(std::string_view name) {
  std::string known;
  for (const MetricEntry& entry : metric_registry()) {
    if (entry.spec.name == name) return entry;
    known += (known.empty() ? "" : ", ") + std::string(entry.spec.name);
  }
  throw Error("unknown metric '" + std::string(name) + "'. Known: " + known);
}

}  // namespace raingauge
