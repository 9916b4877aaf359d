// SPDX-License-Identifier: Apache-2.0
// From a run to a schedule: for every layer, step and head the cheapest arm whose error stayed within
// a bound, as a file that the method `schedule` reads.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "harness/report/run_data.h"

namespace raingauge {

struct ScheduleBound {
  std::string metric;  // of the run; a metric that is better high counts as 1 - value
  double error = 0.0;  // a head's mean over generations must not exceed it
};

// {format, version, metric, bound, settings [{arm, match, params}], sites [{layer, step, head,
// setting, error, density}], predicted, achieved}. Setting -1 is dense: no arm kept the bound.
// `achieved` is measured on generations that the choice did not see: each is left out in turn, the
// choice made on the others, and the error of the chosen arms read on it. A head's plan depends on no
// other head, so that is the error the schedule itself would have. Null for one generation. Throws
// Error when the run has not the metric, or no feasible arm.
nlohmann::json make_schedule(const RunData& data, const ScheduleBound& bound);

}  // namespace raingauge
