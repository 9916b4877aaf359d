// SPDX-License-Identifier: Apache-2.0
// [heads, tokens, head_dim] datasets of f32, f16 or bf16 as raw bits: the library never converts an
// element. Included by the sources in data/ only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/dtype.h"
#include "data/hdf5_util.h"
#include "data/isolated.h"

namespace raingauge::hdf5 {

struct TensorDataset {
  Handle dataset;
  Handle type;  // as stored
  std::string where;
  DType dtype = DType::f32;
  bool swap_bytes = false;  // stored in the other byte order
  bool chunked = false;
  std::int64_t heads = 0;
  std::int64_t tokens = 0;
  std::int64_t head_dim = 0;
  // Byte address in the file of contiguous elements; `mappable` when they lie there exactly as in
  // memory: aligned, in this machine's byte order.
  std::optional<std::int64_t> address;
  bool mappable = false;

  std::int64_t head_elements() const { return tokens * head_dim; }
};

// Opens and checks: rank 3, an element type of ours (or uint16 with attribute dtype="bfloat16" on
// the dataset or on `parent`), plausible extents, every byte stored and inside a file of
// `file_size` bytes. The elements are not read.
TensorDataset open_tensor(hid_t parent, const std::string& name, const std::string& where,
                          std::int64_t file_size);

// Heads into `target` [indices, tokens, head_dim], in the byte order of this machine. Contiguous
// ones come straight out of the file at `path`, others through the library in an isolated process.
void read_heads(const TensorDataset& tensor, const std::vector<std::int64_t>& indices,
                const std::string& path, const SharedBuffer& target);

// A uint8 [frames, height, width, 3] dataset, checked likewise.
struct ByteDataset {
  Handle dataset;
  std::vector<std::int64_t> dims;
};
ByteDataset open_bytes(hid_t parent, const std::string& name, const std::string& where,
                       std::int64_t file_size);

struct Storage {
  bool gzip = false;  // chunks (1, 4096, head_dim), shuffle + gzip-1; otherwise contiguous
};

TensorDataset create_tensor(hid_t parent, const std::string& name, const std::string& where,
                            DType dtype, std::int64_t heads, std::int64_t tokens,
                            std::int64_t head_dim, const Storage& storage);
void write_head(const TensorDataset& tensor, std::int64_t head, const void* source);

// Throws unless every byte of a dataset of `bytes` is stored, in this file: nothing virtual,
// external or never written. Returns true when it is chunked.
bool check_storage(hid_t dataset, std::int64_t bytes, const std::string& where,
                   std::int64_t file_size);

}  // namespace raingauge::hdf5
