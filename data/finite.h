// SPDX-License-Identifier: Apache-2.0
// Where is the first NaN or Inf of a run of stored elements?
#pragma once

#include <cstdint>

#include "data/dtype.h"

namespace raingauge {

// Index of the first element that is NaN or Inf, -1 when all are finite. Runs at memory speed.
std::int64_t first_nonfinite(const void* data, DType dtype, std::int64_t count);

}  // namespace raingauge
