// SPDX-License-Identifier: Apache-2.0
// block_mass() where it is cheapest: on the device that holds a copy of the record, or on the host.
#pragma once

#include <string>
#include <vector>

#include "methods/kernels/row_evaluator.h"

namespace raingauge {

struct TrueMass {
  std::vector<float> values;  // [query blocks, key blocks], as block_mass() gives them
  std::string on;             // "cpu", "cuda:0"
};

// One head under its orders and layout of `plan`; its lists are not read. On the device of record.mirror
// where device_mass_supports() says yes, otherwise on the host with `threads` threads.
TrueMass true_block_mass(const RecordView& record, std::int64_t head, const Plan& plan,
                         int threads);

// All heads in one pass; empty where they share no orders and layouts, or the device does not cover them.
std::vector<TrueMass> true_block_masses_on_device(const RecordView& record, const Plan& plan);

}  // namespace raingauge
