// SPDX-License-Identifier: Apache-2.0
// What the reader accepts and what it refuses, with messages that name the place.
#include "data/capture.h"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "capture_fixture.h"
#include "data/hdf5_tensor.h"

namespace raingauge {
namespace {

using namespace testing_support;

class CaptureTest : public ::testing::Test {
 protected:
  void write(DType dtype = DType::bf16) {
    records_ = {SmallRecord(small_info(42, dtype))};
    write_small(path_, records_);
  }
  void expect_refused(const std::vector<std::string>& parts) {
    expect_error([&] { Capture::open(path_); }, parts);
  }

  TempFolder folder_;
  std::string path_ = folder_ / "clip.h5";
  std::vector<SmallRecord> records_;
};

TEST_F(CaptureTest, SubsetsOfHeadsInAnyOrder) {
  for (const bool gzip : {false, true}) {
    for (const bool map : {false, true}) {
      records_ = {SmallRecord(small_info())};
      write_small(path_, records_, {.overwrite = true, .gzip = gzip});
      const Capture capture = Capture::open(path_, {.map = map});
      const std::vector<std::pair<std::vector<int>, std::vector<int>>> cases{
          {{5, 2, 9}, {0, 1, 2}},
          {{5, 9}, {0, 2}},
          {{9, 5}, {2, 0}},
          {{2}, {1}},
          {{9, 2, 5}, {2, 1, 0}}};
      for (const auto& [heads, indices] : cases) {
        const auto record = capture.load(capture.record(42), heads);
        EXPECT_EQ(record->info().heads, heads);
        for (std::size_t i = 0; i < heads.size(); ++i) {
          const auto head = static_cast<std::int64_t>(i);
          EXPECT_TRUE(same_bits(record->view().q, records_[0].bits[0], head, indices[i]));
          EXPECT_TRUE(same_bits(record->view().k, records_[0].bits[1], head, indices[i]));
          EXPECT_TRUE(same_bits(record->view().v, records_[0].bits[2], head, indices[i]));
        }
      }
      const std::vector<int> missing{3};
      expect_error([&] { capture.load(capture.record(42), missing); },
                   {path_, "/records/000042", "head 3 is not stored", "5, 2, 9"});
    }
  }
}

TEST_F(CaptureTest, RecordsOutliveTheCapture) {
  write();
  std::unique_ptr<Record> record;
  {
    const Capture capture = Capture::open(path_);
    record = capture.load(capture.record(42));
  }
  EXPECT_TRUE(same_bits(record->view().k, records_[0].bits[1], 2, 2));
}

TEST_F(CaptureTest, ReadersInSeveralThreads) {
  write();
  const Capture capture = Capture::open(path_, {.map = false});
  std::vector<std::thread> threads;
  std::vector<int> good(4, 0);
  for (std::size_t i = 0; i < good.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) {
        const auto record = capture.load(capture.record(42));
        good[i] += same_bits(record->view().v, records_[0].bits[2], 1, 1) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, std::vector<int>(4, 20));
}

TEST_F(CaptureTest, NotACapture) {
  expect_error([&] { Capture::open(folder_ / "missing.h5"); }, {"missing.h5", "No such file"});
  expect_error([&] { Capture::open(folder_ / ""); }, {"is a directory"});
  std::ofstream(path_) << "this is text";
  expect_refused({path_, "is not an HDF5 file"});
  std::ofstream(path_, std::ios::trunc).close();
  expect_refused({path_, "is not an HDF5 file"});
  std::filesystem::remove(path_);
  const hdf5::Handle empty(H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  H5Fflush(empty.get(), H5F_SCOPE_LOCAL);
  expect_refused({path_, "`format` is missing", "raingauge-capture"});
}

TEST_F(CaptureTest, UnknownFormatAndVersion) {
  write();
  edit(path_, [&](hid_t f) { hdf5::write_string(f, "format", "raingauge-plan", path_); });
  expect_refused({path_, "`format` is `raingauge-plan`"});
  edit(path_, [&](hid_t f) {
    hdf5::write_string(f, "format", "raingauge-capture", path_);
    hdf5::write_integer(f, "version", 2, path_);
  });
  expect_refused({path_, "version 2 is unknown", "reads version 1"});
  // A pair [major, minor] is read by its major.
  edit(path_, [&](hid_t f) { hdf5::write_integers(f, "version", {1, 7}, path_); });
  EXPECT_EQ(Capture::open(path_).records().size(), 1U);
}

TEST_F(CaptureTest, MissingPiecesAreNamed) {
  for (const char* name : {"layer_index", "step", "branch", "scale"}) {
    write();
    edit_record(path_, [&](hid_t record) { H5Adelete(record, name); });
    expect_refused({path_, "/records/000042", name, "is missing"});
    std::filesystem::remove(path_);
  }
  for (const char* name : {"q", "k", "v", "segments"}) {
    write();
    edit_record(path_, [&](hid_t record) { H5Ldelete(record, name, H5P_DEFAULT); });
    expect_refused({path_, "/records/000042", name, "is missing"});
    std::filesystem::remove(path_);
  }
}

TEST_F(CaptureTest, DisagreementsAreNamed) {
  write();
  edit_record(path_, [&](hid_t r) { hdf5::write_integers(r, "heads", {5, 2}, path_); });
  expect_refused({"`heads` names 2 heads, the tensors hold 3"});
  edit_record(path_, [&](hid_t r) { hdf5::write_integers(r, "heads", {5, 2, 5}, path_); });
  expect_refused({"names a head twice"});
  edit_record(path_, [&](hid_t r) { hdf5::write_integers(r, "heads", {5, 2, 12}, path_); });
  expect_refused({"head 12", "`heads_total` is 12"});
  edit_record(path_, [&](hid_t r) {
    hdf5::write_integers(r, "heads", {5, 2, 9}, path_);
    hdf5::write_real(r, "scale", std::nan(""), path_);
  });
  expect_refused({"`scale` is nan"});
  edit_record(path_, [&](hid_t r) { hdf5::write_string(r, "scale", "1", path_); });
  expect_refused({"attribute `scale`", "is not a number"});
  edit_record(path_, [&](hid_t r) {
    hdf5::write_real(r, "scale", 0.5, path_);
    hdf5::write_integer(r, "step", -1, path_);
  });
  expect_refused({"`step` is -1"});
}

// Replaces a tensor of the record by one of another shape or type, fully written.
void replace_tensor(const std::string& path, const char* name, DType dtype, std::int64_t heads,
                    std::int64_t tokens, std::int64_t dim) {
  edit_record(path, [&](hid_t record) {
    H5Ldelete(record, name, H5P_DEFAULT);
    const auto tensor = hdf5::create_tensor(record, name, path, dtype, heads, tokens, dim, {});
    const std::vector<float> zeros(static_cast<std::size_t>(tokens * dim));
    for (std::int64_t h = 0; h < heads; ++h) hdf5::write_head(tensor, h, zeros.data());
  });
}

TEST_F(CaptureTest, ShapesOfQKVMustAgree) {
  write();
  replace_tensor(path_, "k", DType::bf16, 3, 28, 8);
  expect_refused({path_, "/records/000042", "`q` is [3, 27, 8] bf16 but `k` is [3, 28, 8] bf16"});
  replace_tensor(path_, "k", DType::f16, 3, 27, 8);
  expect_refused({"`k` is [3, 27, 8] f16"});
  for (const char* name : {"q", "k", "v"}) replace_tensor(path_, name, DType::bf16, 3, 28, 8);
  expect_refused({"/records/000042/segments", "cover 27 tokens, but there are 28"});
}

// A dataset made by hand in place of q.
void replace_q(const std::string& path, hid_t type, const std::vector<hsize_t>& dims,
               const void* data, hid_t creation = H5P_DEFAULT) {
  edit_record(path, [&](hid_t record) {
    H5Ldelete(record, "q", H5P_DEFAULT);
    const hdf5::Handle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr));
    const hdf5::Handle dataset(
        H5Dcreate2(record, "q", type, space.get(), H5P_DEFAULT, creation, H5P_DEFAULT));
    ASSERT_TRUE(static_cast<bool>(dataset));
    if (data != nullptr) H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
  });
}

TEST_F(CaptureTest, HostileDatasets) {
  write();
  const std::vector<double> doubles(3 * 27 * 8);
  replace_q(path_, H5T_IEEE_F64LE, {3, 27, 8}, doubles.data());
  expect_refused({"/records/000042/q", "float elements of 64 bits", "f32, f16 and bf16"});
  replace_q(path_, H5T_STD_I32LE, {3, 27, 8}, doubles.data());
  expect_refused({"/records/000042/q", "does not hold floats"});
  replace_q(path_, H5T_STD_U16LE, {3, 27, 8}, doubles.data());
  expect_refused({"/records/000042/q", "bare uint16"});
  replace_q(path_, H5T_IEEE_F32LE, {3, 216}, doubles.data());
  expect_refused({"/records/000042/q", "has rank 2"});
  replace_q(path_, H5T_IEEE_F32LE, {3, 27, 0}, nullptr);
  expect_refused({"/records/000042/q", "has shape [3, 27, 0]"});
  // Terabytes that were never written: contiguous and chunked.
  replace_q(path_, H5T_IEEE_F32LE, {60000, 2000000000, 512}, nullptr);
  expect_refused({"/records/000042/q", "never written completely"});
  replace_q(path_, H5T_IEEE_F32LE, {70000, 27, 8}, nullptr);
  expect_refused({"/records/000042/q", "has shape"});
  const hdf5::Handle chunked(H5Pcreate(H5P_DATASET_CREATE));
  const hsize_t chunk[3] = {1, 4096, 128};
  H5Pset_chunk(chunked.get(), 3, chunk);
  replace_q(path_, H5T_IEEE_F32LE, {3, 2000000000, 512}, nullptr, chunked.get());
  expect_refused({"/records/000042/q", "0 of", "chunks"});
  // Elements in another file.
  const hdf5::Handle external(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_external(external.get(), "/etc/passwd", 0, 3 * 27 * 8 * 4);
  replace_q(path_, H5T_IEEE_F32LE, {3, 27, 8}, nullptr, external.get());
  expect_refused({"/records/000042/q", "in other files"});
}

TEST_F(CaptureTest, LinksOutOfTheFileAreNotFollowed) {
  write();
  edit_record(path_, [&](hid_t record) {
    H5Ldelete(record, "q", H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/q", record, "q", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refused({"/records/000042/q", "link to another file"});
}

TEST_F(CaptureTest, WrongNamesInRecords) {
  write();
  edit(path_, [](hid_t f) {
    const hdf5::Handle g(H5Gcreate2(f, "/records/s01_l02", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  });
  expect_refused({"/records/s01_l02", "six digits"});
}

TEST_F(CaptureTest, Uint16WithAttributeIsBfloat16) {
  write();
  const auto bits = records_[0].bits[0];
  replace_q(path_, H5T_STD_U16LE, {3, 27, 8}, bits.data());
  edit_record(path_, [&](hid_t record) {
    const hdf5::Handle q(H5Dopen2(record, "q", H5P_DEFAULT));
    hdf5::write_string(q.get(), "dtype", "bfloat16", path_);
  });
  const Capture capture = Capture::open(path_);
  EXPECT_TRUE(same_bits(capture.load(capture.record(42))->view().q, bits, 1, 1));
}

TEST_F(CaptureTest, BigEndianElementsAreSwapped) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    write(dtype);
    const auto& bits = records_[0].bits[0];
    std::vector<std::byte> swapped = bits;
    const std::size_t size = size_of(dtype);
    for (std::size_t i = 0; i < swapped.size(); i += size) {
      std::reverse(swapped.begin() + static_cast<std::ptrdiff_t>(i),
                   swapped.begin() + static_cast<std::ptrdiff_t>(i + size));
    }
    const hdf5::Handle type(H5Tcopy(H5T_IEEE_F32BE));
    if (dtype == DType::bf16) {
      H5Tset_fields(type.get(), 15, 7, 8, 0, 7);
      H5Tset_size(type.get(), 2);
    }
    replace_q(path_, type.get(), {3, 27, 8}, swapped.data());
    const Capture capture = Capture::open(path_);
    EXPECT_TRUE(same_bits(capture.load(capture.record(42))->view().q, bits, 2, 2));
    std::filesystem::remove(path_);
  }
}

TEST_F(CaptureTest, NonFiniteValuesAreRefusedOrAllowed) {
  SmallRecord record(small_info());
  const std::uint16_t nan = 0x7fc1;
  // Head index 1 (original 2), token 20, channel 3 of k.
  std::memcpy(record.bits[1].data() + ((27 + 20) * 8 + 3) * 2, &nan, 2);
  write_small(path_, {record}, {.allow_nonfinite = true});
  const Capture strict = Capture::open(path_);
  EXPECT_THROW(strict.load(strict.record(42)), NotFinite);
  expect_error([&] { strict.load(strict.record(42)); },
               {path_, "/records/000042/k", "head 2, token 20, channel 3", "NaN or Inf"});
  const std::vector<int> others{5, 9};
  EXPECT_NO_THROW(strict.load(strict.record(42), others));
  const Capture lenient = Capture::open(path_, {.allow_nonfinite = true});
  EXPECT_TRUE(same_bits(lenient.load(lenient.record(42))->view().k, record.bits[1], 1, 1));
}

// Strings of fixed length, integers of other widths and byte orders, bools as enums, as other
// programs write them.
TEST_F(CaptureTest, OtherProgramsTypes) {
  write();
  edit_record(path_, [&](hid_t record) {
    for (const char* name : {"branch", "step", "layer_index", "scale", "rope_applied", "heads"}) {
      H5Adelete(record, name);
    }
    const hdf5::Handle scalar(H5Screate(H5S_SCALAR));
    const auto put = [&](const char* name, hid_t type, hid_t space, const void* value) {
      const hdf5::Handle a(H5Acreate2(record, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
      H5Awrite(a.get(), type, value);
    };
    const hdf5::Handle text(H5Tcopy(H5T_C_S1));
    H5Tset_size(text.get(), 9);
    H5Tset_strpad(text.get(), H5T_STR_SPACEPAD);
    put("branch", text.get(), scalar.get(), "cond     ");
    const unsigned char big[2] = {0x01, 0x02};  // 258, big endian
    put("step", H5T_STD_U16BE, scalar.get(), big);
    const std::uint64_t layer = 11;
    put("layer_index", H5T_STD_U64LE, scalar.get(), &layer);
    const float scale = 0.25F;
    put("scale", H5T_IEEE_F32LE, scalar.get(), &scale);
    const hdf5::Handle boolean(H5Tenum_create(H5T_STD_I8LE));
    std::int8_t value = 0;
    H5Tenum_insert(boolean.get(), "FALSE", &value);
    value = 1;
    H5Tenum_insert(boolean.get(), "TRUE", &value);
    value = 0;
    put("rope_applied", boolean.get(), scalar.get(), &value);
    const hsize_t three[1] = {3};
    const hdf5::Handle vector(H5Screate_simple(1, three, nullptr));
    const std::int8_t heads[3] = {4, 0, 11};
    put("heads", H5T_STD_I8LE, vector.get(), heads);
  });
  const Capture capture = Capture::open(path_);
  const RecordInfo& info = capture.record(42);
  EXPECT_EQ(info.site.branch, "cond");
  EXPECT_EQ(info.site.step, 258);
  EXPECT_EQ(info.site.layer, 11);
  EXPECT_EQ(info.scale, 0.25);
  EXPECT_FALSE(info.rope_applied);
  EXPECT_EQ(info.heads, (std::vector<int>{4, 0, 11}));
}

TEST_F(CaptureTest, SegmentsWithVariableStringsAndSmallIntegers) {
  write();
  edit_record(path_, [&](hid_t record) {
    H5Ldelete(record, "segments", H5P_DEFAULT);
    struct Row {
      const char* role;
      std::int16_t start, length;
      std::uint8_t frames, height, width;
    };
    const Row rows[2] = {{"video", 0, 24, 2, 3, 4}, {"text", 24, 3, 0, 0, 0}};
    const hdf5::Handle text(H5Tcopy(H5T_C_S1));
    H5Tset_size(text.get(), H5T_VARIABLE);
    const hdf5::Handle type(H5Tcreate(H5T_COMPOUND, sizeof(Row)));
    H5Tinsert(type.get(), "width", HOFFSET(Row, width), H5T_NATIVE_UINT8);
    H5Tinsert(type.get(), "role", HOFFSET(Row, role), text.get());
    H5Tinsert(type.get(), "start", HOFFSET(Row, start), H5T_NATIVE_INT16);
    H5Tinsert(type.get(), "length", HOFFSET(Row, length), H5T_NATIVE_INT16);
    H5Tinsert(type.get(), "frames", HOFFSET(Row, frames), H5T_NATIVE_UINT8);
    H5Tinsert(type.get(), "height", HOFFSET(Row, height), H5T_NATIVE_UINT8);
    const hsize_t dims[1] = {2};
    const hdf5::Handle space(H5Screate_simple(1, dims, nullptr));
    const hdf5::Handle dataset(H5Dcreate2(record, "segments", type.get(), space.get(), H5P_DEFAULT,
                                          H5P_DEFAULT, H5P_DEFAULT));
    H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, rows);
  });
  EXPECT_EQ(Capture::open(path_).record(42).segments, small_info().segments);
}

TEST_F(CaptureTest, UnknownRecordAndFrames) {
  write();
  const Capture capture = Capture::open(path_);
  expect_error([&] { capture.record(7); }, {path_, "no record 7", "from 42 to 42"});
  EXPECT_TRUE(capture.frame_arms().empty());
  expect_error([&] { capture.read_frames("dense"); }, {path_, "/frames/dense", "none"});
  expect_error([&] { capture.load_output(capture.record(42)); }, {"no dataset `o`"});
}

TEST_F(CaptureTest, GenerationComesFromPromptAndSeedOrTheFileName) {
  write();
  const std::string id = Capture::open(path_).info().generation;
  EXPECT_NE(id.find("Wan-AI/Wan2.1-T2V-1.3B|seed 18446744073709551615|"), std::string::npos) << id;
  edit(path_, [](hid_t f) { H5Adelete(f, "seed"); });
  EXPECT_EQ(Capture::open(path_).info().generation, "clip");
  EXPECT_EQ(Capture::open(path_).record(42).generation, "clip");
}

}  // namespace
}  // namespace raingauge
