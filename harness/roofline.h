// SPDX-License-Identifier: Apache-2.0
// How much work is a plan, and how much of what the machine can do is a time?
#pragma once

#include "data/plan.h"
#include "data/record.h"

namespace raingauge {

// Counted from the lists; padding inside tiles is the kernel's loss, not credit.
struct AttentionWork {
  // 4 head_dim for every kept pair of a query and a valid key: both products.
  double flops = 0.0;
  // What a kernel that works block by block moves to its cores: every query block's rows once, the
  // keys and values of every block that it keeps, as stored, and fp32 output and LSE.
  double bytes = 0.0;
};
AttentionWork count_work(const Plan& plan, const RecordView& record);

// The machine's load average of the last minute; NaN where it is not known.
double load_average_1();

}  // namespace raingauge
