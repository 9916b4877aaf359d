// SPDX-License-Identifier: Apache-2.0
// Tensor datasets as raw bits. bf16 and f16 are HDF5 floats with the fields of those formats, so
// that generic tools print the values; reads and writes pass the file's own type as the memory
// type.
#include "data/hdf5_tensor.h"

#include <algorithm>
#include <bit>
#include <climits>
#include <cstring>

#include "data/error.h"
#include "data/mapped_file.h"

namespace raingauge::hdf5 {
namespace {

// Bit positions of an IEEE-like format.
struct Fields {
  std::size_t size, sign, exponent_at, exponent_bits, mantissa_at, mantissa_bits, bias;
  friend bool operator==(const Fields&, const Fields&) = default;
};

constexpr Fields kF32{4, 31, 23, 8, 0, 23, 127};
constexpr Fields kF16{2, 15, 10, 5, 0, 10, 15};
constexpr Fields kBf16{2, 15, 7, 8, 0, 7, 127};

static_assert(std::endian::native == std::endian::little,
              "the project supports little-endian machines only");

constexpr std::int64_t kMaxHeads = 65536;
constexpr std::int64_t kMaxHeadDim = 65536;
constexpr hsize_t kChunkTokens = 4096;
// Deflate cannot shrink below 1/1032: a dataset that claims more is damaged or hostile.
constexpr std::int64_t kMaxCompression = 1100;

const Fields& fields_of(DType dtype) {
  return dtype == DType::f32 ? kF32 : dtype == DType::f16 ? kF16 : kBf16;
}

std::optional<Fields> stored_fields(hid_t type) {
  Fields f{};
  f.size = H5Tget_size(type);
  if (H5Tget_precision(type) != 8 * f.size || H5Tget_norm(type) != H5T_NORM_IMPLIED ||
      H5Tget_fields(type, &f.sign, &f.exponent_at, &f.exponent_bits, &f.mantissa_at,
                    &f.mantissa_bits) < 0) {
    return std::nullopt;
  }
  f.bias = H5Tget_ebias(type);
  return f;
}

// The attribute may be of another kind (a number, an array): then it says nothing.
bool says_bfloat16(hid_t object, const std::string& where) {
  try {
    return read_string(object, "dtype", where) == "bfloat16";
  } catch (const Error&) {
    return false;
  }
}

DType element_type(const TensorDataset& tensor, hid_t parent) {
  const hid_t type = tensor.type.get();
  const H5T_class_t kind = H5Tget_class(type);
  if (kind == H5T_FLOAT) {
    const auto fields = stored_fields(type);
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      if (fields && *fields == fields_of(dtype)) return dtype;
    }
    fail(tensor.where, "has float elements of " + std::to_string(8 * H5Tget_size(type)) +
                           " bits; allowed are f32, f16 and bf16: convert it and write it again");
  }
  if (kind == H5T_INTEGER && H5Tget_size(type) == 2 && H5Tget_sign(type) == H5T_SGN_NONE) {
    if (says_bfloat16(tensor.dataset.get(), tensor.where) || says_bfloat16(parent, tensor.where)) {
      return DType::bf16;
    }
    fail(tensor.where,
         "holds bare uint16; with the attribute dtype=\"bfloat16\" it is read as bf16 bits");
  }
  fail(tensor.where,
       "does not hold floats; allowed are f32, f16, bf16, and uint16 with the "
       "attribute dtype=\"bfloat16\"");
}

bool needs_swap(const TensorDataset& tensor) {
  const H5T_order_t order = H5Tget_order(tensor.type.get());
  if (order != H5T_ORDER_LE && order != H5T_ORDER_BE) {
    fail(tensor.where, "has a byte order that is neither little nor big endian");
  }
  return order == H5T_ORDER_BE;
}

void read_extent(TensorDataset& tensor) {
  const Handle space =
      check(H5Dget_space(tensor.dataset.get()), tensor.where, "its extent cannot be read");
  const auto dims = extent(space.get(), tensor.where);
  if (dims.size() != 3) {
    fail(tensor.where,
         "has rank " + std::to_string(dims.size()) + "; needed is [heads, tokens, head_dim]");
  }
  const bool plausible = dims[0] >= 1 && dims[0] <= kMaxHeads && dims[1] >= 1 &&
                         dims[1] <= INT_MAX && dims[2] >= 1 && dims[2] <= kMaxHeadDim;
  std::int64_t bytes = 0;
  const bool fits =
      plausible && !__builtin_mul_overflow(dims[0] * dims[1], dims[2] * std::int64_t{4}, &bytes);
  if (!fits) {
    fail(tensor.where, "has shape [" + std::to_string(dims[0]) + ", " + std::to_string(dims[1]) +
                           ", " + std::to_string(dims[2]) +
                           "]; allowed are 1 to 65536 heads, 1 to 2^31 - 1 tokens, and 1 to 65536 "
                           "elements a head");
  }
  tensor.heads = dims[0];
  tensor.tokens = dims[1];
  tensor.head_dim = dims[2];
}

std::int64_t total_bytes(const TensorDataset& tensor) {
  return tensor.heads * tensor.head_elements() * static_cast<std::int64_t>(size_of(tensor.dtype));
}

// Chunks that the extent needs, or -1 when the layout cannot be read.
std::int64_t chunks_needed(hid_t dataset, hid_t creation) {
  const Handle space(H5Dget_space(dataset));
  hsize_t dims[H5S_MAX_RANK] = {};
  hsize_t chunk[H5S_MAX_RANK] = {};
  const int rank = H5Sget_simple_extent_dims(space.get(), dims, nullptr);
  if (rank < 1 || H5Pget_chunk(creation, H5S_MAX_RANK, chunk) != rank) return -1;
  std::int64_t chunks = 1;
  for (int i = 0; i < rank; ++i) {
    if (chunk[i] == 0) return -1;
    const auto along = static_cast<std::int64_t>((dims[i] + chunk[i] - 1) / chunk[i]);
    if (__builtin_mul_overflow(chunks, along, &chunks)) return -1;
  }
  return chunks;
}

void check_chunks(hid_t dataset, hid_t creation, std::int64_t bytes, const std::string& where) {
  const std::int64_t needed = chunks_needed(dataset, creation);
  const Handle space = check(H5Dget_space(dataset), where, "its extent cannot be read");
  hsize_t stored = 0;
  check_status(H5Dget_num_chunks(dataset, space.get(), &stored), where,
               "its chunks cannot be counted");
  if (needed < 0 || stored != static_cast<hsize_t>(needed)) {
    fail(where, "has " + std::to_string(stored) + " of " + std::to_string(needed) +
                    " chunks: it was never written completely");
  }
  const auto size = static_cast<std::int64_t>(H5Dget_storage_size(dataset));
  if (size <= 0 || bytes / kMaxCompression > size) {
    fail(where, "claims " + std::to_string(bytes) + " bytes out of " + std::to_string(size) +
                    " stored ones, which no supported compression can give");
  }
}

// Selects one head in the file and gives a memory space of the same shape.
Handle select_head(const TensorDataset& tensor, hid_t file_space, std::int64_t head) {
  const hsize_t start[3] = {static_cast<hsize_t>(head), 0, 0};
  const hsize_t count[3] = {1, static_cast<hsize_t>(tensor.tokens),
                            static_cast<hsize_t>(tensor.head_dim)};
  check_status(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, nullptr, count, nullptr),
               tensor.where, "a head cannot be selected");
  return check(H5Screate_simple(3, count, nullptr), tensor.where, "cannot make a dataspace");
}

