// SPDX-License-Identifier: Apache-2.0
// What is written comes back bit for bit; interruptions and failures leave files that say so.
#include "data/capture_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "capture_fixture.h"
#include "data/sha256.h"

namespace raingauge {
namespace {

using namespace testing_support;

class CaptureWriterTest : public ::testing::Test {
 protected:
  TempFolder folder_;
  std::string path_ = folder_ / "clip.h5";
};

TEST_F(CaptureWriterTest, EveryBitSurvives) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const bool gzip : {false, true}) {
      const SmallRecord record(small_info(42, dtype));
      write_small(path_, {record}, {.overwrite = true, .gzip = gzip});
      for (const bool map : {true, false}) {
        const Capture capture = Capture::open(path_, {.map = map});
        EXPECT_EQ(capture.storage_of(capture.record(42)).chunked, gzip);
        const auto loaded = capture.load(capture.record(42));
        const RecordView view = loaded->view();
        const TensorView* views[3] = {&view.q, &view.k, &view.v};
        for (std::size_t which = 0; which < 3; ++which) {
          EXPECT_EQ(views[which]->dtype, dtype);
          for (std::int64_t h = 0; h < 3; ++h) {
            EXPECT_TRUE(same_bits(*views[which], record.bits[which], h, h))
                << name_of(dtype) << gzip << map << which << h;
          }
        }
      }
    }
  }
}

TEST_F(CaptureWriterTest, EveryAttributeSurvives) {
  SmallRecord record(small_info());
  CaptureInfo info = small_capture_info();
  info.config = R"({"a": [1, 2]})";
  info.negative_prompt = "n";
  info.height = 480;
  info.fps = 16.0;
  CaptureWriter writer(path_, info);
  const std::vector<double> timesteps{1000.0, 937.5};
  const std::vector<double> sigmas{1.0, 0.9375, 0.0};
  writer.set_schedule(timesteps, sigmas);
  writer.write_record(record.info, record.view(0), record.view(1), record.view(2));
  writer.finish();

  const Capture capture = Capture::open(path_);
  const CaptureInfo& got = capture.info();
  EXPECT_TRUE(got.complete);
  EXPECT_TRUE(capture.warnings().empty());
  EXPECT_EQ(got.prompt, info.prompt);
  EXPECT_EQ(got.config, info.config);
  EXPECT_EQ(got.seed, info.seed);
  EXPECT_EQ(got.steps, 20);
  EXPECT_EQ(got.height, 480);
  EXPECT_EQ(got.width, std::nullopt);
  EXPECT_EQ(got.guidance, 5.0);
  EXPECT_EQ(got.fps, 16.0);
  EXPECT_EQ(got.patch, info.patch);
  EXPECT_EQ(got.timesteps, timesteps);
  EXPECT_EQ(got.sigmas, sigmas);
  const RecordInfo& r = capture.record(42);
  EXPECT_EQ(r.site.step, 3);
  EXPECT_EQ(r.site.layer, 7);
  EXPECT_EQ(r.site.expert, "high");
  EXPECT_EQ(r.site.branch, "uncond");
  EXPECT_EQ(r.site.batch_item, 1);
  EXPECT_EQ(r.scale, record.info.scale);
  EXPECT_EQ(r.layer_name, "blocks.7.attn1");
  EXPECT_EQ(r.layers_total, 40);
  EXPECT_EQ(r.timestep, 937.5);
  EXPECT_EQ(r.sigma, 0.9375);
  EXPECT_EQ(r.kind, "joint");
  EXPECT_EQ(r.heads, record.info.heads);
  EXPECT_EQ(r.heads_total, 12);
  EXPECT_TRUE(r.rope_applied);
  EXPECT_EQ(r.segments, record.info.segments);
  EXPECT_EQ(r.capture, path_);
  EXPECT_EQ(r.generation, got.generation);
  EXPECT_EQ(r.sha256_q, sha256_hex(record.bits[0].data(), record.bits[0].size()));
  EXPECT_EQ(r.sha256_v, sha256_hex(record.bits[2].data(), record.bits[2].size()));
}

