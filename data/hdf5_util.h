// SPDX-License-Identifier: Apache-2.0
// The HDF5 library behind handles that close themselves, with its error stack turned into the text
// of an Error. Included by the sources in data/ only.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace raingauge::hdf5 {

// The library keeps global state and may be built without locks: every use of it happens while a
// Session lives. It also keeps the library from printing. Sessions nest.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
};

// Owns any kind of identifier: file, group, dataset, type, dataspace, attribute, property list.
class Handle {
 public:
  Handle() = default;
  explicit Handle(hid_t id) : id_(id) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle();

  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_ = H5I_INVALID_HID;
};

// Throws Error("<where>: <what>") with the library's innermost message appended and its stack
// cleared.
[[noreturn]] void fail(const std::string& where, const std::string& what);
Handle check(hid_t id, const std::string& where, const char* what);
void check_status(herr_t status, const std::string& where, const char* what);

// Opens for reading. Says which of the usual causes it is: missing, a directory, not HDF5,
// truncated, locked by a writer.
Handle open_file(const std::string& path);

bool has_link(hid_t parent, const std::string& name);
Handle open_group(hid_t parent, const std::string& name, const std::string& where);
Handle open_dataset(hid_t parent, const std::string& name, const std::string& where);
std::vector<std::string> link_names(hid_t group, const std::string& where);  // ascending

// Extent of a simple dataspace; empty for a scalar. Throws when its rank is above 8.
std::vector<std::int64_t> extent(hid_t space, const std::string& where);

// Attributes. `where` names the object for messages. Absent: nullopt. Present with a type or shape
// that the kind does not allow: Error naming the attribute.
bool has_attribute(hid_t object, const char* name);
std::optional<std::string> read_string(hid_t object, const char* name, const std::string& where);
// Integer, enum, or bit field of 1 to 8 bytes; decimal text, so that no width overflows.
std::optional<std::vector<std::string>> read_integer_texts(hid_t object, const char* name,
                                                           const std::string& where);
std::optional<std::vector<std::int64_t>> read_integers(hid_t object, const char* name,
                                                       const std::string& where);
std::optional<std::int64_t> read_integer(hid_t object, const char* name, const std::string& where);
std::optional<double> read_real(hid_t object, const char* name, const std::string& where);

// Value of a required attribute; throws naming it and what it must hold.
template <typename T>
T required(std::optional<T> value, const char* name, const char* meaning,
           const std::string& where) {
  if (!value) {
    fail(where, std::string("required attribute `") + name + "` (" + meaning + ") is missing");
  }
  return *std::move(value);
}

// An int64 that must lie in [low, high]; throws naming what and where.
int narrow(std::int64_t value, std::int64_t low, std::int64_t high, const char* name,
           const std::string& where);

void write_string(hid_t object, const char* name, const std::string& value,
                  const std::string& where);
void write_integer(hid_t object, const char* name, std::int64_t value, const std::string& where);
void write_integers(hid_t object, const char* name, const std::vector<int>& values,
                    const std::string& where);
void write_real(hid_t object, const char* name, double value, const std::string& where);
// Decimal text of read_integer_texts(): int64 or, above its range, uint64. False: not an integer.
bool write_integer_text(hid_t object, const char* name, const std::string& text,
                        const std::string& where);

// A uint8 dataset; `gzip`: one chunk per index of the first dimension, shuffle-free gzip-1.
void write_bytes(hid_t parent, const char* name, const std::vector<std::int64_t>& dims,
                 const std::uint8_t* data, const std::string& where, bool gzip);

bool valid_utf8(const std::string& text);

}  // namespace raingauge::hdf5