void swap_elements(void* data, std::size_t count, std::size_t size) {
  auto* bytes = static_cast<unsigned char*>(data);
  for (std::size_t i = 0; i < count; ++i) std::reverse(bytes + i * size, bytes + (i + 1) * size);
}

void read_head(const TensorDataset& tensor, std::int64_t head, void* target) {
  const Handle space =
      check(H5Dget_space(tensor.dataset.get()), tensor.where, "its extent cannot be read");
  const Handle memory = select_head(tensor, space.get(), head);
  check_status(
      H5Dread(tensor.dataset.get(), tensor.type.get(), memory.get(), space.get(), H5P_DEFAULT,
              target),
      tensor.where,
      "cannot be read; the file is damaged or uses a filter that this build lacks (gzip and "
      "shuffle are always there)");
}

Handle float_type(DType dtype, const std::string& where) {
  Handle type = check(H5Tcopy(H5T_IEEE_F32LE), where, "cannot make a float type");
  const Fields& f = fields_of(dtype);
  // Fields before size: the library refuses fields outside the size it has at the time.
  const bool made = H5Tset_fields(type.get(), f.sign, f.exponent_at, f.exponent_bits, f.mantissa_at,
                                  f.mantissa_bits) >= 0 &&
                    H5Tset_size(type.get(), f.size) >= 0 && H5Tset_ebias(type.get(), f.bias) >= 0;
  if (!made) fail(where, "cannot make a float type");
  return type;
}

