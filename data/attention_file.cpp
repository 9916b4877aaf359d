// SPDX-License-Identifier: Apache-2.0
#include "data/attention_file.h"

#include <filesystem>

#include "data/error.h"
#include "data/hdf5_tensor.h"
#include "data/hdf5_util.h"
#include "data/isolated.h"

namespace raingauge {
namespace {

void write_dataset(hid_t file, const char* name, hid_t stored, hid_t memory, const void* data,
                   const std::vector<hsize_t>& dims, const std::string& path) {
  const auto space = hdf5::check(
      H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), path, "dataspace");
  const auto dataset = hdf5::check(
      H5Dcreate2(file, name, stored, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), path,
      "cannot create a dataset");
  hdf5::check_status(H5Dwrite(dataset.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), path,
                     "cannot write (no space left?)");
}

}  // namespace

void write_attention_file(const std::string& path, const AttentionFile& file) {
  const hdf5::Session session;
  const auto handle = hdf5::check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                                  path, "cannot create");
  hdf5::write_string(handle.get(), "format", "raingauge-attention", path);
  hdf5::write_integer(handle.get(), "version", 1, path);
  for (const auto& [name, value] : file.attributes) {
    hdf5::write_string(handle.get(), name.c_str(), value, path);
  }
  const auto h = static_cast<hsize_t>(file.heads);
  const auto n = static_cast<hsize_t>(file.tokens);
  const auto d = static_cast<hsize_t>(file.head_dim);
  write_dataset(handle.get(), "o", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, file.o.data(), {h, n, d},
                path);
  if (!file.lse.empty()) {
    write_dataset(handle.get(), "lse", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, file.lse.data(), {h, n},
                  path);
  }
  write_dataset(handle.get(), "heads", H5T_STD_I32LE, H5T_NATIVE_INT, file.head_numbers.data(), {h},
                path);
}

AttentionFile read_attention_file(const std::string& path) {
  const hdf5::Session session;
  std::error_code error;
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path, error));
  AttentionFile file;
  const auto read = [&] {
    const auto handle = hdf5::open_file(path);
    const auto o = hdf5::open_tensor(handle.get(), "o", path, error ? 0 : size);
    file.heads = o.heads;
    file.tokens = o.tokens;
    file.head_dim = o.head_dim;
    std::vector<std::int64_t> all(static_cast<std::size_t>(o.heads));
    for (std::size_t h = 0; h < all.size(); ++h) all[h] = static_cast<std::int64_t>(h);
    const auto elements = static_cast<std::size_t>(o.heads * o.head_elements());
    const SharedBuffer bits(static_cast<std::int64_t>(elements * size_of(o.dtype)));
    hdf5::read_heads(o, all, path, bits);
    file.o.resize(elements);
    convert_to_float(bits.data(), o.dtype, file.o.data(), elements);
  };
  const Trial trial = try_isolated(
      [&] {
        const auto handle = hdf5::open_file(path);
        hdf5::open_tensor(handle.get(), "o", path, error ? 0 : size);
      },
      metadata_seconds(error ? 0 : size), false);
  check_trial(trial, path);
  read();
  return file;
}

}  // namespace raingauge
