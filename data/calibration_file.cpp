// SPDX-License-Identifier: Apache-2.0
#include "data/calibration_file.h"

#include <cmath>
#include <filesystem>
#include <mutex>
#include <tuple>

#include "data/error.h"
#include "data/hdf5_util.h"

namespace raingauge {
namespace {

constexpr const char* kFormat = "raingauge-calibration";
constexpr std::size_t kMostRank = 4;
constexpr std::int64_t kMostValues = std::int64_t{1} << 32;

std::int64_t value_count(const std::vector<std::int64_t>& shape, const std::string& where) {
  std::int64_t count = 1;
  for (const auto size : shape) {
    if (size < 1 || count > kMostValues / size) {
      throw Error(where + ": a table of this shape is empty or has more than 2^32 values");
    }
    count *= size;
  }
  if (shape.empty() || shape.size() > kMostRank) {
    throw Error(where + ": a table has 1 to 4 dimensions, this one has " +
                std::to_string(shape.size()));
  }
  return count;
}

void check_table(const CalibrationTable& table, const std::string& where) {
  if (value_count(table.shape, where) != static_cast<std::int64_t>(table.values.size())) {
    throw Error(where + ": " + std::to_string(table.values.size()) +
                " values do not fill the shape of the table");
  }
  for (const float value : table.values) {
    if (!std::isfinite(value)) throw Error(where + ": a value is not finite");
  }
}

void write_table(hid_t group, const std::string& name, const CalibrationTable& table,
                 const std::string& where) {
  check_table(table, where);
  const std::vector<hsize_t> dims(table.shape.begin(), table.shape.end());
  const auto space = hdf5::check(
      H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), where, "dataspace");
  const auto dataset = hdf5::check(H5Dcreate2(group, name.c_str(), H5T_IEEE_F32LE, space.get(),
                                              H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                   where, "cannot create the table");
  hdf5::check_status(
      H5Dwrite(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, table.values.data()),
      where, "cannot write (no space left?)");
}

CalibrationTable read_table(hid_t group, const std::string& name, const std::string& where) {
  const auto dataset = hdf5::open_dataset(group, name, where);
  const auto space = hdf5::check(H5Dget_space(dataset.get()), where, "dataspace");
  const auto type = hdf5::check(H5Dget_type(dataset.get()), where, "type");
  if (H5Tget_class(type.get()) != H5T_FLOAT)
    throw Error(where + ": expected floating point values");
  CalibrationTable table;
  table.shape = hdf5::extent(space.get(), where);
  const auto count = value_count(table.shape, where);
  // A damaged file may claim any shape: what is not stored is not allocated.
  const auto stored = static_cast<std::int64_t>(H5Dget_storage_size(dataset.get()));
  if (stored < count * static_cast<std::int64_t>(H5Tget_size(type.get()))) {
    throw Error(where + ": the file holds fewer values than its shape says");
  }
  table.values.resize(static_cast<std::size_t>(count));
  hdf5::check_status(
      H5Dread(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, table.values.data()),
      where, "cannot read the table");
  check_table(table, where);
  return table;
}

}  // namespace

void write_calibration(const std::string& path, const CalibrationFile& file, bool overwrite) {
  if (std::filesystem::exists(path) && !overwrite) {
    throw Error(path + ": exists already; --overwrite replaces it");
  }
  const hdf5::Session session;
  const auto handle = hdf5::check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                                  path, "cannot create");
  hdf5::write_string(handle.get(), "format", kFormat, path);
  hdf5::write_integer(handle.get(), "version", 1, path);
  for (const auto& [name, value] : file.facts) {
    hdf5::write_string(handle.get(), name.c_str(), value, path);
  }
  const auto group = hdf5::check(
      H5Gcreate2(handle.get(), "tables", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), path, "/tables");
  for (const auto& [name, table] : file.tables) {
    write_table(group.get(), name, table, path + ": /tables/" + name);
  }
}

CalibrationFile read_calibration(const std::string& path) {
  const hdf5::Session session;
  const auto handle = hdf5::open_file(path);
  if (hdf5::read_string(handle.get(), "format", path) != kFormat) {
    throw Error(path + ": not a calibration (attribute `format` is not \"" + kFormat +
                "\"); make one with `raingauge calibrate`");
  }
  const auto version = hdf5::required(hdf5::read_integer(handle.get(), "version", path), "version",
                                      "format version", path);
  if (version != 1) {
    throw Error(path + ": calibration format " + std::to_string(version) +
                "; this program reads version 1");
  }
  CalibrationFile file;
  for (const char* name : {"method", "arm", "captures", "kind", "boundary", "groups"}) {
    if (const auto value = hdf5::read_string(handle.get(), name, path)) file.facts[name] = *value;
  }
  const auto group = hdf5::open_group(handle.get(), "tables", path);
  for (const auto& name : hdf5::link_names(group.get(), path)) {
    file.tables[name] = read_table(group.get(), name, path + ": /tables/" + name);
  }
  return file;
}

std::shared_ptr<const CalibrationFile> shared_calibration(const std::string& path) {
  using Stamp = std::tuple<std::filesystem::file_time_type, std::uintmax_t>;
  static std::mutex mutex;
  static std::map<std::string, std::pair<Stamp, std::shared_ptr<const CalibrationFile>>> known;
  const std::lock_guard lock(mutex);
  std::error_code error;
  const Stamp stamp{std::filesystem::last_write_time(path, error),
                    std::filesystem::file_size(path, error)};
  auto& [when, file] = known[path];
  if (file == nullptr || when != stamp || error) {
    file = std::make_shared<const CalibrationFile>(read_calibration(path));
    when = stamp;
  }
  return file;
}

}  // namespace raingauge