TEST_F(CaptureWriterTest, OutputKeyValidAndFrames) {
  const SmallRecord record(small_info());
  std::vector<float> output(3 * 27 * 8);
  for (std::size_t i = 0; i < output.size(); ++i) output[i] = static_cast<float>(i) * 0.001F;
  const TensorView o = contiguous_view(output.data(), DType::f32, 3, 27, 8);
  std::vector<std::uint8_t> valid(27, 1);
  valid[26] = 0;
  Frames frames{2, 3, 4, std::vector<std::uint8_t>(2 * 3 * 4 * 3)};
  for (std::size_t i = 0; i < frames.rgb.size(); ++i)
    frames.rgb[i] = static_cast<std::uint8_t>(i * 3);
  for (const bool gzip : {false, true}) {
    CaptureWriter writer(path_, small_capture_info(), {.overwrite = true, .gzip = gzip});
    writer.write_record(record.info, record.view(0), record.view(1), record.view(2), &o, valid);
    writer.write_frames("rf2.raster.none", Frames{1, 1, 1, {1, 2, 3}});
    writer.write_frames("rf2.raster.none", frames);  // replaces
    expect_error([&] { writer.write_frames("a/b", frames); }, {"/frames/a/b", "must not"});
    writer.finish();
    const Capture capture = Capture::open(path_);
    const RecordInfo& info = capture.record(42);
    EXPECT_TRUE(info.has_output);
    EXPECT_TRUE(info.has_key_valid);
    EXPECT_EQ(capture.storage_of(info).output_dtype, DType::f32);
    EXPECT_EQ(capture.load_output(info), output);
    const std::vector<int> last{9};
    EXPECT_EQ(capture.load_output(info, last),
              std::vector<float>(output.begin() + 2 * 27 * 8, output.end()));
    const auto loaded = capture.load(info);
    ASSERT_NE(loaded->view().key_valid, nullptr);
    EXPECT_EQ(std::vector<std::uint8_t>(loaded->view().key_valid, loaded->view().key_valid + 27),
              valid);
    EXPECT_EQ(capture.frame_arms(), std::vector<std::string>{"rf2.raster.none"});
    const Frames got = capture.read_frames("rf2.raster.none");
    EXPECT_EQ(got.rgb, frames.rgb);
    EXPECT_EQ(got.height, 3);
  }
}

// A view with gaps between tokens and heads, of another dtype: packed and rounded by our own rule.
TEST_F(CaptureWriterTest, StridedViewsOfOtherTypesAreRounded) {
  const RecordInfo info = small_info(1, DType::bf16);
  std::vector<float> values(3 * 30 * 11);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = 1.0F + static_cast<float>(i) * 0x1p-11F;
  TensorView view = contiguous_view(values.data(), DType::f32, 3, 27, 8);
  view.head_stride = 30 * 11;
  view.token_stride = 11;
  CaptureWriter writer(path_, {});
  writer.write_record(info, view, view, view);
  writer.finish();
  const Capture capture = Capture::open(path_);
  const auto loaded = capture.load(capture.record(1));
  const TensorView got = loaded->view().q;
  for (std::int64_t h = 0; h < 3; ++h) {
    for (std::int64_t t = 0; t < 27; ++t) {
      for (std::int64_t c = 0; c < 8; ++c) {
        const float value = static_cast<const float*>(view.row(h, t))[c];
        ASSERT_EQ(static_cast<const std::uint16_t*>(got.row(h, t))[c], float_to_bf16(value));
      }
    }
  }
}

TEST_F(CaptureWriterTest, NonFiniteValuesAreRefusedAndTheRecordIsGone) {
  SmallRecord bad(small_info(1));
  const std::uint16_t inf = 0xff80;
  std::memcpy(bad.bits[2].data() + (2 * 27 + 4) * 8 * 2, &inf, 2);
  const SmallRecord good(small_info(2));
  CaptureWriter writer(path_, small_capture_info());
  EXPECT_THROW(writer.write_record(bad.info, bad.view(0), bad.view(1), bad.view(2)), NotFinite);
  expect_error([&] { writer.write_record(bad.info, bad.view(0), bad.view(1), bad.view(2)); },
               {"/records/000001/v", "head 9, token 4, channel 0"});
  writer.write_record(good.info, good.view(0), good.view(1), good.view(2));
  writer.finish();
  const Capture capture = Capture::open(path_);
  ASSERT_EQ(capture.records().size(), 1U);
  EXPECT_EQ(capture.records()[0].number, 2);
}

