// SPDX-License-Identifier: Apache-2.0
#include "data/hdf5_util.h"

#include <gtest/gtest.h>

#include "capture_fixture.h"

namespace raingauge {
namespace {

using namespace testing_support;

TEST(Hdf5UtilTest, Utf8) {
  EXPECT_TRUE(hdf5::valid_utf8(""));
  EXPECT_TRUE(hdf5::valid_utf8("a \xc3\xbc \xe2\x98\x82 \xf0\x9f\x90\xb8"));
  for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80",
                          "\xf8\x88\x80\x80", "\xf4\x90\x80\x80", "\xc3\x28", "\xff"}) {
    EXPECT_FALSE(hdf5::valid_utf8(bad)) << bad;
  }
}

TEST(Hdf5UtilTest, AttributesAreCheckedForTheirKind) {
  const TempFolder folder;
  const hdf5::Session session;
  const hdf5::Handle file(
      H5Fcreate((folder / "a.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  const hid_t f = file.get();
  hdf5::write_string(f, "text", "x", "F");
  hdf5::write_integers(f, "three", {1, 2, 3}, "F");
  hdf5::write_real(f, "real", 1.5, "F");
  EXPECT_TRUE(hdf5::write_integer_text(f, "big", "18446744073709551615", "F"));
  EXPECT_TRUE(hdf5::write_integer_text(f, "low", "-9223372036854775808", "F"));
  EXPECT_FALSE(hdf5::write_integer_text(f, "not", "1.5", "F"));
  EXPECT_FALSE(hdf5::write_integer_text(f, "not", "", "F"));

  EXPECT_EQ(hdf5::read_integer_texts(f, "big", "F")->front(), "18446744073709551615");
  EXPECT_EQ(hdf5::read_integer(f, "low", "F"), INT64_MIN);
  expect_error([&] { hdf5::read_integer(f, "big", "F"); }, {"F", "`big`", "64 signed bits"});
  expect_error([&] { hdf5::read_integer(f, "three", "F"); }, {"`three`", "3 values"});
  expect_error([&] { hdf5::read_integer(f, "text", "F"); }, {"`text`", "not an integer"});
  expect_error([&] { hdf5::read_integer(f, "real", "F"); }, {"`real`", "not an integer"});
  expect_error([&] { hdf5::read_string(f, "real", "F"); }, {"`real`", "not a string"});
  expect_error([&] { hdf5::read_real(f, "text", "F"); }, {"`text`", "not a number"});
  EXPECT_EQ(hdf5::read_real(f, "real", "F"), 1.5);
  EXPECT_EQ(hdf5::read_integer(f, "absent", "F"), std::nullopt);
  expect_error([&] { hdf5::write_string(f, "bad", "\xff", "F"); }, {"`bad`", "UTF-8"});

  const hdf5::Handle latin(H5Tcopy(H5T_C_S1));
  H5Tset_size(latin.get(), 2);
  const hdf5::Handle scalar(H5Screate(H5S_SCALAR));
  const hdf5::Handle a(H5Acreate2(f, "latin", latin.get(), scalar.get(), H5P_DEFAULT, H5P_DEFAULT));
  H5Awrite(a.get(), latin.get(), "\xfc\xfc");
  expect_error([&] { hdf5::read_string(f, "latin", "F"); }, {"`latin`", "not valid UTF-8"});
}

// Whoever uses the library beside us keeps its own error printing.
TEST(Hdf5UtilTest, SessionsRestoreErrorPrinting) {
  H5E_auto2_t before = nullptr;
  void* data = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &before, &data);
  {
    const hdf5::Session outer;
    const hdf5::Session inner;
    EXPECT_FALSE(hdf5::has_link(-1, "x"));
  }
  H5E_auto2_t after = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &after, &data);
  EXPECT_EQ(before, after);
  EXPECT_NE(after, nullptr);
}

}  // namespace
}  // namespace raingauge