Handle creation_list(const TensorDataset& tensor, const Storage& storage) {
  Handle list = check(H5Pcreate(H5P_DATASET_CREATE), tensor.where, "cannot make a property list");
  // Every byte is written by us: filling first would write everything twice.
  bool made = H5Pset_fill_time(list.get(), H5D_FILL_TIME_NEVER) >= 0;
  if (storage.gzip) {
    const hsize_t chunk[3] = {1, std::min(kChunkTokens, static_cast<hsize_t>(tensor.tokens)),
                              static_cast<hsize_t>(tensor.head_dim)};
    made = made && H5Pset_chunk(list.get(), 3, chunk) >= 0 && H5Pset_shuffle(list.get()) >= 0 &&
           H5Pset_deflate(list.get(), 1) >= 0;
  }
  if (!made) fail(tensor.where, "its storage cannot be set up");
  return list;
}

}  // namespace

bool check_storage(hid_t dataset, std::int64_t bytes, const std::string& where,
                   std::int64_t file_size) {
  const Handle creation = check(H5Dget_create_plist(dataset), where, "its storage cannot be read");
  const H5D_layout_t layout = H5Pget_layout(creation.get());
  if (H5Pget_external_count(creation.get()) != 0 || layout == H5D_VIRTUAL) {
    fail(where, "keeps its elements in other files; copy them into this one (h5repack)");
  }
  if (layout == H5D_CHUNKED) {
    check_chunks(dataset, creation.get(), bytes, where);
    return true;
  }
  const auto stored = static_cast<std::int64_t>(H5Dget_storage_size(dataset));
  if (stored != bytes) {
    fail(where, "stores " + std::to_string(stored) + " of " + std::to_string(bytes) +
                    " bytes: it was never written completely");
  }
  if (layout == H5D_CONTIGUOUS) {
    const haddr_t address = H5Dget_offset(dataset);
    if (address == HADDR_UNDEF || bytes > file_size ||
        address > static_cast<haddr_t>(file_size - bytes)) {
      fail(where, "lies beyond the end of the file, which is truncated; copy or record it again");
    }
  }
  return false;
}

TensorDataset open_tensor(hid_t parent, const std::string& name, const std::string& where,
                          std::int64_t file_size) {
  TensorDataset tensor;
  tensor.where = where + "/" + name;
  tensor.dataset = open_dataset(parent, name, tensor.where);
  tensor.type =
      check(H5Dget_type(tensor.dataset.get()), tensor.where, "its element type cannot be read");
  tensor.dtype = element_type(tensor, parent);
  tensor.swap_bytes = needs_swap(tensor);
  read_extent(tensor);
  tensor.chunked =
      check_storage(tensor.dataset.get(), total_bytes(tensor), tensor.where, file_size);
  const haddr_t address = tensor.chunked ? HADDR_UNDEF : H5Dget_offset(tensor.dataset.get());
  H5Eclear2(H5E_DEFAULT);  // compact datasets have no address, which is no error here
  if (address == HADDR_UNDEF) return tensor;
  tensor.address = static_cast<std::int64_t>(address);
  tensor.mappable = address % size_of(tensor.dtype) == 0 && !tensor.swap_bytes;
  return tensor;
}

