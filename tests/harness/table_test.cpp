// SPDX-License-Identifier: Apache-2.0
#include "harness/table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "data/error.h"

namespace raingauge {
namespace {

using nlohmann::json;

Table sample() {
  Table table({{"arm"}, {"recall", Align::right}});
  table.add_row({"rf2.raster", "0.873"});
  table.add_row({"größe", "12.0"});
  table.add_row({"雨", "n/a"});
  return table;
}

TEST(Table, AlignsByDisplayWidth) {
  EXPECT_EQ(sample().text(),
            "arm         recall\n"
            "----------  ------\n"
            "rf2.raster   0.873\n"
            "größe         12.0\n"
            "雨             n/a\n");
}

TEST(Table, KeepsLineBreaksOutOfRows) {
  Table table({{"a|b"}, {"c"}});
  table.add_row({"x\ny", "p|q"});
  EXPECT_EQ(table.text(), "a|b  c\n---  ---\nx y  p|q\n");
  EXPECT_EQ(table.markdown(), "| a\\|b | c |\n|---|---|\n| x y | p\\|q |\n");
  EXPECT_EQ(table.csv(), "a|b,c\n\"x\ny\",p|q\n");
}

TEST(Table, WritesMarkdown) {
  EXPECT_EQ(
      sample().markdown(),
      "| arm | recall |\n|---|---:|\n| rf2.raster | 0.873 |\n| größe | 12.0 |\n| 雨 | n/a |\n");
}

TEST(Table, QuotesCsv) {
  EXPECT_EQ(
      csv_line({"plain", "a,b", "say \"x\"", "two\nlines", "cr\r", " lead", "trail ", "", "0.5"}),
      "plain,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\"cr\r\",\" lead\",\"trail \",,0.5");
}

TEST(Table, RefusesRowsOfAnotherWidth) {
  Table table({{"a"}, {"b"}});
  EXPECT_THROW(table.add_row({"1"}), Error);
  EXPECT_THROW(table.add_row({"1", "2", "3"}), Error);
  EXPECT_EQ(table.rows(), 0U);
}

TEST(DisplayWidth, CountsColumns) {
  EXPECT_EQ(display_width(""), 0U);
  EXPECT_EQ(display_width("abc"), 3U);
  EXPECT_EQ(display_width("größe"), 5U);
  EXPECT_EQ(display_width("雨量計"), 6U);
  EXPECT_EQ(display_width("🌧"), 2U);
  EXPECT_EQ(display_width("e\xCC\x81"), 1U);  // e and a combining acute
  EXPECT_EQ(display_width("a\xFF"
                          "b"),
            3U);                              // no UTF-8
  EXPECT_EQ(display_width("a\xE2\x82"), 3U);  // cut short
}

TEST(ClipToWidth, NeverSplitsCharacters) {
  EXPECT_EQ(clip_to_width("abcdef", 6), "abcdef");
  EXPECT_EQ(clip_to_width("abcdef", 4), "abc…");
  EXPECT_EQ(clip_to_width("größer", 4), "grö…");
  EXPECT_EQ(clip_to_width("雨量計", 4), "雨…");  // a wide one would not fit beside the dots
  EXPECT_EQ(clip_to_width("abc", 1), "…");
  EXPECT_EQ(clip_to_width("abc", 0), "");
}

TEST(FormatNumber, KeepsSignificantDigits) {
  EXPECT_EQ(format_number(0.8734), "0.873");
  EXPECT_EQ(format_number(12.0), "12.0");
  EXPECT_EQ(format_number(1234.4), "1234");
  EXPECT_EQ(format_number(0.0), "0.00");
  EXPECT_EQ(format_number(-0.05), "-0.0500");
  EXPECT_EQ(format_number(9.996), "10.0");  // rounding gains a digit
  EXPECT_EQ(format_number(0.99949), "0.999");
  EXPECT_EQ(format_number(0.99951), "1.00");
  EXPECT_EQ(format_number(1.0, 5), "1.0000");
  EXPECT_EQ(format_number(1.2e-5), "1.20e-05");
  EXPECT_EQ(format_number(2.5e8), "2.50e+08");
  EXPECT_EQ(format_number(std::nan("")), "n/a");
  EXPECT_EQ(format_number(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(format_number(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_EQ(format_number(json(nullptr)), "n/a");
  EXPECT_EQ(format_number(json("x")), "n/a");
  EXPECT_EQ(format_number(json(0.5)), "0.500");
}

TEST(FormatEstimate, SharesTheDecimalsOfTheValue) {
  EXPECT_EQ(format_estimate(0.8729, 0.8611, 0.8838), "0.873 [0.861, 0.884]");
  EXPECT_EQ(format_estimate(12.34, 9.987, 101.5), "12.3 [10.0, 101.5]");
  EXPECT_EQ(format_estimate(1.2e-5, 1.0e-5, 2.0e-4), "1.20e-05 [1.00e-05, 2.00e-04]");
  EXPECT_EQ(format_estimate(0.5, std::nan(""), std::nan("")), "0.500");
  EXPECT_EQ(format_estimate(std::nan(""), 0.0, 1.0), "n/a");
  EXPECT_EQ(format_estimate(json{{"value", 0.5}, {"lo", 0.4}, {"hi", 0.6}}),
            "0.500 [0.400, 0.600]");
  EXPECT_EQ(format_estimate(json{{"value", 0.5}, {"lo", nullptr}, {"hi", nullptr}}), "0.500");
  EXPECT_EQ(format_estimate(json{{"value", nullptr}, {"lo", 0.1}, {"hi", 0.2}}), "n/a");
  EXPECT_EQ(format_estimate(json(0.25)), "0.250");
}

}  // namespace
}  // namespace raingauge