TEST_F(CaptureWriterTest, BadArgumentsAreRefused) {
  const SmallRecord good(small_info());
  write_small(path_, {good});
  expect_error([&] { CaptureWriter(path_, CaptureInfo{}); }, {path_, "exists already"});
  EXPECT_EQ(Capture::open(path_).records().size(), 1U) << "the old file is untouched";
  expect_error([&] { CaptureWriter(folder_ / "no/such/folder.h5", CaptureInfo{}); },
               {"cannot be created"});
  CaptureWriter writer(folder_ / "new.h5", {});
  const auto refuse = [&](const std::function<void(RecordInfo&)>& change, const char* part) {
    RecordInfo info = small_info();
    change(info);
    expect_error([&] { writer.write_record(info, good.view(0), good.view(1), good.view(2)); },
                 {part});
  };
  refuse([](RecordInfo& i) { i.scale = 0.0; }, "scale");
  refuse([](RecordInfo& i) { i.scale = std::nan(""); }, "scale");
  refuse([](RecordInfo& i) { i.heads = {5, 5, 9}; }, "distinct");
  refuse([](RecordInfo& i) { i.heads = {5, 2}; }, "3 heads");
  refuse([](RecordInfo& i) { i.segments.pop_back(); }, "cover 24 tokens");
  refuse([](RecordInfo& i) { i.number = 1000000; }, "1000000");
  refuse([](RecordInfo& i) { i.tokens = 0; }, "positive");
  refuse([](RecordInfo& i) { i.site.step = -1; }, "negative");
  const std::vector<std::uint8_t> short_mask(5, 1);
  expect_error([&] { writer.begin_record(small_info(), short_mask); }, {"5 elements for 27"});
  TensorView narrow = good.view(0);
  narrow.head_dim = 4;
  expect_error([&] { writer.write_record(small_info(), narrow, good.view(1), good.view(2)); },
               {"[1, 27, 4]"});
  TensorView cuda = good.view(0);
  cuda.device = {DeviceKind::cuda, 0};
  expect_error([&] { writer.write_record(small_info(), cuda, good.view(1), good.view(2)); },
               {"on cuda:0"});
  writer.write_record(good.info, good.view(0), good.view(1), good.view(2));
  expect_error([&] { writer.write_record(good.info, good.view(0), good.view(1), good.view(2)); },
               {"is written already"});
  CaptureInfo bad_seed;
  bad_seed.seed = "12x";
  expect_error([&] { CaptureWriter(folder_ / "seed.h5", bad_seed); }, {"seed `12x`"});
}

TEST_F(CaptureWriterTest, HeadByHeadAndItsOrder) {
  const SmallRecord record(small_info());
  CaptureWriter writer(path_, small_capture_info());
  const auto put = [&](std::int64_t h) {
    writer.write_head(record.view(0).slice_heads(h, 1), record.view(1).slice_heads(h, 1),
                      record.view(2).slice_heads(h, 1));
  };
  expect_error([&] { put(0); }, {"call begin_record() first"});
  writer.begin_record(record.info);
  put(0);
  put(1);
  expect_error([&] { writer.end_record(); }, {"2 of 3 heads"});
  expect_error([&] { writer.finish(); }, {"call end_record() first"});
  expect_error([&] { writer.begin_record(small_info(5)); }, {"call end_record() first"});
  put(2);
  expect_error([&] { put(2); }, {"all 3 heads are written"});
  writer.end_record();
  writer.finish();
  const Capture capture = Capture::open(path_);
  EXPECT_TRUE(same_bits(capture.load(capture.record(42))->view().v, record.bits[2], 2, 2));
}

