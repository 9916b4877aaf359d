// SPDX-License-Identifier: Apache-2.0
#include "methods/calibration.h"

#include <algorithm>
#include <filesystem>

#include "data/error.h"
#include "methods/orders/registry.h"
#include "methods/registry.h"

namespace raingauge {

std::unique_ptr<Calibrator> make_calibrator(const std::string& method, const nlohmann::json& params,
                                            const MethodOptions& options) {
  const MethodEntry& entry = find_method(method);
  if (entry.calibrator != nullptr) return entry.calibrator(params, options);
  if (params.contains("order")) {
    const auto& order = params.at("order");
    const OrderEntry& order_entry = find_order(order.at("name").get<std::string>());
    if (order_entry.calibrator != nullptr) {
      return order_entry.calibrator(order.at("params"), options);
    }
  }
  throw Unsupported(
      "method " + method +
      " and its order learn nothing from captures; methods and orders with a key `calibration` do");
}

std::string calibration_path(const std::string& given, const std::string& base_folder) {
  const std::filesystem::path path = given;
  return (path.is_absolute() ? path : std::filesystem::path(base_folder) / path).string();
}

std::string site_prefix(const Site& site) {
  return (site.expert.empty() ? "" : site.expert + ".") + "layer" + std::to_string(site.layer) +
         ".";
}

const CalibrationTable& find_table(const CalibrationFile& file, const std::string& path,
                                   const std::string& name) {
  const auto found = file.tables.find(name);
  if (found == file.tables.end()) {
    throw Unsupported(path + ": the calibration has no table '" + name +
                      "'; calibrate with captures of this layer and step");
  }
  return found->second;
}

std::int64_t calibrated_row(const CalibrationFile& file, const std::string& path,
                            const std::string& prefix, int head) {
  const auto& heads = find_table(file, path, prefix + "heads").values;
  const auto found = std::find(heads.begin(), heads.end(), static_cast<float>(head));
  if (found == heads.end()) {
    throw Unsupported(path + ": the calibration of " + prefix + " has no head " +
                      std::to_string(head));
  }
  return found - heads.begin();
}

}  // namespace raingauge
