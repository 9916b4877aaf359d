// SPDX-License-Identifier: Apache-2.0
#include "data/capture_check.h"

#include <gtest/gtest.h>

#include <cmath>

#include "capture_fixture.h"

namespace raingauge {
namespace {

using namespace testing_support;

class CaptureCheckTest : public ::testing::Test {
 protected:
  // True when some finding has this severity, object and part of a message.
  bool found(Severity severity, const std::string& object, const std::string& part) {
    for (const Finding& f : validate_capture(path_)) {
      if (f.severity == severity && f.object == object &&
          f.message.find(part) != std::string::npos) {
        return true;
      }
    }
    return false;
  }
  TempFolder folder_;
  std::string path_ = folder_ / "clip.h5";
};

// softmax(scale QK^T) V in double, rounded once.
std::vector<float> dense_output(const SmallRecord& r, double scale) {
  const auto width = static_cast<std::size_t>(r.info.head_dim);
  const auto tokens = static_cast<std::size_t>(r.info.tokens);
  std::vector<float> q(width * tokens);
  std::vector<float> k(q.size());
  std::vector<float> v(q.size());
  std::vector<float> out;
  for (std::int64_t h = 0; h < r.info.head_count(); ++h) {
    convert_to_float(r.view(0).row(h, 0), r.info.dtype, q.data(), q.size());
    convert_to_float(r.view(1).row(h, 0), r.info.dtype, k.data(), k.size());
    convert_to_float(r.view(2).row(h, 0), r.info.dtype, v.data(), v.size());
    for (std::size_t i = 0; i < tokens; ++i) {
      std::vector<double> sum(width);
      double total = 0.0;
      for (std::size_t j = 0; j < tokens; ++j) {
        double dot = 0.0;
        for (std::size_t c = 0; c < width; ++c) {
          dot += double{q[i * width + c]} * double{k[j * width + c]};
        }
        const double p = std::exp(scale * dot);
        total += p;
        for (std::size_t c = 0; c < width; ++c) sum[c] += p * double{v[j * width + c]};
      }
      for (const double s : sum) out.push_back(static_cast<float>(s / total));
    }
  }
  return out;
}

TEST_F(CaptureCheckTest, AGoodCaptureHasNoFindings) {
  const SmallRecord record = plausible_record(small_info());
  const auto out = dense_output(record, record.info.scale);
  const TensorView o = contiguous_view(out.data(), DType::f32, 3, 27, 8);
  CaptureWriter writer(path_, small_capture_info());
  writer.write_record(record.info, record.view(0), record.view(1), record.view(2), &o);
  writer.finish();
  const auto findings = validate_capture(path_);
  EXPECT_TRUE(findings.empty()) << findings.front().object << ": " << findings.front().message;
  EXPECT_TRUE(is_valid(findings));
}

TEST_F(CaptureCheckTest, AWrongScaleShowsInTheOutput) {
  SmallRecord record = plausible_record(small_info());
  const auto out = dense_output(record, record.info.scale);
  const TensorView o = contiguous_view(out.data(), DType::f32, 3, 27, 8);
  record.info.scale *= 1.2;
  CaptureWriter writer(path_, small_capture_info());
  writer.write_record(record.info, record.view(0), record.view(1), record.view(2), &o);
  writer.finish();
  EXPECT_TRUE(found(Severity::error, "/records/000042/o", "is not softmax(scale * QK^T) V"));
  EXPECT_TRUE(found(Severity::note, "/records/000042", "not 1/sqrt(head_dim)"));
}

TEST_F(CaptureCheckTest, AFlippedBitShowsInTheHash) {
  const SmallRecord record = plausible_record(small_info());
  write_small(path_, {record});
  std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), {});
  const auto at = all.find(
      std::string(reinterpret_cast<const char*>(record.bits[1].data()), record.bits[1].size()));
  ASSERT_NE(at, std::string::npos);
  file.seekp(static_cast<std::streamoff>(at) + 100);
  file.put(static_cast<char>(all[at + 100] ^ 1));
  file.close();
  EXPECT_TRUE(found(Severity::error, "/records/000042/k", "sha256 is not the recorded one"));
  EXPECT_FALSE(is_valid(validate_capture(path_)));
}

TEST_F(CaptureCheckTest, EachDefectIsFound) {
  SmallRecord zero = plausible_record(small_info());
  std::fill(zero.bits[2].begin(), zero.bits[2].end(), std::byte{0});
  zero.info.rope_applied = false;
  zero.info.kind = "cross";
  zero.info.site.step = 20;
  write_small(path_, {zero});
  EXPECT_TRUE(found(Severity::warning, "/records/000042/v", "zero everywhere"));
  EXPECT_TRUE(found(Severity::warning, "/records/000042", "rope_applied = 0"));
  EXPECT_TRUE(found(Severity::warning, "/records/000042", "kind is `cross`"));
  EXPECT_TRUE(found(Severity::error, "/records/000042", "step 20 with steps = 20"));

  SmallRecord nan = plausible_record(small_info());
  const std::uint16_t bits = 0x7fc0;
  std::memcpy(nan.bits[0].data(), &bits, 2);
  write_small(path_, {nan}, {.overwrite = true, .allow_nonfinite = true});
  EXPECT_TRUE(found(Severity::error, "/records/000042/q", "head 5, token 0, channel 0"));

  SmallRecord twin = plausible_record(small_info(43));
  twin.info.heads = {0, 9, 1};
  write_small(path_, {plausible_record(small_info()), twin}, {.overwrite = true});
  EXPECT_TRUE(found(Severity::error, "/records/000043", "head 9"));

  write_small(path_, {plausible_record(small_info())}, {.overwrite = true}, false);
  EXPECT_TRUE(found(Severity::error, "/", "interrupted"));

  write_small(path_, {}, {.overwrite = true});
  EXPECT_TRUE(found(Severity::error, "/records", "holds no record"));

  EXPECT_FALSE(is_valid(validate_capture(folder_ / "missing.h5")));
}

TEST_F(CaptureCheckTest, MissingHashIsANote) {
  write_small(path_, {plausible_record(small_info())});
  edit_record(path_, [](hid_t record) { H5Adelete(record, "sha256_q"); });
  EXPECT_TRUE(found(Severity::note, "/records/000042/q", "no sha256"));
  EXPECT_TRUE(is_valid(validate_capture(path_)));
}

}  // namespace
}  // namespace raingauge
