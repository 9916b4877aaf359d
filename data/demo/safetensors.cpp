// SPDX-License-Identifier: Apache-2.0
#include "data/demo/safetensors.h"

#include <ATen/ATen.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/error.h"

namespace raingauge::demo {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr std::uint64_t kPrefixBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::uint64_t kAlignment = 8;                 // of the data, by padding the header
constexpr std::size_t kMaxDims = 8;

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

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {
    stream_.open(path, std::ios::binary | std::ios::ate);
    if (!stream_) throw Error(path.string() + ": cannot be opened");
    size_ = static_cast<std::uint64_t>(stream_.tellg());
  }

  TensorFile read() {
    const json header = read_header();
    TensorFile file;
    for (const auto& [name, entry] : header.items()) {
      try {
        if (name == "__metadata__") {
          file.metadata = entry.get<std::map<std::string, std::string>>();
        } else {
          file.tensors.emplace(name, read_tensor(entry));
        }
      } catch (const json::exception&) {
        throw Error(path_.string() + ": the header's entry '" + name + "' is malformed");
      } catch (const Error& error) {
        throw Error(path_.string() + ": tensor '" + name + "': " + error.what());
      }
    }
    return file;
  }

 private:
  void read_bytes(std::uint64_t offset, void* target, std::uint64_t count) {
    stream_.seekg(static_cast<std::streamoff>(offset));
    stream_.read(static_cast<char*>(target), static_cast<std::streamsize>(count));
    if (!stream_) throw Error(path_.string() + ": cannot be read");
  }

  json read_header() {
    std::uint64_t length = 0;
    if (size_ < kPrefixBytes) throw Error(path_.string() + ": too short for a safetensors file");
    read_bytes(0, &length, kPrefixBytes);
    if (length > kMaxHeaderBytes || length > size_ - kPrefixBytes) {
      throw Error(path_.string() + ": the header claims " + std::to_string(length) +
                  " bytes, the file has " + std::to_string(size_) +
                  ": truncated or no safetensors");
    }
    data_start_ = kPrefixBytes + length;
    std::string text(length, '\0');
    read_bytes(kPrefixBytes, text.data(), length);
    json header = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!header.is_object()) throw Error(path_.string() + ": the header is no JSON object");
    return header;
  }

  at::Tensor read_tensor(const json& entry) {
    const at::ScalarType type = scalar_type(entry.at("dtype").get<std::string>());
    const auto shape = entry.at("shape").get<std::vector<std::int64_t>>();
    const auto offsets = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
    const std::uint64_t available = size_ - data_start_;
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > available) {
      throw Error("data offsets outside the file's " + std::to_string(available) +
                  " bytes of data: truncated?");
    }
    const std::uint64_t bytes = offsets[1] - offsets[0];
    check_bytes(shape, c10::elementSize(type), bytes);
    at::Tensor tensor = at::empty(shape, type);
    if (bytes > 0) read_bytes(data_start_ + offsets[0], tensor.mutable_data_ptr(), bytes);
    return tensor;
  }

  // Divides rather than multiplies: a hostile shape must not overflow into a match.
  static void check_bytes(const std::vector<std::int64_t>& shape, std::uint64_t element,
                          std::uint64_t bytes) {
    std::uint64_t rest = bytes / element;
    bool fits = bytes % element == 0 && shape.size() <= kMaxDims;
    for (const std::int64_t extent : shape) {
      fits = fits && extent > 0 && rest % static_cast<std::uint64_t>(extent) == 0;
      if (!fits) break;
      rest /= static_cast<std::uint64_t>(extent);
    }
    if (!fits || rest != 1) {
      throw Error("the shape does not fit its " + std::to_string(bytes) + " bytes of data");
    }
  }

  std::filesystem::path path_;
  std::ifstream stream_;
  std::uint64_t size_ = 0, data_start_ = 0;
};

std::string header_text(const TensorFile& file) {
  json header = json::object();
  if (!file.metadata.empty()) header["__metadata__"] = file.metadata;
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : file.tensors) {
    const std::uint64_t end = offset + tensor.nbytes();
    header[name] = {{"dtype", dtype_name(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  return text;
}

}  // namespace

TensorFile read_tensors(const std::filesystem::path& path) { return Reader(path).read(); }

void write_tensors(const std::filesystem::path& path, const TensorFile& file) {
  const std::filesystem::path partial = path.string() + ".partial";
  std::ofstream stream(partial, std::ios::binary);
  const std::string header = header_text(file);
  const std::uint64_t length = header.size();
  stream.write(reinterpret_cast<const char*>(&length), kPrefixBytes);
  stream.write(header.data(), static_cast<std::streamsize>(header.size()));
  for (const auto& [name, tensor] : file.tensors) {
    const at::Tensor host = tensor.detach().cpu().contiguous();
    stream.write(static_cast<const char*>(host.const_data_ptr()),
                 static_cast<std::streamsize>(host.nbytes()));
  }
  stream.close();
  if (!stream) throw Error(path.string() + ": cannot be written");
  std::error_code failure;
  std::filesystem::rename(partial, path, failure);
  if (failure) throw Error(path.string() + ": cannot be replaced: " + failure.message());
}

}  // namespace raingauge::demo
