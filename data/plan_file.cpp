// SPDX-License-Identifier: Apache-2.0
// The plan reader. Orders, offsets, row_offsets, columns and heads are required; densities and
// attributes are recomputed or compared, and a mismatch is a warning.
#include "data/plan_file.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <filesystem>
#include <set>

#include "data/error.h"
#include "data/hdf5_tensor.h"
#include "data/hdf5_util.h"
#include "data/isolated.h"

namespace raingauge {
namespace {

using hdf5::Handle;

// Counts are exact integers below 2^53, so honest float64 densities agree to a few units in the
// last place; float32 ones to 6e-8.
constexpr double kDensityTolerance = 1e-6;

struct Source {
  std::string path;
  Handle file;
  std::int64_t size = 0;
};

struct Numbers {
  Handle dataset;
  std::string where;
  std::vector<std::int64_t> dims;  // two, a missing first one is 1
  std::int64_t count = 0;
};

Numbers open_numbers(const Source& source, const char* name, std::size_t rank, H5T_class_t kind) {
  Numbers numbers;
  numbers.where = source.path + ": /" + name;
  if (!hdf5::has_link(source.file.get(), name)) {
    hdf5::fail(source.path, std::string("required dataset `") + name + "` is missing");
  }
  numbers.dataset = hdf5::open_dataset(source.file.get(), name, numbers.where);
  const Handle space =
      hdf5::check(H5Dget_space(numbers.dataset.get()), numbers.where, "has no extent");
  const Handle type = hdf5::check(H5Dget_type(numbers.dataset.get()), numbers.where, "has no type");
  numbers.dims = hdf5::extent(space.get(), numbers.where);
  if (rank == 2 && numbers.dims.size() == 1) numbers.dims.insert(numbers.dims.begin(), 1);
  const H5T_class_t stored = H5Tget_class(type.get());
  if (numbers.dims.size() != rank || (stored != kind && stored != H5T_INTEGER)) {
    hdf5::fail(numbers.where, std::string("must hold ") +
                                  (kind == H5T_INTEGER ? "integers" : "numbers") + " of rank " +
                                  std::to_string(rank));
  }
  numbers.count = 1;
  std::int64_t bytes = 0;
  for (const std::int64_t dim : numbers.dims) {
    if (dim == 0) hdf5::fail(numbers.where, "is empty");
    if (__builtin_mul_overflow(numbers.count, dim, &numbers.count)) numbers.count = INT64_MAX;
  }
  const auto element = static_cast<std::int64_t>(H5Tget_size(type.get()));
  if (__builtin_mul_overflow(numbers.count, element, &bytes)) {
    hdf5::fail(numbers.where, "claims more elements than any file holds");
  }
  hdf5::check_storage(numbers.dataset.get(), bytes, numbers.where, source.size);
  return numbers;
}

// Out-of-range integers are clamped by the library to the ends of the target type; those are never
// valid here, so the plan check names them.
template <typename T>
std::vector<T> read_numbers(const Numbers& numbers, hid_t memory_type) {
  std::vector<T> values(static_cast<std::size_t>(numbers.count));
  hdf5::check_status(
      H5Dread(numbers.dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
      numbers.where, "cannot be read");
  return values;
}

int rows_of(const Numbers& numbers, std::int64_t heads) {
  const std::int64_t rows = numbers.dims[0];
  if (rows != 1 && rows != heads) {
    throw InvalidPlan(numbers.where + ": has " + std::to_string(rows) +
                      " rows; allowed are 1 (shared by all heads) or " + std::to_string(heads) +
                      ", one a head");
  }
  return static_cast<int>(rows);
}

Orders read_orders(const Source& source, const char* name, std::int64_t heads) {
  const Numbers numbers = open_numbers(source, name, 2, H5T_INTEGER);
  Orders orders;
  orders.rows = rows_of(numbers, heads);
  orders.tokens = numbers.dims[1];
  orders.index = read_numbers<std::int32_t>(numbers, H5T_NATIVE_INT32);
  orders.identity = true;
  for (std::size_t i = 0; i < orders.index.size() && orders.identity; ++i) {
    const auto position = static_cast<std::int64_t>(i) % orders.tokens;
    orders.identity = orders.index[i] == position;
  }
  if (!orders.identity) return orders;
  orders.rows = 1;
  orders.index.clear();
  orders.index.shrink_to_fit();
  return orders;
}

Layout read_layout(const Source& source, const char* name, std::int64_t heads) {
  const Numbers numbers = open_numbers(source, name, 2, H5T_INTEGER);
  Layout layout;
  layout.rows = rows_of(numbers, heads);
  layout.blocks = numbers.dims[1] - 1;
  layout.offsets = read_numbers<std::int32_t>(numbers, H5T_NATIVE_INT32);
  return layout;
}

// On disk every head has MQ + 1 row offsets, absolute positions in `columns`; in memory one array
// runs over all rows.
BlockLists read_lists(const Source& source, std::int64_t heads, std::int64_t query_blocks) {
  const Numbers offsets = open_numbers(source, "row_offsets", 2, H5T_INTEGER);
  if (offsets.dims[0] != heads || offsets.dims[1] != query_blocks + 1) {
    throw InvalidPlan(offsets.where + ": has shape [" + std::to_string(offsets.dims[0]) + ", " +
                      std::to_string(offsets.dims[1]) +
                      "]; needed is [heads, query blocks + 1] = [" + std::to_string(heads) + ", " +
                      std::to_string(query_blocks + 1) + "]");
  }
  const auto stored = read_numbers<std::int64_t>(offsets, H5T_NATIVE_INT64);
  BlockLists lists;
  lists.heads = heads;
  lists.query_blocks = query_blocks;
  lists.row_offsets.push_back(stored.front());
  const auto width = static_cast<std::size_t>(query_blocks) + 1;
  for (std::size_t head = 0; head < static_cast<std::size_t>(heads); ++head) {
    const auto row = stored.begin() + static_cast<std::ptrdiff_t>(head * width);
    if (*row != lists.row_offsets.back()) {
      throw InvalidPlan(offsets.where + ": head " + std::to_string(head) + " starts at column " +
                        std::to_string(*row) + " instead of " +
                        std::to_string(lists.row_offsets.back()) +
                        "; the rows of all heads follow one another and positions are absolute");
    }
    lists.row_offsets.insert(lists.row_offsets.end(), row + 1,
                             row + static_cast<std::ptrdiff_t>(width));
  }
  const Numbers columns = open_numbers(source, "columns", 1, H5T_INTEGER);
  lists.columns = read_numbers<std::int32_t>(columns, H5T_NATIVE_INT32);
  return lists;
}

std::vector<int> read_heads(const Source& source) {
  const Numbers numbers = open_numbers(source, "heads", 1, H5T_INTEGER);
  std::vector<int> heads;
  for (const auto head : read_numbers<std::int64_t>(numbers, H5T_NATIVE_INT64)) {
    heads.push_back(hdf5::narrow(head, 0, INT_MAX - 1, "heads", numbers.where));
  }
  if (std::set<int>(heads.begin(), heads.end()).size() != heads.size()) {
    throw InvalidPlan(numbers.where + ": names a head twice");
  }
  return heads;
}

// Absent or of another length: a warning at most, never an error.
std::vector<double> read_per_head(const Source& source, const char* name, std::size_t heads,
                                  std::vector<std::string>& warnings) {
  if (!hdf5::has_link(source.file.get(), name)) return {};
  try {
    const Numbers numbers = open_numbers(source, name, 1, H5T_FLOAT);
    if (static_cast<std::size_t>(numbers.count) == heads) {
      return read_numbers<double>(numbers, H5T_NATIVE_DOUBLE);
    }
    warnings.push_back(numbers.where + ": holds " + std::to_string(numbers.count) + " values for " +
                       std::to_string(heads) + " heads; it is not used");
  } catch (const Error& error) {
    warnings.push_back(std::string(error.what()) + "; it is not used");
  }
  return {};
}

void compare_density(const Source& source, const char* name, const std::vector<double>& counted,
                     std::vector<std::string>& warnings) {
  const auto stored = read_per_head(source, name, counted.size(), warnings);
  for (std::size_t head = 0; head < stored.size(); ++head) {
    if (std::abs(stored[head] - counted[head]) <= kDensityTolerance) continue;
    warnings.push_back(source.path + ": /" + name + ": head at index " + std::to_string(head) +
                       " says " + std::to_string(stored[head]) + ", counted from the lists is " +
                       std::to_string(counted[head]) + "; the counted one is used");
    return;
  }
}

void check_format(const Source& source) {
  const auto format = hdf5::read_string(source.file.get(), "format", source.path);
  if (!format || *format != "raingauge-plan") {
    hdf5::fail(source.path, "root attribute `format` is " +
                                (format ? "`" + *format + "`" : std::string("missing")) +
                                "; needed is `raingauge-plan` (is this a capture?)");
  }
  const auto version =
      hdf5::required(hdf5::read_integers(source.file.get(), "version", source.path), "version",
                     "format version", source.path);
  if (version.empty() || version.front() != kPlanVersion) {
    hdf5::fail(source.path, "plan format version " +
                                (version.empty() ? "(empty)" : std::to_string(version.front())) +
                                " is unknown; this program reads version 1");
  }
}

std::string read_text(const Source& source, const char* name, std::vector<std::string>& warnings) {
  try {
    return hdf5::read_string(source.file.get(), name, source.path).value_or("");
  } catch (const Error& error) {
    warnings.push_back(std::string(error.what()) + "; it is not used");
    return "";
  }
}

void read_attributes(const Source& source, PlanFile& result) {
  result.capture = read_text(source, "capture", result.warnings);
  result.arm = read_text(source, "arm", result.warnings);
  result.method = read_text(source, "method", result.warnings);
  try {  // the number, as an integer or as text
    const auto number = hdf5::read_integer_texts(source.file.get(), "record", source.path);
    if (number && number->size() == 1) result.record = number->front();
  } catch (const Error&) {
    result.record = read_text(source, "record", result.warnings);
  }
}

void read_densities(const Source& source, const std::uint8_t* key_valid, PlanFile& result) {
  result.density = measure_density(result.plan, key_valid);
  compare_density(source, "density_pairs", result.density.pairs, result.warnings);
  compare_density(source, "density_blocks", result.density.blocks, result.warnings);
  result.nominal_density =
      read_per_head(source, "nominal_density", result.heads.size(), result.warnings);
  if (result.nominal_density.empty()) {
    result.nominal_density.assign(result.heads.size(), std::numeric_limits<double>::quiet_NaN());
  }
  const double first = result.nominal_density.front();
  const bool same = std::all_of(result.nominal_density.begin(), result.nominal_density.end(),
                                [&](double d) { return d == first; });
  if (same) result.plan.nominal_density = first;
}

// The file's content, unchecked.
PlanFile read_content(const Source& source) {
  PlanFile result;
  check_format(source);
  read_attributes(source, result);
  result.heads = read_heads(source);
  Plan& plan = result.plan;
  plan.heads = static_cast<std::int64_t>(result.heads.size());
  plan.q_order = read_orders(source, "q_order", plan.heads);
  plan.k_order = read_orders(source, "k_order", plan.heads);
  plan.tokens = plan.q_order.tokens;
  plan.q_blocks = read_layout(source, "q_offsets", plan.heads);
  plan.k_blocks = read_layout(source, "k_offsets", plan.heads);
  plan.lists = read_lists(source, plan.heads, plan.q_blocks.blocks);
  for (const char* name : {"density_pairs", "density_blocks", "nominal_density"}) {
    std::vector<std::string> unused;
    read_per_head(source, name, result.heads.size(), unused);
  }
  return result;
}

Source open_source(const std::string& path) {
  Source source{path, hdf5::open_file(path), 0};
  source.size = static_cast<std::int64_t>(std::filesystem::file_size(path));
  return source;
}

}  // namespace

PlanFile read_plan(const std::string& path, const std::uint8_t* key_valid) {
  const hdf5::Session session;
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  check_trial(try_isolated([&] { read_content(open_source(path)); },
                           metadata_seconds(error ? 0 : static_cast<std::int64_t>(bytes)), false),
              path);
  const Source source = open_source(path);
  PlanFile result = read_content(source);
  try {
    check_plan(result.plan, key_valid);
  } catch (const InvalidPlan& breach) {
    throw InvalidPlan(path + ": " + breach.what());
  }
  read_densities(source, key_valid, result);
  return result;
}

}  // namespace raingauge
