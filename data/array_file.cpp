// SPDX-License-Identifier: Apache-2.0
#include "data/array_file.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/dtype.h"
#include "data/error.h"
#include "data/mapped_file.h"

namespace raingauge {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr std::int64_t kPrefixBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::size_t kAlignment = 8;                   // of the data, by padding the header
constexpr std::size_t kMaxDims = 8;

std::int64_t file_bytes(const std::string& path) {
  std::error_code error;
  const bool regular = std::filesystem::is_regular_file(path, error);
  const auto size = regular ? std::filesystem::file_size(path, error) : 0;
  if (!regular || error) throw Error(path + ": cannot be opened");
  return static_cast<std::int64_t>(size);
}

// Divides rather than multiplies: a hostile shape must not overflow into a match.
void check_bytes(const StoredArray& array) {
  const std::int64_t element = size_of_type(array.type);
  std::int64_t rest = array.bytes / element;
  bool fits = array.bytes % element == 0 && array.shape.size() <= kMaxDims;
  for (const std::int64_t extent : array.shape) {
    fits = fits && extent > 0 && rest % extent == 0;
    if (!fits) break;
    rest /= extent;
  }
  if (!fits || rest != 1) {
    throw Error("the shape does not fit its " + std::to_string(array.bytes) + " bytes of data");
  }
}

json read_header(const std::string& path, std::int64_t size, std::int64_t& data_start) {
  std::uint64_t length = 0;
  if (size < kPrefixBytes) throw Error(path + ": too short for a safetensors file");
  read_file_range(path, 0, kPrefixBytes, &length);
  if (length > kMaxHeaderBytes || length > static_cast<std::uint64_t>(size - kPrefixBytes)) {
    throw Error(path + ": the header claims " + std::to_string(length) + " bytes, the file has " +
                std::to_string(size) + ": truncated or no safetensors");
  }
  data_start = kPrefixBytes + static_cast<std::int64_t>(length);
  std::string text(length, '\0');
  read_file_range(path, kPrefixBytes, static_cast<std::int64_t>(length), text.data());
  json header = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) throw Error(path + ": the header is no JSON object");
  return header;
}

StoredArray read_entry(const std::string& name, const json& entry, std::int64_t data_start,
                       std::int64_t available) {
  StoredArray array;
  array.name = name;
  array.type = entry.at("dtype").get<std::string>();
  array.shape = entry.at("shape").get<std::vector<std::int64_t>>();
  const auto offsets = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
  if (offsets.size() != 2 || offsets[0] > offsets[1] ||
      offsets[1] > static_cast<std::uint64_t>(available)) {
    throw Error("data offsets outside the file's " + std::to_string(available) +
                " bytes of data: truncated?");
  }
  array.offset = data_start + static_cast<std::int64_t>(offsets[0]);
  array.bytes = static_cast<std::int64_t>(offsets[1] - offsets[0]);
  check_bytes(array);
  return array;
}

template <typename T>
void widen(const std::vector<char>& bytes, std::vector<double>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<double>(value);
    if constexpr (sizeof(T) == 8 && std::is_integral_v<T>) {
      if (std::abs(values[i]) > 9007199254740992.0) {
        throw Error("holds the integer " + std::to_string(value) + ", which a double cannot");
      }
    }
  }
}

void widen_half(const std::vector<char>& bytes, DType dtype, std::vector<double>& values) {
  std::vector<float> floats(values.size());
  convert_to_float(bytes.data(), dtype, floats.data(), floats.size());
  std::copy(floats.begin(), floats.end(), values.begin());
}

using Widen = void (*)(const std::vector<char>&, std::vector<double>&);

struct TypeEntry {
  const char* name;
  std::int64_t bytes;
  Widen widen;
};

constexpr TypeEntry kTypes[] = {
    {"F32", 4, &widen<float>},
    {"F64", 8, &widen<double>},
    {"F16", 2, [](const auto& b, auto& v) { widen_half(b, DType::f16, v); }},
    {"BF16", 2, [](const auto& b, auto& v) { widen_half(b, DType::bf16, v); }},
    {"BOOL", 1, &widen<std::uint8_t>},
    {"U8", 1, &widen<std::uint8_t>},
    {"I8", 1, &widen<std::int8_t>},
    {"U16", 2, &widen<std::uint16_t>},
    {"I16", 2, &widen<std::int16_t>},
    {"U32", 4, &widen<std::uint32_t>},
    {"I32", 4, &widen<std::int32_t>},
    {"U64", 8, &widen<std::uint64_t>},
    {"I64", 8, &widen<std::int64_t>}};

