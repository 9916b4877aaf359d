// SPDX-License-Identifier: Apache-2.0
// Small captures for tests, and edits that turn good files into bad ones.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "data/capture.h"
#include "data/capture_writer.h"
#include "data/error.h"
#include "data/hdf5_util.h"
#include "data/random.h"

namespace raingauge::testing_support {

// A folder of its own for every test, removed with its content.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "raingauge_XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw Error("no temporary folder");
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// 3 heads (originals 5, 2, 9), 2x3x4 video tokens + 3 text, head_dim 8.
inline RecordInfo small_info(int number = 42, DType dtype = DType::bf16) {
  RecordInfo info;
  info.number = number;
  info.site = {3, 7, "high", "uncond", 1};
  info.scale = 1.0 / std::sqrt(8.0);
  info.layer_name = "blocks.7.attn1";
  info.layers_total = 40;
  info.timestep = 937.5;
  info.sigma = 0.9375;
  info.kind = "joint";
  info.heads = {5, 2, 9};
  info.heads_total = 12;
  info.dtype = dtype;
  info.tokens = 27;
  info.head_dim = 8;
  info.segments = {{Role::video, 0, 24, 2, 3, 4}, {Role::text, 24, 3, 0, 0, 0}};
  return info;
}

// Raw bits of finite values of every size: the edges of the format first, then hashed patterns.
inline std::vector<std::byte> finite_bits(DType dtype, std::size_t count, std::uint64_t seed) {
  const std::vector<std::uint32_t> edges =
      dtype == DType::f32 ? std::vector<std::uint32_t>{0,           0x80000000U, 1,
                                                       0x80000001U, 0x007fffffU, 0x7f7fffffU,
                                                       0xff7fffffU, 0x3f808000U, 0x3f800001U}
      : dtype == DType::f16
          ? std::vector<std::uint32_t>{0, 0x8000, 1, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff}
          : std::vector<std::uint32_t>{0, 0x8000, 1, 0x8001, 0x007f, 0x0080, 0x7f7f, 0xff7f};
  const std::uint32_t exponent = dtype == DType::f32   ? 0x7f800000U
                                 : dtype == DType::f16 ? 0x7c00U
                                                       : 0x7f80U;
  std::vector<std::byte> bytes(count * size_of(dtype));
  for (std::size_t i = 0; i < count; ++i) {
    auto bits = i < edges.size() ? edges[i] : static_cast<std::uint32_t>(mix64(seed + i));
    if ((bits & exponent) == exponent) bits &= ~exponent;  // NaN and Inf become subnormal
    std::memcpy(bytes.data() + i * size_of(dtype), &bits, size_of(dtype));
  }
  return bytes;
}

struct SmallRecord {
  explicit SmallRecord(const RecordInfo& record_info, std::uint64_t seed = 1) : info(record_info) {
    const auto count = static_cast<std::size_t>(info.head_count() * info.tokens * info.head_dim);
    for (std::uint64_t i = 0; i < 3; ++i) {
      bits[i] = finite_bits(info.dtype, count, (seed * 3 + i) << 32);
    }
  }
  TensorView view(std::size_t which) const {
    return contiguous_view(bits[which].data(), info.dtype, info.head_count(), info.tokens,
                           info.head_dim);
  }
  RecordInfo info;
  std::vector<std::byte> bits[3];
};

// Values a model could have, for checks that compute with them.
inline SmallRecord plausible_record(const RecordInfo& info, std::uint64_t seed = 1) {
  SmallRecord record(info, seed);
  std::vector<float> values(
      static_cast<std::size_t>(info.head_count() * info.tokens * info.head_dim));
  for (std::uint64_t which = 0; which < 3; ++which) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(4.0 * uniform01(mix64((seed * 3 + which) << 32 ^ i)) - 2.0);
    }
    convert_from_float(values.data(), record.bits[which].data(), info.dtype, values.size());
  }
  return record;
}

inline CaptureInfo small_capture_info() {
  CaptureInfo info;
  info.model_id = "Wan-AI/Wan2.1-T2V-1.3B";
  info.prompt = "Ein Frosch im Regen, grün ☂";
  info.seed = "18446744073709551615";
  info.steps = 20;
  info.guidance = 5.0;
  info.patch = {1, 2, 2};
  return info;
}

inline void write_small(const std::string& path, const std::vector<SmallRecord>& records,
                        const CaptureWriteOptions& options = {}, bool finish = true) {
  CaptureWriter writer(path, small_capture_info(), options);
  for (const SmallRecord& r : records) {
    writer.write_record(r.info, r.view(0), r.view(1), r.view(2));
  }
  if (finish) writer.finish();
}

inline bool same_bits(const TensorView& got, const std::vector<std::byte>& expected,
                      std::int64_t head, std::int64_t expected_head) {
  const auto row = static_cast<std::size_t>(got.head_dim) * size_of(got.dtype);
  for (std::int64_t t = 0; t < got.tokens; ++t) {
    const auto at = static_cast<std::size_t>(expected_head * got.tokens + t) * row;
    if (std::memcmp(got.row(head, t), expected.data() + at, row) != 0) return false;
  }
  return true;
}

// Edits the file in place through the library.
inline void edit(const std::string& path, const std::function<void(hid_t)>& change) {
  const hdf5::Session session;
  const hdf5::Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
  ASSERT_TRUE(static_cast<bool>(file)) << path;
  change(file.get());
}

inline void edit_record(const std::string& path, const std::function<void(hid_t)>& change) {
  edit(path, [&](hid_t file) {
    const hdf5::Handle record(H5Gopen2(file, "/records/000042", H5P_DEFAULT));
    ASSERT_TRUE(static_cast<bool>(record));
    change(record.get());
  });
}

// Message of the Error that the call throws; "" when it throws none.
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline void expect_error(const std::function<void()>& call, const std::vector<std::string>& parts) {
  const std::string text = error_of(call);
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "`" << part << "` not in: " << text;
  }
}

}  // namespace raingauge::testing_support
