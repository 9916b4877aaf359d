// SPDX-License-Identifier: Apache-2.0
// What a method learnt on one set of captures, to be used on others: named float tables and facts, in
// one HDF5 file. What the tables mean is the method's affair.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace raingauge {

struct CalibrationTable {
  std::vector<std::int64_t> shape;  // 1 to 4 sizes
  std::vector<float> values;        // row-major
};

struct CalibrationFile {
  std::map<std::string, std::string> facts;  // root attributes: method, arm, captures …
  std::map<std::string, CalibrationTable> tables;
};

// Root attributes format="raingauge-calibration", version=1, and the facts; group /tables with one
// float32 dataset a table. Throws Error when the file exists and `overwrite` is off, when a table's
// values do not fill its shape or are not finite, and when the disk is full.
void write_calibration(const std::string& path, const CalibrationFile& file, bool overwrite);

// Throws Error naming the file and what is wrong with it.
CalibrationFile read_calibration(const std::string& path);

// The same, read once a process as long as the file does not change. Thread safe.
std::shared_ptr<const CalibrationFile> shared_calibration(const std::string& path);

}  // namespace raingauge