const TypeEntry& find_type(std::string_view name) {
  for (const TypeEntry& type : kTypes) {
    if (type.name == name) return type;
  }
  std::string known;
  for (const TypeEntry& type : kTypes) known += std::string(known.empty() ? "" : " ") + type.name;
  throw Error("dtype " + std::string(name) + ", allowed are " + known);
}

}  // namespace

std::int64_t StoredArray::elements() const { return bytes / size_of_type(type); }

std::int64_t size_of_type(std::string_view type) { return find_type(type).bytes; }

ArrayFile open_safetensors(const std::string& path) {
  const std::int64_t size = file_bytes(path);
  std::int64_t data_start = 0;
  const json header = read_header(path, size, data_start);
  ArrayFile file{path, {}, {}};
  for (const auto& [name, entry] : header.items()) {
    try {
      if (name == "__metadata__") {
        file.metadata = entry.get<std::map<std::string, std::string>>();
      } else {
        file.arrays.push_back(read_entry(name, entry, data_start, size - data_start));
      }
    } catch (const json::exception&) {
      throw Error(path + ": the header's entry '" + name + "' is malformed");
    } catch (const Error& error) {
      throw Error(path + ": tensor '" + name + "': " + error.what());
    }
  }
  return file;
}

ArrayFile open_arrays(const std::string& path) {
  if (path.ends_with(".safetensors")) return open_safetensors(path);
  if (path.ends_with(".npy")) return open_npy(path);
  throw Error(path + ": must end in .safetensors or .npy");
}

const StoredArray& find_array(const ArrayFile& file, const std::string& name) {
  std::string known;
  for (const StoredArray& array : file.arrays) {
    if (array.name == name) return array;
    known += (known.empty() ? "" : ", ") + array.name;
  }
  throw Error(file.path + ": there is no tensor '" + name + "'; there are: " + known);
}

std::vector<double> read_elements(const ArrayFile& file, const StoredArray& array,
                                  std::int64_t first, std::int64_t count) {
  const TypeEntry& type = find_type(array.type);
  if (first < 0 || count < 0 || first + count > array.elements()) {
    throw Error(file.path + ": elements beyond the end of '" + array.name + "'");
  }
  std::vector<char> bytes(static_cast<std::size_t>(count * type.bytes));
  read_file_range(file.path, array.offset + first * type.bytes,
                  static_cast<std::int64_t>(bytes.size()), bytes.data());
  std::vector<double> values(static_cast<std::size_t>(count));
  try {
    type.widen(bytes, values);
  } catch (const Error& error) {
    throw Error(file.path + ": '" + array.name + "' " + error.what());
  }
  return values;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path,
                                     const std::vector<StoredArray>& arrays,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  for (const StoredArray& array : arrays) {
    std::int64_t bytes = size_of_type(array.type);
    for (const std::int64_t extent : array.shape) bytes *= extent;
    header[array.name] = {
        {"dtype", array.type}, {"shape", array.shape}, {"data_offsets", {left_, left_ + bytes}}};
    left_ += bytes;
  }
  std::string text = header.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  const std::uint64_t length = text.size();
  stream_.open(path + ".partial", std::ios::binary);
  stream_.write(reinterpret_cast<const char*>(&length), kPrefixBytes);
  stream_.write(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream_) throw Error(path + ": cannot be written");
}

void SafetensorsWriter::write(const void* data, std::int64_t bytes) {
  stream_.write(static_cast<const char*>(data), bytes);
  if (!stream_) throw Error(path_ + ": cannot be written; is there space left on the device?");
  left_ -= bytes;
}

void SafetensorsWriter::finish() {
  stream_.close();
  if (!stream_) throw Error(path_ + ": cannot be written; is there space left on the device?");
  if (left_ != 0) {
    throw Error(path_ + ": " + std::to_string(left_) + " bytes of its tensors are not written");
  }
  std::error_code failure;
  std::filesystem::rename(path_ + ".partial", path_, failure);
  if (failure) throw Error(path_ + ": cannot be replaced: " + failure.message());
}

}  // namespace raingauge
