// SPDX-License-Identifier: Apache-2.0
// The plan writer: identity orders are written out, so that readers need no special case.
#include <filesystem>
#include <numeric>

#include "data/error.h"
#include "data/hdf5_util.h"
#include "data/plan_file.h"

namespace raingauge {
namespace {

using hdf5::Handle;

constexpr const char* kNoSpace = "cannot be written; is there space left on the device?";

// `file_type` is what is stored, `memory_type` what `data` holds.
void write_dataset(hid_t file, const char* name, const std::vector<std::int64_t>& dims,
                   hid_t file_type, hid_t memory_type, const void* data, const std::string& path) {
  const std::string where = path + ": /" + name;
  const std::vector<hsize_t> shape(dims.begin(), dims.end());
  const Handle space =
      hdf5::check(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), where,
                  "cannot make a dataspace");
  const Handle dataset = hdf5::check(
      H5Dcreate2(file, name, file_type, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), where,
      "cannot be created");
  hdf5::check_status(H5Dwrite(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data),
                     where, kNoSpace);
}

void write_orders(hid_t file, const char* name, const Orders& orders, const std::string& path) {
  std::vector<std::int32_t> identity;
  const std::int64_t rows = orders.identity ? 1 : orders.rows;
  if (orders.identity) {
    identity.resize(static_cast<std::size_t>(orders.tokens));
    std::iota(identity.begin(), identity.end(), 0);
  }
  const std::int32_t* data = orders.identity ? identity.data() : orders.index.data();
  write_dataset(file, name, {rows, orders.tokens}, H5T_STD_I32LE, H5T_NATIVE_INT32, data, path);
}

void write_layout(hid_t file, const char* name, const Layout& layout, const std::string& path) {
  write_dataset(file, name, {layout.rows, layout.blocks + 1}, H5T_STD_I32LE, H5T_NATIVE_INT32,
                layout.offsets.data(), path);
}

void write_lists(hid_t file, const BlockLists& lists, const std::string& path) {
  std::vector<std::int64_t> offsets;  // [heads, query_blocks + 1], absolute
  for (std::int64_t head = 0; head < lists.heads; ++head) {
    const auto first = lists.row_offsets.begin() + head * lists.query_blocks;
    offsets.insert(offsets.end(), first, first + lists.query_blocks + 1);
  }
  write_dataset(file, "row_offsets", {lists.heads, lists.query_blocks + 1}, H5T_STD_I64LE,
                H5T_NATIVE_INT64, offsets.data(), path);
  write_dataset(file, "columns", {static_cast<std::int64_t>(lists.columns.size())}, H5T_STD_I32LE,
                H5T_NATIVE_INT32, lists.columns.data(), path);
}

void write_attributes(hid_t file, const PlanFile& plan, const std::string& path) {
  hdf5::write_string(file, "format", "raingauge-plan", path);
  hdf5::write_integer(file, "version", kPlanVersion, path);
  hdf5::write_string(file, "capture", plan.capture, path);
  // A number where it is one, so that other programs need not parse it.
  if (!hdf5::write_integer_text(file, "record", plan.record, path)) {
    hdf5::write_string(file, "record", plan.record, path);
  }
  hdf5::write_string(file, "arm", plan.arm, path);
  hdf5::write_string(file, "method", plan.method, path);
}

void check_arguments(const std::string& path, const PlanFile& file, bool overwrite) {
  const auto heads = static_cast<std::size_t>(file.plan.heads);
  if (!overwrite && std::filesystem::exists(path)) {
    throw Error(path + ": exists already; choose another name or ask to overwrite it");
  }
  if (!file.plan.terms.empty()) {
    throw Unsupported(path + ": the plan adds `" + file.plan.terms.front().name +
                      "` to the masked output, which a plan file cannot hold");
  }
  if (file.heads.size() != heads ||
      (!file.nominal_density.empty() && file.nominal_density.size() != heads)) {
    throw Error(path + ": " + std::to_string(file.heads.size()) + " head numbers and " +
                std::to_string(file.nominal_density.size()) + " nominal densities for a plan of " +
                std::to_string(heads) + " heads");
  }
}

}  // namespace

void write_plan(const std::string& path, const PlanFile& plan_file, bool overwrite,
                const std::uint8_t* key_valid) {
  check_arguments(path, plan_file, overwrite);
  const Plan& plan = plan_file.plan;
  check_plan(plan, key_valid);
  const Density density = measure_density(plan, key_valid);
  std::vector<double> nominal = plan_file.nominal_density;
  if (nominal.empty()) nominal.assign(plan_file.heads.size(), plan.nominal_density);
  const hdf5::Session session;
  Handle file = hdf5::check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), path,
                            "cannot be created; do the folder and the permission to write exist?");
  const hid_t id = file.get();
  write_attributes(id, plan_file, path);
  write_orders(id, "q_order", plan.q_order, path);
  write_orders(id, "k_order", plan.k_order, path);
  write_layout(id, "q_offsets", plan.q_blocks, path);
  write_layout(id, "k_offsets", plan.k_blocks, path);
  write_lists(id, plan.lists, path);
  write_dataset(id, "heads", {plan.heads}, H5T_STD_I32LE, H5T_NATIVE_INT, plan_file.heads.data(),
                path);
  for (const auto& [name, values] : {std::pair{"density_pairs", &density.pairs},
                                     {"density_blocks", &density.blocks},
                                     {"nominal_density", &std::as_const(nominal)}}) {
    write_dataset(id, name, {plan.heads}, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, values->data(), path);
  }
  hdf5::check_status(H5Fflush(id, H5F_SCOPE_LOCAL), path, kNoSpace);
  hdf5::check_status(H5Fclose(file.release()), path, kNoSpace);
}

}  // namespace raingauge
