// SPDX-License-Identifier: Apache-2.0
// What the arms of one record keep, as small as it can be stored, for the pictures of the report:
// RUN/masks.json {record, arms: [{arm, heads: [{head, density, rows, columns, kept, forced}]}]}, where
// kept and forced are base64 of [rows, columns] bits, row by row, the first pair in the highest bit.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/plan.h"
#include "data/record.h"

namespace raingauge {

// Up to 4 heads an arm; arms beyond 4 MiB in all are left out and named in `left_out`.
nlohmann::json mask_pictures(const RecordView& record,
                             const std::vector<std::pair<std::string, const Plan*>>& plans);

std::string base64(const std::vector<std::uint8_t>& bytes);

}  // namespace raingauge
