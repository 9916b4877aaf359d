// SPDX-License-Identifier: Apache-2.0
#include "data/plan_file.h"

#include <gtest/gtest.h>

#include <numeric>

#include "capture_fixture.h"

namespace raingauge {
namespace {

using namespace testing_support;

// 2 heads (originals 3, 8), 10 tokens; orders and key blocks differ by head, one key block is
// empty, the last query block is empty and keeps nothing.
PlanFile small_file() {
  PlanFile file;
  Plan& plan = file.plan;
  plan.heads = 2;
  plan.tokens = 10;
  plan.q_order = {1, 10, false, {9, 8, 7, 6, 5, 4, 3, 2, 1, 0}};
  plan.k_order = {2, 10, false, {0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0}};
  plan.q_blocks = {1, 4, {0, 4, 8, 10, 10}};
  plan.k_blocks = {2, 3, {0, 4, 8, 10, 0, 5, 5, 10}};
  plan.lists.heads = 2;
  plan.lists.query_blocks = 4;
  plan.lists.row_offsets = {0, 2, 3, 4, 4, 5, 7, 8, 8};
  plan.lists.columns = {0, 2, 1, 2, 0, 0, 2, 2};
  file.capture = "clip.h5";
  file.record = "42";
  file.arm = "{method: dense}";
  file.method = "dense";
  file.heads = {3, 8};
  file.nominal_density = {0.25, 0.25};
  return file;
}

class PlanFileTest : public ::testing::Test {
 protected:
  void rewrite(const char* name, const std::vector<hsize_t>& dims, hid_t type, const void* data) {
    edit(path_, [&](hid_t f) {
      if (hdf5::has_link(f, name)) H5Ldelete(f, name, H5P_DEFAULT);
      const hdf5::Handle space(
          H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr));
      const hdf5::Handle d(
          H5Dcreate2(f, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
      H5Dwrite(d.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    });
  }
  TempFolder folder_;
  std::string path_ = folder_ / "plan.h5";
};

TEST_F(PlanFileTest, RoundTrip) {
  const PlanFile file = small_file();
  write_plan(path_, file);
  const PlanFile got = read_plan(path_);
  EXPECT_TRUE(got.warnings.empty()) << got.warnings.front();
  EXPECT_EQ(plan_fingerprint(got.plan), plan_fingerprint(file.plan));
  EXPECT_EQ(got.plan.q_order.index, file.plan.q_order.index);
  EXPECT_EQ(got.plan.k_order.index, file.plan.k_order.index);
  EXPECT_EQ(got.plan.k_blocks.offsets, file.plan.k_blocks.offsets);
  EXPECT_EQ(got.plan.lists.row_offsets, file.plan.lists.row_offsets);
  EXPECT_EQ(got.plan.lists.columns, file.plan.lists.columns);
  EXPECT_EQ(got.heads, file.heads);
  EXPECT_EQ(got.capture, "clip.h5");
  EXPECT_EQ(got.record, "42");
  EXPECT_EQ(got.arm, file.arm);
  EXPECT_EQ(got.method, "dense");
  EXPECT_EQ(got.plan.nominal_density, 0.25);
  EXPECT_EQ(got.density.pairs, measure_density(file.plan).pairs);
  // Head 0: (4 x 6 + 4 x 4 + 2 x 2) of 100 pairs, 4 of 3 x 3 block pairs; the empty query block and
  // head 1's empty key block are left out.
  EXPECT_DOUBLE_EQ(got.density.pairs[0], 0.44);
  EXPECT_DOUBLE_EQ(got.density.blocks[0], 4.0 / 9.0);
  EXPECT_DOUBLE_EQ(got.density.blocks[1], 4.0 / 6.0);
}

// The layout other programs read: absolute positions, one row of offsets a head.
TEST_F(PlanFileTest, LayoutOnDisk) {
  write_plan(path_, small_file());
  const hdf5::Session session;
  const hdf5::Handle file(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  const auto dims = [&](const char* name) {
    const hdf5::Handle d(H5Dopen2(file.get(), name, H5P_DEFAULT));
    const hdf5::Handle s(H5Dget_space(d.get()));
    return hdf5::extent(s.get(), name);
  };
  EXPECT_EQ(dims("q_order"), (std::vector<std::int64_t>{1, 10}));
  EXPECT_EQ(dims("k_order"), (std::vector<std::int64_t>{2, 10}));
  EXPECT_EQ(dims("k_offsets"), (std::vector<std::int64_t>{2, 4}));
  ASSERT_EQ(dims("row_offsets"), (std::vector<std::int64_t>{2, 5}));
  std::vector<std::int64_t> offsets(10);
  const hdf5::Handle d(H5Dopen2(file.get(), "row_offsets", H5P_DEFAULT));
  H5Dread(d.get(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, offsets.data());
  EXPECT_EQ(offsets, (std::vector<std::int64_t>{0, 2, 3, 4, 4, 4, 5, 7, 8, 8}));
}

TEST_F(PlanFileTest, IdentityOrdersAreWrittenOutAndRecognised) {
  PlanFile file = small_file();
  file.plan = dense_plan(2, 300, 128);
  write_plan(path_, file);
  const PlanFile got = read_plan(path_);
  EXPECT_TRUE(got.plan.q_order.identity);
  EXPECT_TRUE(got.plan.k_order.index.empty());
  EXPECT_EQ(plan_fingerprint(got.plan), plan_fingerprint(file.plan));
}

TEST_F(PlanFileTest, RequiredDatasetsAreNamed) {
  for (const char* name :
       {"q_order", "k_order", "q_offsets", "k_offsets", "row_offsets", "columns", "heads"}) {
    write_plan(path_, small_file(), true);
    edit(path_, [&](hid_t f) { H5Ldelete(f, name, H5P_DEFAULT); });
    expect_error([&] { read_plan(path_); }, {path_, name, "is missing"});
  }
}

TEST_F(PlanFileTest, OptionalPartsMayBeAbsentOrWrong) {
  write_plan(path_, small_file());
  edit(path_, [](hid_t f) {
    for (const char* name : {"density_pairs", "density_blocks", "nominal_density"}) {
      H5Ldelete(f, name, H5P_DEFAULT);
    }
    for (const char* name : {"capture", "record", "arm", "method"}) H5Adelete(f, name);
  });
  PlanFile got = read_plan(path_);
  EXPECT_TRUE(got.warnings.empty());
  EXPECT_TRUE(std::isnan(got.plan.nominal_density));
  EXPECT_TRUE(std::isnan(got.nominal_density[1]));
  EXPECT_EQ(got.record, "");
  const double wrong[2] = {0.44, 0.2};
  rewrite("density_pairs", {2}, H5T_IEEE_F64LE, wrong);
  rewrite("nominal_density", {1}, H5T_IEEE_F64LE, wrong);
  got = read_plan(path_);
  ASSERT_EQ(got.warnings.size(), 2U);
  EXPECT_NE(got.warnings[0].find("/density_pairs: head at index 1 says 0.2"), std::string::npos)
      << got.warnings[0];
  EXPECT_NE(got.warnings[1].find("/nominal_density: holds 1 values for 2 heads"),
            std::string::npos);
  const double nan[2] = {0.44, std::nan("")};
  rewrite("density_pairs", {2}, H5T_IEEE_F64LE, nan);
  EXPECT_EQ(read_plan(path_).warnings.size(), 2U) << "NaN is a mismatch";
  edit(path_, [&](hid_t f) { hdf5::write_string(f, "record", "000042", path_); });
  EXPECT_EQ(read_plan(path_).record, "000042");
}

// int64 orders, uint8 columns, rank-1 shared rows: what NumPy writes when nobody thinks about it.
TEST_F(PlanFileTest, OtherIntegersAndSharedRowsOfRankOne) {
  const PlanFile file = small_file();
  write_plan(path_, file);
  const std::vector<std::int64_t> order(file.plan.q_order.index.begin(),
                                        file.plan.q_order.index.end());
  rewrite("q_order", {10}, H5T_STD_I64LE, order.data());
  const std::vector<std::uint8_t> columns(file.plan.lists.columns.begin(),
                                          file.plan.lists.columns.end());
  rewrite("columns", {8}, H5T_STD_U8LE, columns.data());
  EXPECT_EQ(plan_fingerprint(read_plan(path_).plan), plan_fingerprint(file.plan));
}

TEST_F(PlanFileTest, BreachesAreInvalidPlansWithTheFile) {
  const auto refuse = [&](const std::vector<std::string>& parts) {
    EXPECT_THROW(read_plan(path_), InvalidPlan);
    expect_error([&] { read_plan(path_); }, parts);
  };
  write_plan(path_, small_file());
  const std::int64_t far[10] = {9, 8, 7, 6, 5, 4, 3, 2, 1, std::int64_t{1} << 40};
  rewrite("q_order", {1, 10}, H5T_STD_I64LE, far);
  refuse({path_, "query order", "position 9 holds token 2147483647"});
  write_plan(path_, small_file(), true);
  const std::int64_t relative[10] = {0, 2, 3, 4, 4, 0, 1, 3, 4, 4};
  rewrite("row_offsets", {2, 5}, H5T_STD_I64LE, relative);
  refuse({path_, "/row_offsets", "head 1 starts at column 0 instead of 4", "absolute"});
  const std::int64_t beyond[10] = {0, 2, 3, 4, 4, 4, 5, 7, 8, 99};
  rewrite("row_offsets", {2, 5}, H5T_STD_I64LE, beyond);
  refuse({path_, "run from 0 to 99"});
  rewrite("row_offsets", {5, 2}, H5T_STD_I64LE, beyond);
  refuse({path_, "has shape [5, 2]"});
  write_plan(path_, small_file(), true);
  const std::int32_t twice[2] = {3, 3};
  rewrite("heads", {2}, H5T_STD_I32LE, twice);
  refuse({path_, "names a head twice"});
  const std::int32_t three[3] = {3, 4, 5};
  rewrite("heads", {3}, H5T_STD_I32LE, three);
  refuse({path_, "has 2 rows", "one a head"});
}

TEST_F(PlanFileTest, BadFilesAreErrors) {
  expect_error([&] { read_plan(folder_ / "missing.h5"); }, {"missing.h5"});
  write_small(path_, {SmallRecord(small_info())});
  expect_error([&] { read_plan(path_); }, {"`raingauge-capture`", "is this a capture?"});
  write_plan(path_, small_file(), true);
  edit(path_, [&](hid_t f) { hdf5::write_integer(f, "version", 2, path_); });
  expect_error([&] { read_plan(path_); }, {path_, "version 2 is unknown"});
  write_plan(path_, small_file(), true);
  const double reals[8] = {};
  rewrite("columns", {8}, H5T_IEEE_F64LE, reals);
  expect_error([&] { read_plan(path_); }, {"/columns", "must hold integers"});
}

TEST_F(PlanFileTest, WritingRefusesWhatItCannotHold) {
  PlanFile file = small_file();
  write_plan(path_, file);
  expect_error([&] { write_plan(path_, file); }, {path_, "exists already"});
  file.heads = {3};
  expect_error([&] { write_plan(path_, file, true); }, {"1 head numbers"});
  file = small_file();
  file.plan.terms.push_back({"coarse"});
  EXPECT_THROW(write_plan(path_, file, true), Unsupported);
  file = small_file();
  file.plan.lists.columns[0] = 7;
  EXPECT_THROW(write_plan(path_, file, true), InvalidPlan);
  EXPECT_EQ(read_plan(path_).heads.size(), 2U) << "the old file is untouched";
}

TEST_F(PlanFileTest, InvalidKeysEnterCheckAndDensity) {
  write_plan(path_, small_file());
  std::vector<std::uint8_t> valid(10, 1);
  valid[9] = 0;
  const PlanFile got = read_plan(path_, valid.data());
  EXPECT_EQ(got.density.pairs, measure_density(small_file().plan, valid.data()).pairs);
  EXPECT_FALSE(got.warnings.empty()) << "the file counted every key";
}

}  // namespace
}  // namespace raingauge