void read_heads(const TensorDataset& tensor, const std::vector<std::int64_t>& indices,
                const std::string& path, const SharedBuffer& target) {
  const auto elements = static_cast<std::size_t>(tensor.head_elements());
  const std::size_t bytes = elements * size_of(tensor.dtype);
  if (tensor.address) {
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const auto size = static_cast<std::int64_t>(bytes);
      read_file_range(path, *tensor.address + indices[i] * size, size, target.data() + i * bytes);
    }
  } else {
    const auto read = [&] {
      for (std::size_t i = 0; i < indices.size(); ++i) {
        read_head(tensor, indices[i], target.data() + i * bytes);
      }
    };
    // Decompression runs at hundreds of megabytes a second.
    const auto total = static_cast<std::int64_t>(bytes * indices.size());
    const Trial trial = try_isolated(read, metadata_seconds(total), true);
    check_trial(trial, tensor.where);
    if (trial == Trial::threw) read();
  }
  if (tensor.swap_bytes) {
    swap_elements(target.data(), elements * indices.size(), size_of(tensor.dtype));
  }
}

ByteDataset open_bytes(hid_t parent, const std::string& name, const std::string& where,
                       std::int64_t file_size) {
  ByteDataset bytes;
  bytes.dataset = open_dataset(parent, name, where);
  const Handle space = check(H5Dget_space(bytes.dataset.get()), where, "its extent cannot be read");
  const Handle type = check(H5Dget_type(bytes.dataset.get()), where, "its type cannot be read");
  bytes.dims = extent(space.get(), where);
  const auto& d = bytes.dims;
  const bool whole = H5Tget_class(type.get()) == H5T_INTEGER && H5Tget_size(type.get()) == 1;
  const bool shape = d.size() == 4 && d[3] == 3 && std::all_of(d.begin(), d.end(), [](auto dim) {
                       return dim > 0 && dim <= 65536;
                     });
  if (!whole || !shape) fail(where, "is not uint8 [frames, height, width, 3]");
  check_storage(bytes.dataset.get(), d[0] * d[1] * d[2] * d[3], where, file_size);
  return bytes;
}

TensorDataset create_tensor(hid_t parent, const std::string& name, const std::string& where,
                            DType dtype, std::int64_t heads, std::int64_t tokens,
                            std::int64_t head_dim, const Storage& storage) {
  TensorDataset tensor;
  tensor.where = where + "/" + name;
  tensor.dtype = dtype;
  tensor.chunked = storage.gzip;
  tensor.heads = heads;
  tensor.tokens = tokens;
  tensor.head_dim = head_dim;
  tensor.type = float_type(dtype, tensor.where);
  const hsize_t dims[3] = {static_cast<hsize_t>(heads), static_cast<hsize_t>(tokens),
                           static_cast<hsize_t>(head_dim)};
  const Handle space =
      check(H5Screate_simple(3, dims, nullptr), tensor.where, "cannot make a dataspace");
  const Handle creation = creation_list(tensor, storage);
  tensor.dataset = check(H5Dcreate2(parent, name.c_str(), tensor.type.get(), space.get(),
                                    H5P_DEFAULT, creation.get(), H5P_DEFAULT),
                         tensor.where, "cannot be created");
  const char* names[] = {"float32", "float16", "bfloat16"};
  write_string(tensor.dataset.get(), "dtype", names[static_cast<int>(dtype)], tensor.where);
  return tensor;
}

void write_head(const TensorDataset& tensor, std::int64_t head, const void* source) {
  const Handle space =
      check(H5Dget_space(tensor.dataset.get()), tensor.where, "its extent cannot be read");
  const Handle memory = select_head(tensor, space.get(), head);
  check_status(H5Dwrite(tensor.dataset.get(), tensor.type.get(), memory.get(), space.get(),
                        H5P_DEFAULT, source),
               tensor.where, "cannot be written; is there space left on the device?");
}

}  // namespace raingauge::hdf5
