// SPDX-License-Identifier: Apache-2.0
#include "harness/yaml_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/harness/temporary_folder.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;
using testing_support::TemporaryFolder;

json parsed(const std::string& text) { return YamlDocument::parse(text, "x.yaml").root(); }

std::string message_of(const std::string& text) {
  try {
    YamlDocument::parse(text, "x.yaml");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

std::string load_message(const std::filesystem::path& path) {
  try {
    YamlDocument::load(path);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(YamlScalar, FollowsTheCoreSchema) {
  EXPECT_EQ(typed_scalar("12"), json(12));
  EXPECT_EQ(typed_scalar("-7"), json(-7));
  EXPECT_EQ(typed_scalar("+7"), json(7));
  EXPECT_EQ(typed_scalar("007"), json(7));
  EXPECT_EQ(typed_scalar("0x1F"), json(31));
  EXPECT_EQ(typed_scalar("0o17"), json(15));
  EXPECT_EQ(typed_scalar(".5"), json(0.5));
  EXPECT_EQ(typed_scalar("5."), json(5.0));
  EXPECT_EQ(typed_scalar("-1.5e-3"), json(-0.0015));
  EXPECT_EQ(typed_scalar("1e3"), json(1000.0));
  for (const auto* text : {"", "~", "null", "Null", "NULL"})
    EXPECT_TRUE(typed_scalar(text).is_null()) << text;
  for (const auto* text : {"true", "True", "TRUE"})
    EXPECT_EQ(typed_scalar(text), json(true)) << text;
  for (const auto* text : {"false", "False", "FALSE"})
    EXPECT_EQ(typed_scalar(text), json(false)) << text;
}

TEST(YamlScalar, KeepsEverythingElseAsText) {
  for (const auto* text :
       {"yes", "no", "on",  "off", "tRUE",  "1.2.3", "0..39", "1e",  "e5",  ".",   "-",
        "+",   "0x", "0xG", "0o8", "-0x1F", "1_000", "12px",  "--5", "+-5", "inf", "nan"}) {
    EXPECT_EQ(typed_scalar(text), json(text));
  }
}

TEST(YamlScalar, KeepsAllBitsOfIntegers) {
  EXPECT_EQ(typed_scalar("18446744073709551615").get<std::uint64_t>(), 18446744073709551615ULL);
  EXPECT_EQ(typed_scalar("-9223372036854775808").get<std::int64_t>(),
            std::numeric_limits<std::int64_t>::min());
  EXPECT_TRUE(typed_scalar("9223372036854775807").is_number_integer());
  EXPECT_THROW(typed_scalar("18446744073709551616"), Error);
  EXPECT_THROW(typed_scalar("-9223372036854775809"), Error);
}

TEST(YamlScalar, RefusesWhatNoNumberCanBe) {
  for (const auto* text : {".nan", ".NaN", ".inf", "-.Inf", "+.INF", "1e999", "-1e999"}) {
    EXPECT_THROW(typed_scalar(text), Error) << text;
  }
}

TEST(YamlRange, CountsBothEnds) {
  EXPECT_EQ(parse_range("2..5").value(), (std::vector<int>{2, 3, 4, 5}));
  EXPECT_EQ(parse_range("7..7").value(), std::vector<int>{7});
  EXPECT_EQ(parse_range("0..39").value().size(), 40U);
}

TEST(YamlRange, TellsTextFromWrongRanges) {
  for (const auto* text :
       {"", "..", "1..", "..5", "1...5", "a..b", "1..b", "-1..5", "1.5", "0.. 3"}) {
    EXPECT_FALSE(parse_range(text).has_value()) << text;
  }
  EXPECT_THROW(parse_range("5..2"), Error);
  EXPECT_THROW(parse_range("0..100000"), Error);
  EXPECT_THROW(parse_range("0..99999999999999999999"), Error);
}

TEST(YamlDocument, TypesPlainQuotedAndBlockScalars) {
  EXPECT_EQ(parsed("{a: 1, b: \"1\", c: '1', d: yes, e: 0..3, f: ~}"),
            (json{{"a", 1}, {"b", "1"}, {"c", "1"}, {"d", "yes"}, {"e", "0..3"}, {"f", nullptr}}));
  EXPECT_EQ(parsed("a: |\n  12\nb: >-\n  true\n"), (json{{"a", "12\n"}, {"b", "true"}}));
  EXPECT_EQ(parsed("{a: !!str 3, b: !!float 3, c: !!int 0x10}"),
            (json{{"a", "3"}, {"b", 3.0}, {"c", 16}}));
  EXPECT_THAT(message_of("a: 1\nb: !!int x\n"), StartsWith("x.yaml:2: tag"));
  EXPECT_THAT(message_of("a: !mine 3\n"), StartsWith("x.yaml:1: tag '!mine'"));
}

TEST(YamlDocument, FindsLinesOfKeysItemsAndMissingValues) {
  const auto document = YamlDocument::parse(
      "a: 1\narms:\n  rf2:\n    density: 0.2\n    list:\n      - 5\n      - {x: 1,\n         y: "
      "2}\n",
      "x.yaml");
  EXPECT_EQ(document.line("/a"), 1);
  EXPECT_EQ(document.line("/arms"), 2);
  EXPECT_EQ(document.line("/arms/rf2/density"), 4);
  EXPECT_EQ(document.line("/arms/rf2/list/0"), 6);
  EXPECT_EQ(document.line("/arms/rf2/list/1/y"), 8);
  EXPECT_EQ(document.line("/arms/rf2/missing/deep"), 3);
  EXPECT_EQ(document.where("/arms/rf2/missing"), "x.yaml:3");
  EXPECT_EQ(*document.find("/arms/rf2/list/1/y"), json(2));
  EXPECT_EQ(document.find("/arms/rf2/list/2"), nullptr);
  EXPECT_EQ(document.find("/a/b"), nullptr);
  EXPECT_EQ(document.find(""), &document.root());
}

TEST(YamlDocument, KeepsTheOrderOfKeys) {
  const auto document = YamlDocument::parse("z: {q: 1, b: 2, m: 3}\na: 1\n", "x.yaml");
  EXPECT_EQ(document.keys(""), (std::vector<std::string>{"z", "a"}));
  EXPECT_EQ(document.keys("/z"), (std::vector<std::string>{"q", "b", "m"}));
  EXPECT_TRUE(document.keys("/a").empty());
}

TEST(YamlDocument, ExpandsAnchorsAndMergeKeys) {
  EXPECT_EQ(parsed("a: &x {k: 1, z: 2}\nb: {<<: *x, k: 3}\nc: [*x, *x]\n"),
            (json{{"a", {{"k", 1}, {"z", 2}}},
                  {"b", {{"k", 3}, {"z", 2}}},
                  {"c", {{{"k", 1}, {"z", 2}}, {{"k", 1}, {"z", 2}}}}}));
  EXPECT_EQ(parsed("a: &x {k: 1}\nb: &y {k: 2, m: 5}\nc: {<<: [*x, *y]}\n")["c"],
            (json{{"k", 1}, {"m", 5}}));
  const auto document = YamlDocument::parse("a: &x\n  k: 1\nb:\n  <<: *x\n  m: 2\n", "x.yaml");
  EXPECT_EQ(document.line("/b/k"), 2);  // where the text of the merged value stands
  EXPECT_EQ(document.line("/b/m"), 5);
}

TEST(YamlDocument, NamesTheLineOfWhatYamlForbids) {
  EXPECT_EQ(message_of("a: 1\nb: 2\na: 3\n"), "x.yaml:3: key 'a' stands twice (first on line 1)");
  EXPECT_EQ(message_of("o: {p: 1,\n p: 2}\n"), "x.yaml:2: key 'p' stands twice (first on line 1)");
  EXPECT_THAT(message_of("a:\n\tb: 1\n"), StartsWith("x.yaml:2: YAML: "));
  EXPECT_THAT(message_of("a: 1\nb: c: d\n"), StartsWith("x.yaml:2: YAML: "));
  EXPECT_THAT(message_of("a: *nope\n"), StartsWith("x.yaml:1: YAML: "));
  EXPECT_THAT(message_of("a: &a [1, *a]\n"), HasSubstr("x.yaml:1: an alias stands inside"));
  EXPECT_THAT(message_of("b: 1\na: {<<: 3}\n"), HasSubstr("x.yaml:2: '<<' merges mappings only"));
  EXPECT_THAT(message_of("? [a]\n: 1\n"), HasSubstr("x.yaml:1: a key must be text, got a list"));
  EXPECT_THAT(message_of("a: 1\n~: 1\n"), HasSubstr("x.yaml:2: a key must be text, got null"));
  EXPECT_THAT(message_of("a: 1\n---\nb: 2\n"), HasSubstr("x.yaml:3: expected one YAML document"));
  EXPECT_THAT(message_of("a: 1\nb: .nan\n"),
              HasSubstr("x.yaml:2: got .nan, a finite number is needed"));
}

TEST(YamlDocument, SurvivesHostileText) {
  const auto repeated = [](const std::string& part, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += part;
    return text;
  };
  EXPECT_THAT(message_of(repeated("[", 20000)), StartsWith("x.yaml:1: "));
  EXPECT_THAT(message_of(repeated("{a: ", 20000)), StartsWith("x.yaml:1: "));
  EXPECT_THAT(message_of(repeated("- ", 20000)), HasSubstr("nested deeper than 64"));
  EXPECT_EQ(message_of("a: " + repeated("[", 60) + repeated("]", 60)), "no error");
  EXPECT_THAT(message_of(repeated("? ", 20000)), StartsWith("x.yaml:1: "));
  std::string bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n";
  std::string merges = "a0: &a0 {x: 1}\n";
  for (int i = 1; i < 12; ++i) {
    const std::string name = "a" + std::to_string(i);
    const std::string uses =
        "*a" + std::to_string(i - 1) + repeated(", *a" + std::to_string(i - 1), 9);
    bomb += name + ": &" + name + " [" + uses + "]\n";
    merges += name + ": &" + name + " {<<: [" + uses + "]}\n";
  }
  EXPECT_THAT(message_of(bomb), HasSubstr("expand to too many values"));
  EXPECT_THAT(message_of(merges), HasSubstr("expand to too many values"));
  EXPECT_THAT(message_of(std::string("a: 1\nb: \0\n", 10)), HasSubstr("x.yaml:2: not a text file"));
  EXPECT_THAT(message_of("a: 1\nb: \xE9t\xE9\n"), HasSubstr("x.yaml:2: not a text file"));
  EXPECT_THAT(message_of("a: \xF5\x80\x80\x80"), HasSubstr("x.yaml:1: not a text file"));
  EXPECT_THAT(message_of("a: \xED\xA0\x80"),
              HasSubstr("x.yaml:1: not a text file"));                             // a surrogate
  EXPECT_THAT(message_of("a: \xE2\x82"), HasSubstr("x.yaml:1: not a text file"));  // cut short
  EXPECT_EQ(parsed("a: \xE2\x82\xAC \xF0\x9F\x8C\xA7\n")["a"], "\xE2\x82\xAC \xF0\x9F\x8C\xA7");
}

TEST(YamlDocument, LoadRefusesWhatIsNoExperimentFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(load_message(folder.path() / "none.yaml"), HasSubstr("none.yaml:1: no such file"));
  EXPECT_THAT(load_message(folder.path()), HasSubstr(":1: not a regular file"));
  EXPECT_THAT(load_message("/dev/null"), HasSubstr(":1: not a regular file"));
  EXPECT_THAT(load_message(folder.write("e.yaml", "")), HasSubstr("e.yaml:1: expected a mapping"));
  EXPECT_THAT(load_message(folder.write("l.yaml", "- 1\n")),
              HasSubstr("l.yaml:1: expected a mapping"));
  EXPECT_THAT(load_message(folder.write("h.yaml", std::string((1U << 20) + 1, ' '))),
              HasSubstr("h.yaml:1: file of 1048577 bytes"));
  EXPECT_EQ(YamlDocument::load(folder.write("ok.yaml",
                                            "\xEF\xBB\xBF"
                                            "a: 1\r\n"))
                .root(),
            (json{{"a", 1}}));
}

TEST(YamlDocument, SetReplacesValuesAndNamesTheirOrigin) {
  auto document = YamlDocument::parse("rows: all\narms:\n  rf2: {density: 0.2}\n", "x.yaml");
  document.set("/rows/sample", YamlDocument::parse("64", "v"), "--set rows.sample=64");
  document.set("/arms/rf2/density", YamlDocument::parse("{a: [1, 2]}", "v"), "--set d");
  EXPECT_EQ(document.root(), (json{{"rows", {{"sample", 64}}},
                                   {"arms", {{"rf2", {{"density", {{"a", {1, 2}}}}}}}}}));
  EXPECT_EQ(document.keys("/rows"), std::vector<std::string>{"sample"});
  EXPECT_EQ(document.keys("/arms/rf2/density"), std::vector<std::string>{"a"});
  EXPECT_EQ(document.where("/rows/sample"), "x.yaml (--set rows.sample=64)");
  EXPECT_EQ(document.where("/arms/rf2/density/a/1"), "x.yaml (--set d)");
  EXPECT_EQ(document.where("/arms/rf2"), "x.yaml:3");
  EXPECT_TRUE(document.overridden("/arms"));
  EXPECT_TRUE(document.overridden("/rows/sample/x"));
  EXPECT_FALSE(document.overridden("/row"));
  document.erase("/arms/rf2/density");
  EXPECT_EQ(document.root()["arms"]["rf2"], json::object());
  EXPECT_TRUE(document.keys("/arms/rf2").empty());
  EXPECT_FALSE(document.overridden("/arms"));
}

TEST(YamlDocument, FailNamesFileLineAndKey) {
  const auto document = YamlDocument::parse("a: 1\nb:\n  c: 2\n", "experiments/x.yaml");
  try {
    document.fail("/b/c", "got 2, allowed: 3");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "experiments/x.yaml:3: b.c: got 2, allowed: 3");
  }
}

}  // namespace
}  // namespace raingauge
