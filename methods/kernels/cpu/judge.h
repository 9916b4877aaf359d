// SPDX-License-Identifier: Apache-2.0
// The judge of row_evaluator.h at a given instruction-set level, so that tests can compare levels.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "methods/kernels/cpu/ops.h"
#include "methods/kernels/row_evaluator.h"

namespace raingauge::cpu {

// Throws Error unless the record is in host memory, its head exists and the plan (may be null) is for
// its heads and tokens.
void check_judged(const RecordView& record, std::int64_t head, const Plan* plan);

RowResults evaluate_rows_at(const LevelOps& ops, const RecordView& record, std::int64_t head,
                            const RowSample& sample, const Plan* plan, int threads);

std::vector<float> block_mass_at(const LevelOps& ops, const RecordView& record, std::int64_t head,
                                 const Plan& plan, int threads);

}  // namespace raingauge::cpu
