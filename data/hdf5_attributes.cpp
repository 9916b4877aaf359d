// SPDX-License-Identifier: Apache-2.0
// Attributes as other programs write them: strings of fixed or variable length, integers of any
// width and byte order, booleans as integer, enum or bit field.
#include <charconv>
#include <cstring>

#include "data/error.h"
#include "data/hdf5_util.h"

namespace raingauge::hdf5 {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 26;  // of one attribute; guards allocations

struct Attribute {
  Handle id, type, space;
  std::string where;
  std::size_t count = 0;  // elements
  std::size_t size = 0;   // bytes of an element
  H5T_class_t kind = H5T_NO_CLASS;
};

std::optional<Attribute> open_attribute(hid_t object, const char* name, const std::string& where) {
  if (!has_attribute(object, name)) return std::nullopt;
  Attribute a;
  a.where = where + ": attribute `" + name + "`";
  a.id = check(H5Aopen(object, name, H5P_DEFAULT), a.where, "cannot be opened");
  a.type = check(H5Aget_type(a.id.get()), a.where, "its type cannot be read");
  a.space = check(H5Aget_space(a.id.get()), a.where, "its extent cannot be read");
  const hssize_t count = H5Sget_simple_extent_npoints(a.space.get());
  a.size = H5Tget_size(a.type.get());
  a.kind = H5Tget_class(a.type.get());
  if (count < 0 || a.size == 0 || static_cast<std::size_t>(count) > kMaxBytes / a.size) {
    fail(a.where, "is damaged or larger than 64 MiB");
  }
  a.count = static_cast<std::size_t>(count);
  return a;
}

std::string read_variable_string(const Attribute& a) {
  const Handle memory = check(H5Tcopy(a.type.get()), a.where, "its type cannot be copied");
  char* text = nullptr;
  check_status(H5Aread(a.id.get(), memory.get(), static_cast<void*>(&text)), a.where,
               "cannot be read");
  std::string result = text != nullptr ? text : "";
  H5Dvlen_reclaim(memory.get(), a.space.get(), H5P_DEFAULT, static_cast<void*>(&text));
  return result;
}

std::string read_fixed_string(const Attribute& a) {
  std::string text(a.size, '\0');
  check_status(H5Aread(a.id.get(), a.type.get(), text.data()), a.where, "cannot be read");
  if (H5Tget_strpad(a.type.get()) == H5T_STR_SPACEPAD) {
    text.erase(text.find_last_not_of(' ') + 1);
  } else {
    text.resize(std::strlen(text.c_str()));
  }
  return text;
}

// The integer type that stores the attribute: its own, or the base of an enum.
Handle integer_type(const Attribute& a) {
  Handle type = a.kind == H5T_ENUM
                    ? check(H5Tget_super(a.type.get()), a.where, "its enum cannot be read")
                    : check(H5Tcopy(a.type.get()), a.where, "its type cannot be copied");
  const H5T_class_t kind = H5Tget_class(type.get());
  const std::size_t size = H5Tget_size(type.get());
  const H5T_order_t order = H5Tget_order(type.get());
  const bool whole = H5Tget_precision(type.get()) == 8 * size;
  const bool known_order = order == H5T_ORDER_LE || order == H5T_ORDER_BE;
  if ((kind != H5T_INTEGER && kind != H5T_BITFIELD) || size > 8 || !whole || !known_order) {
    fail(a.where, "is not an integer of 8 to 64 bits, a boolean or an enum");
  }
  return type;
}

std::string decode(const unsigned char* bytes, std::size_t size, bool big_endian, bool is_signed) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    value = (value << 8) | bytes[big_endian ? i : size - 1 - i];
  }
  if (!is_signed) return std::to_string(value);
  const auto shift = static_cast<int>(64 - 8 * size);
  return std::to_string(static_cast<std::int64_t>(value << shift) >> shift);
}

Handle new_attribute(hid_t object, const char* name, hid_t type, hid_t space,
                     const std::string& where) {
  if (has_attribute(object, name)) {
    check_status(H5Adelete(object, name), where, "an old attribute cannot be replaced");
  }
  return check(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT),
               where + ": attribute `" + name + "`", "cannot be created");
}

void write_raw(hid_t object, const char* name, hid_t file_type, hid_t memory_type, hid_t space,
               const void* value, const std::string& where) {
  const Handle attribute = new_attribute(object, name, file_type, space, where);
  check_status(H5Awrite(attribute.get(), memory_type, value), where + ": attribute `" + name + "`",
               "cannot be written");
}

Handle scalar() { return check(H5Screate(H5S_SCALAR), "HDF5", "cannot make a dataspace"); }

}  // namespace

bool has_attribute(hid_t object, const char* name) {
  const htri_t found = H5Aexists(object, name);
  if (found < 0) H5Eclear2(H5E_DEFAULT);
  return found > 0;
}

std::optional<std::string> read_string(hid_t object, const char* name, const std::string& where) {
  const auto a = open_attribute(object, name, where);
  if (!a) return std::nullopt;
  if (a->kind != H5T_STRING) fail(a->where, "is not a string");
  if (a->count == 0) return "";  // an explicitly empty attribute
  if (a->count != 1) fail(a->where, "holds several strings; one is allowed");
  std::string text =
      H5Tis_variable_str(a->type.get()) > 0 ? read_variable_string(*a) : read_fixed_string(*a);
  if (!valid_utf8(text)) fail(a->where, "is not valid UTF-8");
  return text;
}

