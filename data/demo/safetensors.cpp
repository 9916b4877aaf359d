// SPDX-License-Identifier: Apache-2.0
#include "data/demo/safetensors.h"

#include <ATen/ATen.h>

#include <vector>

#include "data/array_file.h"
#include "data/error.h"
#include "data/mapped_file.h"

namespace raingauge::demo {
namespace {

at::ScalarType scalar_type(const std::string& name) {
  if (name == "F32") return at::kFloat;
  if (name == "BF16") return at::kBFloat16;
  throw Error("dtype " + name + ", allowed are F32 and BF16");
}

std::string dtype_name(at::ScalarType type) {
  if (type == at::kFloat) return "F32";
  if (type == at::kBFloat16) return "BF16";
  throw Error(std::string("dtype ") + at::toString(type) + ", allowed are F32 and BF16");
}

}  // namespace

TensorFile read_tensors(const std::filesystem::path& path) {
  const ArrayFile stored = open_safetensors(path.string());
  TensorFile file;
  file.metadata = stored.metadata;
  for (const StoredArray& array : stored.arrays) {
    try {
      at::Tensor tensor = at::empty(array.shape, scalar_type(array.type));
      read_file_range(stored.path, array.offset, array.bytes, tensor.mutable_data_ptr());
      file.tensors.emplace(array.name, std::move(tensor));
    } catch (const Error& error) {
      throw Error(path.string() + ": tensor '" + array.name + "': " + error.what());
    }
  }
  return file;
}

void write_tensors(const std::filesystem::path& path, const TensorFile& file) {
  std::vector<StoredArray> arrays;
  for (const auto& [name, tensor] : file.tensors) {
    arrays.push_back({name, dtype_name(tensor.scalar_type()), tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path.string(), arrays, file.metadata);
  for (const auto& [name, tensor] : file.tensors) {
    const at::Tensor host = tensor.detach().cpu().contiguous();
    writer.write(host.const_data_ptr(), static_cast<std::int64_t>(host.nbytes()));
  }
  writer.finish();
}

}  // namespace raingauge::demo