// Killed without finish(): whole records can be read, the one in progress is left out with a
// warning.
TEST_F(CaptureWriterTest, InterruptedFilesKeepTheirWholeRecords) {
  const SmallRecord first(small_info(1));
  const SmallRecord second(small_info(2));
  {
    CaptureWriter writer(path_, small_capture_info());
    writer.write_record(first.info, first.view(0), first.view(1), first.view(2));
    // The state on disk after a flush, as a killed process leaves it.
    std::filesystem::copy_file(path_, folder_ / "killed.h5");
    writer.begin_record(second.info);
    writer.write_head(second.view(0).slice_heads(0, 1), second.view(1).slice_heads(0, 1),
                      second.view(2).slice_heads(0, 1));
  }
  for (const std::string& path : {path_, folder_ / "killed.h5"}) {
    const Capture capture = Capture::open(path);
    EXPECT_FALSE(capture.info().complete);
    ASSERT_EQ(capture.records().size(), 1U) << path;
    EXPECT_TRUE(same_bits(capture.load(capture.record(1))->view().q, first.bits[0], 1, 1));
    ASSERT_FALSE(capture.warnings().empty());
    EXPECT_NE(capture.warnings()[0].find("interrupted"), std::string::npos);
  }
  const auto warnings = Capture::open(path_).warnings();
  ASSERT_EQ(warnings.size(), 2U);
  EXPECT_NE(warnings[1].find("/records/000002"), std::string::npos) << warnings[1];
}

// A file-size limit stands in for a full disk: both fail the write in mid record.
TEST_F(CaptureWriterTest, NoSpaceIsAnErrorAndTheProgramLivesOn) {
  RecordInfo info = small_info(1);
  info.tokens = 1 << 18;
  info.segments = {{Role::text, 0, info.tokens, 0, 0, 0}};
  const std::vector<std::uint16_t> head(static_cast<std::size_t>(info.tokens * info.head_dim));
  const TensorView view = contiguous_view(head.data(), DType::bf16, 1, info.tokens, info.head_dim);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  {
    CaptureWriter writer(path_, small_capture_info());
    const SmallRecord small(small_info(7));
    writer.write_record(small.info, small.view(0), small.view(1), small.view(2));
    rlimit tight = before;
    tight.rlim_cur = 6 << 20;  // one head of q, k, v is 12 MiB
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
    writer.begin_record(info);
    expect_error([&] { writer.write_head(view, view, view); },
                 {path_, "/records/000001", "is there space left on the device?"});
    setrlimit(RLIMIT_FSIZE, &before);
  }
  std::signal(SIGXFSZ, handler);
  const Capture capture = Capture::open(path_);
  ASSERT_EQ(capture.records().size(), 1U);
  EXPECT_EQ(capture.records()[0].number, 7);
}

std::int64_t peak_kilobytes() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6));
  }
  return -1;
}

// 64 heads of 1 MiB a tensor, 192 MiB in all, written and read head by head.
TEST_F(CaptureWriterTest, StreamingNeedsAFewHeadsOfMemory) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer keeps freed memory";
#endif
  RecordInfo info = small_info(1);
  info.head_dim = 64;
  info.tokens = 8192;
  info.segments = {{Role::video, 0, 8192, 8, 32, 32}};
  info.heads.clear();
  for (int h = 0; h < 64; ++h) info.heads.push_back(h);
  info.heads_total = 64;
  const std::vector<std::uint16_t> head(8192 * 64, 0x3f80);
  const TensorView view = contiguous_view(head.data(), DType::bf16, 1, 8192, 64);
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the peak
  const std::int64_t before = peak_kilobytes();
  if (before < 0) GTEST_SKIP() << "no /proc here";
  CaptureWriter writer(path_, small_capture_info());
  writer.begin_record(info);
  for (int h = 0; h < 64; ++h) writer.write_head(view, view, view);
  writer.end_record();
  writer.finish();
  const Capture capture = Capture::open(path_, {.map = false});
  for (const int h : capture.record(1).heads) {
    const std::vector<int> one{h};
    EXPECT_EQ(capture.load(capture.record(1), one)->view().heads(), 1);
  }
  EXPECT_LT(peak_kilobytes() - before, 32 * 1024);
}

}  // namespace
}  // namespace raingauge
