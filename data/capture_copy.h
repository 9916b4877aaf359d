// SPDX-License-Identifier: Apache-2.0
// Copies chosen records and heads of a capture into a new one, optionally compressed or in another
// element type: behind `raingauge capture slice` and `capture convert`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/capture_writer.h"

namespace raingauge {

// Empty lists select everything. A record is copied when all lists let it pass.
struct CaptureSelection {
  std::vector<int> records;  // numbers in /records/; each must exist
  std::vector<int> layers;
  std::vector<int> steps;
  std::vector<std::string> branches;
  std::vector<int> heads;  // original numbers; every copied record must hold them
  bool outputs = true;     // datasets `o`
  bool frames = true;
};

// The records that a selection lets pass, by number. Throws Error for record numbers that do not exist.
std::vector<RecordInfo> select_records(const Capture& capture, const CaptureSelection& selection);

// Returns the number of records copied; throws Error when the selection matches none. One head is
// in memory at a time. `dtype` empty keeps the bits; otherwise values are rounded to it. Records
// keep their numbers.
int copy_capture(const std::string& source, const std::string& target,
                 const CaptureSelection& selection, const CaptureWriteOptions& options = {},
                 std::optional<DType> dtype = std::nullopt);

}  // namespace raingauge