std::optional<std::vector<std::string>> read_integer_texts(hid_t object, const char* name,
                                                           const std::string& where) {
  const auto a = open_attribute(object, name, where);
  if (!a) return std::nullopt;
  const Handle type = integer_type(*a);
  std::vector<unsigned char> bytes(a->count * a->size + 1);
  if (a->count > 0) {
    check_status(H5Aread(a->id.get(), a->type.get(), bytes.data()), a->where, "cannot be read");
  }
  const bool big_endian = H5Tget_order(type.get()) == H5T_ORDER_BE;
  const bool is_signed =
      H5Tget_class(type.get()) == H5T_INTEGER && H5Tget_sign(type.get()) == H5T_SGN_2;
  std::vector<std::string> values;
  for (std::size_t i = 0; i < a->count; ++i) {
    values.push_back(decode(bytes.data() + i * a->size, a->size, big_endian, is_signed));
  }
  return values;
}

std::optional<std::vector<std::int64_t>> read_integers(hid_t object, const char* name,
                                                       const std::string& where) {
  const auto texts = read_integer_texts(object, name, where);
  if (!texts) return std::nullopt;
  std::vector<std::int64_t> values;
  for (const std::string& text : *texts) {
    std::int64_t value = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    if (result.ec != std::errc()) {
      fail(where + ": attribute `" + name + "`", "holds " + text + ", which leaves 64 signed bits");
    }
    values.push_back(value);
  }
  return values;
}

std::optional<std::int64_t> read_integer(hid_t object, const char* name, const std::string& where) {
  const auto values = read_integers(object, name, where);
  if (!values) return std::nullopt;
  if (values->size() != 1) {
    fail(where + ": attribute `" + name + "`",
         "holds " + std::to_string(values->size()) + " values; one is needed");
  }
  return values->front();
}

std::optional<double> read_real(hid_t object, const char* name, const std::string& where) {
  const auto a = open_attribute(object, name, where);
  if (!a) return std::nullopt;
  if (a->kind != H5T_FLOAT && a->kind != H5T_INTEGER) fail(a->where, "is not a number");
  if (a->count != 1) {
    fail(a->where, "holds " + std::to_string(a->count) + " values; one is needed");
  }
  double value = 0.0;  // widening to float64 is exact for every float type up to float64
  check_status(H5Aread(a->id.get(), H5T_NATIVE_DOUBLE, &value), a->where, "cannot be read");
  return value;
}

int narrow(std::int64_t value, std::int64_t low, std::int64_t high, const char* name,
           const std::string& where) {
  if (value < low || value > high) {
    fail(where, std::string("`") + name + "` is " + std::to_string(value) + "; allowed are " +
                    std::to_string(low) + " to " + std::to_string(high));
  }
  return static_cast<int>(value);
}

void write_string(hid_t object, const char* name, const std::string& value,
                  const std::string& where) {
  if (!valid_utf8(value) || value.find('\0') != std::string::npos) {
    fail(where + ": attribute `" + name + "`", "must be UTF-8 without NUL characters");
  }
  const Handle type = check(H5Tcopy(H5T_C_S1), where, "cannot make a string type");
  check_status(H5Tset_size(type.get(), H5T_VARIABLE), where, "cannot make a string type");
  check_status(H5Tset_cset(type.get(), H5T_CSET_UTF8), where, "cannot make a string type");
  const char* text = value.c_str();
  write_raw(object, name, type.get(), type.get(), scalar().get(), static_cast<const void*>(&text),
            where);
}

void write_integer(hid_t object, const char* name, std::int64_t value, const std::string& where) {
  const bool small = value >= INT32_MIN && value <= INT32_MAX;
  write_raw(object, name, small ? H5T_STD_I32LE : H5T_STD_I64LE, H5T_NATIVE_INT64, scalar().get(),
            &value, where);
}

void write_integers(hid_t object, const char* name, const std::vector<int>& values,
                    const std::string& where) {
  const hsize_t dims[1] = {values.size()};
  const Handle space = check(H5Screate_simple(1, dims, nullptr), where, "cannot make a dataspace");
  write_raw(object, name, H5T_STD_I32LE, H5T_NATIVE_INT, space.get(), values.data(), where);
}

void write_real(hid_t object, const char* name, double value, const std::string& where) {
  write_raw(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, scalar().get(), &value, where);
}

bool write_integer_text(hid_t object, const char* name, const std::string& text,
                        const std::string& where) {
  const char* end = text.data() + text.size();
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec == std::errc() && result.ptr == end) {
    write_integer(object, name, value, where);
    return true;
  }
  std::uint64_t large = 0;
  const auto unsigned_result = std::from_chars(text.data(), end, large);
  if (unsigned_result.ec != std::errc() || unsigned_result.ptr != end) return false;
  write_raw(object, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, scalar().get(), &large, where);
  return true;
}

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool valid_utf8(const std::string& text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned lead = byte(i);
    const std::size_t length = lead < 0x80U              ? 1U
                               : (lead & 0xe0U) == 0xc0U ? 2U
                               : (lead & 0xf0U) == 0xe0U ? 3U
                               : (lead & 0xf8U) == 0xf0U ? 4U
                                                         : 0U;
    if (length == 0 || i + length > text.size()) return false;
    std::uint32_t code = length == 1 ? lead : lead & (0x7fU >> length);
    for (std::size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0U) != 0x80U) return false;
      code = (code << 6) | (byte(i + k) & 0x3fU);
    }
    constexpr std::uint32_t kLowest[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < kLowest[length] || code > 0x10ffffU || (code >= 0xd800U && code <= 0xdfffU)) {
      return false;
    }
    i += length;
  }
  return true;
}

}  // namespace raingauge::hdf5
