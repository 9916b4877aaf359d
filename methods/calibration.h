// SPDX-License-Identifier: Apache-2.0
// Offline calibration: a method looks at one set of captures and writes down what it will use on
// others (`raingauge calibrate`, key `calibration`).
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/calibration_file.h"
#include "data/record.h"
#include "methods/method.h"

namespace raingauge {

class Calibrator {
 public:
  virtual ~Calibrator() = default;
  // How often all records are shown; 1 to passes().
  virtual int passes() const { return 1; }
  // The same records in the same order in every pass (0-based). Throws what a plan throws.
  virtual void add(const RecordView& record, int pass) = 0;
  virtual CalibrationFile result() const = 0;
};

// The calibrator of a method, or of the order that its arm names. Throws Unsupported when neither
// learns anything. `params` has been completed.
std::unique_ptr<Calibrator> make_calibrator(const std::string& method, const nlohmann::json& params,
                                            const MethodOptions& options);

// Path of a calibration as an arm gives it: relative to the arm's folder.
std::string calibration_path(const std::string& given, const std::string& base_folder);

// Names of tables: "layer4.order", with the expert of models that have several in front.
std::string site_prefix(const Site& site);

// The table, or an Unsupported error that names what the calibration does not cover.
const CalibrationTable& find_table(const CalibrationFile& file, const std::string& path,
                                   const std::string& name);

// Row of an original head number in the table "<prefix>heads". Throws Unsupported when it is not there.
std::int64_t calibrated_row(const CalibrationFile& file, const std::string& path,
                            const std::string& prefix, int head);

}  // namespace raingauge
