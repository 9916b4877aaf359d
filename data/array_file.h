// SPDX-License-Identifier: Apache-2.0
// Arrays in files of other programs: safetensors and NumPy's .npy. Headers are read and checked at once,
// elements by range, so that a file larger than memory can be converted piece by piece.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace raingauge {

struct StoredArray {
  std::string name;  // of the tensor; empty in .npy
  std::string type;  // safetensors' names: F32 F16 BF16 F64 U8 I8 BOOL U16 I16 U32 I32 U64 I64
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;  // in the file
  std::int64_t bytes = 0;
  bool fortran_order = false;

  std::int64_t elements() const;
};

struct ArrayFile {
  std::string path;
  std::vector<StoredArray> arrays;              // by name
  std::map<std::string, std::string> metadata;  // safetensors only
};

std::int64_t size_of_type(std::string_view type);  // bytes an element; throws Error

// By the name's ending, .safetensors or .npy. Every offset, shape and length is checked against the
// file: a truncated or hostile one is an Error.
ArrayFile open_arrays(const std::string& path);
ArrayFile open_safetensors(const std::string& path);
ArrayFile open_npy(const std::string& path);

const StoredArray& find_array(const ArrayFile& file, const std::string& name);  // throws Error

// Elements [first, first + count) in storage order as float64. Throws Error for 64-bit integers beyond
// 2^53.
std::vector<double> read_elements(const ArrayFile& file, const StoredArray& array,
                                  std::int64_t first, std::int64_t count);

// Writes safetensors piece by piece: the arrays in the order given, their bytes one after another.
// The file takes its name at finish(); an interrupted write leaves what was there before.
class SafetensorsWriter {
 public:
  // Names, types and shapes are read from `arrays`; offsets are made.
  SafetensorsWriter(const std::string& path, const std::vector<StoredArray>& arrays,
                    const std::map<std::string, std::string>& metadata);
  void write(const void* data, std::int64_t bytes);
  void finish();  // throws Error unless every byte was written

 private:
  std::string path_;
  std::ofstream stream_;
  std::int64_t left_ = 0;
};

// The header of a .npy file, version 1: "<f4", "<u2", "|u1" … in C order.
std::string npy_header(const std::string& descr, const std::vector<std::int64_t>& shape);

}  // namespace raingauge
