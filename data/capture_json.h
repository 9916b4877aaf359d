// SPDX-License-Identifier: Apache-2.0
// Everything of a capture but its tensors, as JSON: the side file of conversions.
#pragma once

#include <nlohmann/json.hpp>

#include "data/capture.h"

namespace raingauge {

nlohmann::json capture_to_json(const CaptureInfo& info);
nlohmann::json record_to_json(const RecordInfo& info);

// Throw Error (prefixed by `where`) for missing or wrong keys.
CaptureInfo capture_from_json(const nlohmann::json& json, const std::string& where);
RecordInfo record_from_json(const nlohmann::json& json, const std::string& where);

}  // namespace raingauge
