// SPDX-License-Identifier: Apache-2.0
// What the sources of the capture reader share. Not for other folders.
#pragma once

#include <string>
#include <vector>

#include "data/capture.h"
#include "data/hdf5_tensor.h"
#include "data/hdf5_util.h"

namespace raingauge::hdf5 {

// "000042"
std::string record_name(int number);

void write_capture_info(hid_t file, const CaptureInfo& info, const std::string& path);
void write_record_info(hid_t record, const RecordInfo& info, const std::string& where);

CaptureInfo read_capture_info(hid_t file, const std::string& path);

// Attributes, segments, shapes and storage of /records/<name>; throws Error on the first defect.
RecordInfo read_record_info(hid_t records, const std::string& name, const CaptureInfo& capture,
                            std::int64_t file_size);

// Stored as given, or absent: empty. Throws when no key is valid. 1 = valid.
std::vector<std::uint8_t> read_key_valid(hid_t record, const RecordInfo& info,
                                         std::int64_t file_size);

Segments read_segments(hid_t record, const std::string& where);
void write_segments(hid_t record, const Segments& segments, const std::string& where);

// A one-dimensional float64 dataset; empty when it is absent.
std::vector<double> read_reals(hid_t parent, const std::string& name, const std::string& where,
                               std::int64_t file_size);

}  // namespace raingauge::hdf5
