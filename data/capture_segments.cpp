// SPDX-License-Identifier: Apache-2.0
// The dataset `segments`: a compound {role, start, length, frames, height, width} in sequence
// order. Integers may have any width and the role may be a fixed or a variable string.
#include <array>
#include <climits>
#include <cstddef>
#include <cstring>

#include "data/capture_detail.h"
#include "data/error.h"

namespace raingauge::hdf5 {
namespace {

constexpr std::int64_t kMaxSegments = 65536;
constexpr std::size_t kMaxRoleBytes = 256;  // files of others may pad; ours use 16
constexpr std::array<const char*, 5> kNumbers{"start", "length", "frames", "height", "width"};

struct Numbers {
  std::array<std::int64_t, 5> values;
};

struct StoredSegment {
  char role[16];
  std::int64_t start, length;
  std::int32_t frames, height, width;
};

Handle member(hid_t compound, const char* name, const std::string& where) {
  const int index = H5Tget_member_index(compound, name);
  if (index < 0) {
    fail(where, std::string("has no member `") + name +
                    "`; needed are role, start, length, frames, height, width");
  }
  return check(H5Tget_member_type(compound, static_cast<unsigned>(index)), where,
               "its type cannot be read");
}

std::vector<Numbers> read_numbers(hid_t dataset, hid_t type, std::size_t count,
                                  const std::string& where) {
  const Handle memory =
      check(H5Tcreate(H5T_COMPOUND, sizeof(Numbers)), where, "cannot make a compound type");
  for (std::size_t i = 0; i < kNumbers.size(); ++i) {
    const Handle stored = member(type, kNumbers[i], where);
    if (H5Tget_class(stored.get()) != H5T_INTEGER) {
      fail(where, std::string("member `") + kNumbers[i] + "` is not an integer");
    }
    check_status(H5Tinsert(memory.get(), kNumbers[i], i * sizeof(std::int64_t), H5T_NATIVE_INT64),
                 where, "cannot make a compound type");
  }
  std::vector<Numbers> numbers(count);
  check_status(H5Dread(dataset, memory.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers.data()), where,
               "cannot be read");
  return numbers;
}

std::vector<std::string> read_variable_roles(hid_t dataset, hid_t compound, std::size_t count,
                                             const std::string& where) {
  std::vector<char*> texts(count, nullptr);
  const bool read = H5Dread(dataset, compound, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                            static_cast<void*>(texts.data())) >= 0;
  std::vector<std::string> roles;
  for (const char* text : texts) roles.emplace_back(read && text != nullptr ? text : "");
  const Handle space(H5Dget_space(dataset));
  H5Dvlen_reclaim(compound, space.get(), H5P_DEFAULT, static_cast<void*>(texts.data()));
  if (!read) fail(where, "its roles cannot be read");
  return roles;
}

std::vector<std::string> read_roles(hid_t dataset, hid_t type, std::size_t count,
                                    const std::string& where) {
  const Handle role = member(type, "role", where);
  const std::size_t size = H5Tget_size(role.get());
  const bool variable = H5Tis_variable_str(role.get()) > 0;
  if (H5Tget_class(role.get()) != H5T_STRING || (!variable && size > kMaxRoleBytes)) {
    fail(where, "member `role` is not a string of up to 256 bytes");
  }
  const Handle memory = check(H5Tcreate(H5T_COMPOUND, variable ? sizeof(char*) : size), where,
                              "cannot make a compound type");
  check_status(H5Tinsert(memory.get(), "role", 0, role.get()), where,
               "cannot make a compound type");
  if (variable) return read_variable_roles(dataset, memory.get(), count, where);
  std::string bytes(count * size, '\0');
  check_status(H5Dread(dataset, memory.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), where,
               "its roles cannot be read");
  std::vector<std::string> roles;
  for (std::size_t i = 0; i < count; ++i) {
    std::string text = bytes.substr(i * size, size);
    text.resize(std::strlen(text.c_str()));
    text.erase(text.find_last_not_of(' ') + 1);
    roles.push_back(text);
  }
  return roles;
}

Segment to_segment(const std::string& role, const Numbers& numbers, const std::string& where) {
  Segment segment;
  try {
    segment.role = parse_role(role);
  } catch (const Error& error) {
    throw Error(where + ": " + error.what());
  }
  // Bounds that keep start + length and the grid products inside 64 bits; check_segments() does
  // the rest.
  segment.start = narrow(numbers.values[0], 0, INT_MAX, "start", where);
  segment.length = narrow(numbers.values[1], 0, INT_MAX, "length", where);
  segment.frames = narrow(numbers.values[2], 0, INT_MAX, "frames", where);
  segment.height = narrow(numbers.values[3], 0, INT_MAX, "height", where);
  segment.width = narrow(numbers.values[4], 0, INT_MAX, "width", where);
  return segment;
}

Handle stored_type(const std::string& where) {
  const Handle role = check(H5Tcopy(H5T_C_S1), where, "cannot make a string type");
  check_status(H5Tset_size(role.get(), sizeof(StoredSegment::role)), where,
               "cannot make a string type");
  check_status(H5Tset_strpad(role.get(), H5T_STR_NULLPAD), where, "cannot make a string type");
  Handle type =
      check(H5Tcreate(H5T_COMPOUND, sizeof(StoredSegment)), where, "cannot make a compound type");
  const bool made =
      H5Tinsert(type.get(), "role", offsetof(StoredSegment, role), role.get()) >= 0 &&
      H5Tinsert(type.get(), "start", offsetof(StoredSegment, start), H5T_STD_I64LE) >= 0 &&
      H5Tinsert(type.get(), "length", offsetof(StoredSegment, length), H5T_STD_I64LE) >= 0 &&
      H5Tinsert(type.get(), "frames", offsetof(StoredSegment, frames), H5T_STD_I32LE) >= 0 &&
      H5Tinsert(type.get(), "height", offsetof(StoredSegment, height), H5T_STD_I32LE) >= 0 &&
      H5Tinsert(type.get(), "width", offsetof(StoredSegment, width), H5T_STD_I32LE) >= 0;
  if (!made) fail(where, "cannot make a compound type");
  return type;
}

}  // namespace

Segments read_segments(hid_t record, const std::string& where) {
  const Handle dataset = open_dataset(record, "segments", where);
  const Handle type = check(H5Dget_type(dataset.get()), where, "its type cannot be read");
  const Handle space = check(H5Dget_space(dataset.get()), where, "its extent cannot be read");
  if (H5Tget_class(type.get()) != H5T_COMPOUND) {
    fail(where, "is not a compound {role, start, length, frames, height, width}");
  }
  const auto dims = extent(space.get(), where);
  if (dims.size() != 1 || dims[0] > kMaxSegments) {
    fail(where, "must be one-dimensional with at most 65536 elements");
  }
  const auto count = static_cast<std::size_t>(dims[0]);
  Segments segments;
  if (count == 0) return segments;
  const auto numbers = read_numbers(dataset.get(), type.get(), count, where);
  const auto roles = read_roles(dataset.get(), type.get(), count, where);
  for (std::size_t i = 0; i < count; ++i) {
    segments.push_back(to_segment(roles[i], numbers[i], where));
  }
  return segments;
}

void write_segments(hid_t record, const Segments& segments, const std::string& where) {
  std::vector<StoredSegment> stored(segments.size());
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    const auto role = name_of(s.role);
    std::memset(&stored[i], 0, sizeof stored[i]);
    std::memcpy(stored[i].role, role.data(), role.size());
    stored[i].start = s.start;
    stored[i].length = s.length;
    stored[i].frames = s.frames;
    stored[i].height = s.height;
    stored[i].width = s.width;
  }
  const Handle type = stored_type(where);
  const hsize_t dims[1] = {stored.size()};
  const Handle space = check(H5Screate_simple(1, dims, nullptr), where, "cannot make a dataspace");
  const Handle dataset = check(H5Dcreate2(record, "segments", type.get(), space.get(), H5P_DEFAULT,
                                          H5P_DEFAULT, H5P_DEFAULT),
                               where, "`segments` cannot be created");
  check_status(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, stored.data()),
               where, "`segments` cannot be written; is there space left on the device?");
}

}  // namespace raingauge::hdf5
