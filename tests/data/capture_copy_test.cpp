// SPDX-License-Identifier: Apache-2.0
#include "data/capture_copy.h"

#include <gtest/gtest.h>

#include "capture_fixture.h"
#include "data/capture_check.h"

namespace raingauge {
namespace {

using namespace testing_support;

CaptureSelection only(std::vector<int> CaptureSelection::*list, int value) {
  CaptureSelection selection;
  selection.*list = {value};
  return selection;
}

class CaptureCopyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; ++i) {
      RecordInfo info = small_info(10 + i);
      info.site.step = i;
      records_.push_back(plausible_record(info, static_cast<std::uint64_t>(i) + 1));
    }
    std::vector<float> output(3 * 27 * 8, 0.5F);
    const TensorView o = contiguous_view(output.data(), DType::f32, 3, 27, 8);
    std::vector<std::uint8_t> valid(27, 1);
    valid[3] = 0;
    const std::vector<double> times{3.0, 2.0, 1.0};
    CaptureWriter writer(source_, small_capture_info());
    writer.set_schedule(times, {});
    writer.write_record(records_[0].info, records_[0].view(0), records_[0].view(1),
                        records_[0].view(2), &o, valid);
    for (int i = 1; i < 3; ++i) {
      const auto& r = records_[static_cast<std::size_t>(i)];
      writer.write_record(r.info, r.view(0), r.view(1), r.view(2));
    }
    writer.write_frames("dense", {1, 2, 2, std::vector<std::uint8_t>(12, 7)});
    writer.finish();
  }

  TempFolder folder_;
  std::string source_ = folder_ / "source.h5";
  std::string target_ = folder_ / "target.h5";
  std::vector<SmallRecord> records_;
};

TEST_F(CaptureCopyTest, EverythingByDefault) {
  EXPECT_EQ(copy_capture(source_, target_, {}, {.gzip = true}), 3);
  const Capture a = Capture::open(source_);
  const Capture b = Capture::open(target_);
  EXPECT_EQ(a.info().generation, b.info().generation);
  EXPECT_EQ(a.info().timesteps, b.info().timesteps);
  EXPECT_TRUE(b.storage_of(b.record(11)).chunked);
  for (const RecordInfo& info : a.records()) {
    const RecordInfo& copy = b.record(info.number);
    EXPECT_EQ(copy.sha256_q, info.sha256_q);
    EXPECT_EQ(copy.sha256_k, info.sha256_k);
    EXPECT_EQ(copy.sha256_v, info.sha256_v);
    EXPECT_EQ(copy.site.step, info.site.step);
    EXPECT_EQ(copy.segments, info.segments);
  }
  EXPECT_EQ(b.storage_of(b.record(10)).output_dtype, DType::f32);
  EXPECT_EQ(b.load_output(b.record(10)), a.load_output(a.record(10)));
  EXPECT_EQ(b.load(b.record(10))->view().key_valid[3], 0);
  EXPECT_EQ(b.read_frames("dense").rgb, std::vector<std::uint8_t>(12, 7));
}

TEST_F(CaptureCopyTest, RecordsStepsAndHeads) {
  CaptureSelection selection;
  selection.steps = {1, 2};
  selection.heads = {9, 5};
  selection.frames = false;
  EXPECT_EQ(copy_capture(source_, target_, selection), 2);
  {
    const Capture copy = Capture::open(target_);
    EXPECT_EQ(copy.record(11).heads, (std::vector<int>{9, 5}));
    const auto record = copy.load(copy.record(12));
    EXPECT_TRUE(same_bits(record->view().v, records_[2].bits[2], 0, 2));
    EXPECT_TRUE(same_bits(record->view().v, records_[2].bits[2], 1, 0));
    EXPECT_TRUE(copy.frame_arms().empty());
  }
  EXPECT_TRUE(is_valid(validate_capture(target_)));
  // A copy keeps the generation even where it cannot be derived from the attributes.
  edit(source_, [](hid_t f) { H5Adelete(f, "seed"); });
  copy_capture(source_, target_, selection, {.overwrite = true});
  EXPECT_EQ(Capture::open(target_).info().generation, "source");
}

TEST_F(CaptureCopyTest, AnotherElementType) {
  EXPECT_EQ(copy_capture(source_, target_, only(&CaptureSelection::records, 11), {}, DType::f32),
            1);
  const Capture copy = Capture::open(target_);
  const auto record = copy.load(copy.record(11));
  const auto* bits = reinterpret_cast<const std::uint16_t*>(records_[1].bits[0].data());
  const auto* values = static_cast<const float*>(record->view().q.data);
  for (std::size_t i = 0; i < 3 * 27 * 8; ++i) ASSERT_EQ(values[i], bf16_to_float(bits[i]));
}

TEST_F(CaptureCopyTest, BadSelectionsAreRefused) {
  expect_error([&] { copy_capture(source_, target_, only(&CaptureSelection::records, 99)); },
               {"no record 99"});
  expect_error([&] { copy_capture(source_, target_, only(&CaptureSelection::steps, 99)); },
               {"none of its 3 records"});
  expect_error([&] { copy_capture(source_, target_, only(&CaptureSelection::heads, 1)); },
               {"head 1 is not stored"});
  expect_error([&] { copy_capture(source_, source_, {}, {.overwrite = true}); }, {"same file"});
  EXPECT_EQ(Capture::open(source_).records().size(), 3U);
}

}  // namespace
}  // namespace raingauge
