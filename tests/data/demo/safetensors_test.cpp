// SPDX-License-Identifier: Apache-2.0
#include "data/demo/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string little_endian(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  return bytes;
}

std::string file_of(const std::string& header, const std::string& data) {
  return little_endian(header.size()) + header + data;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

TensorFile awkward_file() {
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  TensorFile file;
  file.tensors["floats"] = at::tensor({0.0f, -0.0f, tiny, nan, -1.5f, 3e38f}).view({2, 3});
  file.tensors["halves"] = at::tensor({1.0f, -nan, 1e-40f, 3.1415f}).to(at::kBFloat16);
  file.tensors["scalar"] = at::tensor({7.0f}).view({1, 1, 1});
  file.metadata = {{"model", "toy \"quoted\" \\ é"}, {"empty", ""}};
  return file;
}

TEST(Safetensors, KeepsEveryBit) {
  const TemporaryFolder folder;
  const TensorFile file = awkward_file();
  write_tensors(folder / "a.safetensors", file);
  const TensorFile read = read_tensors(folder / "a.safetensors");
  EXPECT_EQ(read.metadata, file.metadata);
  ASSERT_EQ(read.tensors.size(), file.tensors.size());
  for (const auto& [name, tensor] : file.tensors) {
    EXPECT_TRUE(same_bits(read.tensors.at(name), tensor)) << name;
  }
}

TEST(Safetensors, WritesTheFormat) {
  const TemporaryFolder folder;
  write_tensors(folder / "a", awkward_file());
  const std::string bytes = bytes_of(folder / "a");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  EXPECT_EQ((8 + length) % 8, 0u) << "data is to be aligned";
  EXPECT_EQ(header.at("floats").at("dtype"), "F32");
  EXPECT_EQ(header.at("floats").at("shape"), (std::vector<int>{2, 3}));
  EXPECT_EQ(header.at("floats").at("data_offsets"), (std::vector<int>{0, 24}));
  EXPECT_EQ(header.at("halves").at("dtype"), "BF16");
  EXPECT_EQ(header.at("halves").at("data_offsets"), (std::vector<int>{24, 32}));
  EXPECT_EQ(bytes.size(), 8 + length + 36);
}

TEST(Safetensors, ReadsWhatAnotherProgramWrote) {
  const TemporaryFolder folder;
  // Data in another order than the names, no padding, no metadata.
  write_bytes(folder / "a", file_of(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                    R"("a":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]}})",
                                    std::string("\0\0\x80\x3f\x80\x3f\0\xc0", 8)));
  const TensorFile file = read_tensors(folder / "a");
  EXPECT_EQ(file.tensors.at("b").item<float>(), 1.0f);
  EXPECT_TRUE(
      same_bits(file.tensors.at("a"), at::tensor({1.0f, -2.0f}).to(at::kBFloat16).view({2, 1})));
  EXPECT_TRUE(file.metadata.empty());
}

TEST(Safetensors, ReplacesInOneStep) {
  const TemporaryFolder folder;
  write_tensors(folder / "a", awkward_file());
  TensorFile other;
  other.tensors["x"] = at::ones({2});
  write_tensors(folder / "a", other);
  EXPECT_EQ(read_tensors(folder / "a").tensors.size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(folder / "a.partial"));
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const TemporaryFolder folder;
  write_tensors(folder / "whole", awkward_file());
  const std::string whole = bytes_of(folder / "whole");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_bytes(folder / "cut", whole.substr(0, size));
    EXPECT_THROW(read_tensors(folder / "cut"), Error) << size << " of " << whole.size() << " bytes";
  }
}

TEST(Safetensors, HostileHeadersAreErrors) {
  const TemporaryFolder folder;
  const auto entry = [](const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
    return R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
           "}}";
  };
  const std::string good = entry(R"("F32")", "[2]", "[0,8]");
  write_bytes(folder / "good", file_of(good, std::string(8, '\0')));
  ASSERT_NO_THROW(read_tensors(folder / "good"));
  const std::vector<std::string> headers{
      "", "null", "[]", "{", "{\"t\":", "\xff\xfe", std::string(200000, '['), std::string(64, '\0'),
      R"({"t":3})", R"({"t":{}})", R"({"__metadata__":{"a":1}})", R"({"__metadata__":["a"]})",
      entry(R"("F64")", "[1]", "[0,8]"), entry("5", "[2]", "[0,8]"),
      entry(R"("F32")", "[3]", "[0,8]"), entry(R"("F32")", "[-2]", "[0,8]"),
      entry(R"("F32")", "[0]", "[0,8]"), entry(R"("F32")", "2", "[0,8]"),
      entry(R"("F32")", R"(["2"])", "[0,8]"),
      // 2^62 * 4 bytes and 2^32 * 2^32 * 2: products that overflow into something small.
      entry(R"("F32")", "[4611686018427387904]", "[0,8]"),
      entry(R"("F32")", "[4294967296,4294967296,2]", "[0,8]"),
      entry(R"("F32")", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), entry(R"("F32")", "[2]", "[0,16]"),
      entry(R"("F32")", "[2]", "[8,16]"), entry(R"("F32")", "[2]", "[8,0]"),
      entry(R"("F32")", "[2]", "[-8,0]"), entry(R"("F32")", "[2]", "[0,8,8]"),
      entry(R"("F32")", "[2]", "[18446744073709551608,0]"),
      entry(R"("F32")", "[2]", "[0,18446744073709551615]"), entry(R"("F32")", "[2]", "[0,6]")};
  for (const std::string& header : headers) {
    write_bytes(folder / "bad", file_of(header, std::string(8, '\0')));
    EXPECT_THROW(read_tensors(folder / "bad"), Error) << header.substr(0, 100);
  }
}

TEST(Safetensors, HostileLengthsAreErrors) {
  const TemporaryFolder folder;
  for (const std::uint64_t length : {~0ull, 1ull << 63, 1ull << 40, 100'000'001ull, 17ull}) {
    write_bytes(folder / "bad", little_endian(length) + "{}              ");
    EXPECT_THROW(read_tensors(folder / "bad"), Error) << length;
  }
}

TEST(Safetensors, PathsThatAreNoFilesAreErrorsThatNameThem) {
  const TemporaryFolder folder;
  for (const std::string name : {"missing", ""}) {  // "" is the folder itself
    try {
      read_tensors(folder / name);
      ADD_FAILURE() << "no error for '" << name << "'";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find((folder / name).string()), std::string::npos)
          << error.what();
    }
  }
  EXPECT_THROW(write_tensors(folder / "no" / "such" / "a", awkward_file()), Error);
  std::filesystem::create_directories(folder / "taken" / "inside");
  EXPECT_THROW(write_tensors(folder / "taken", awkward_file()), Error);
}

TEST(Safetensors, RefusesOtherTypes) {
  const TemporaryFolder folder;
  TensorFile file;
  file.tensors["x"] = at::ones({2}, at::kDouble);
  EXPECT_THROW(write_tensors(folder / "a", file), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
}

}  // namespace
}  // namespace raingauge::demo
