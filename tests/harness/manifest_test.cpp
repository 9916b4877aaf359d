// SPDX-License-Identifier: Apache-2.0
#include "harness/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/error.h"
#include "harness/results.h"
#include "tests/harness/temporary_folder.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing_support::TemporaryFolder;

ManifestInput sample() {
  ManifestInput input;
  input.experiment = {{"name", "x"}};
  input.captures = json::array({{{"path", "a.h5"}, {"sha256", "00"}}});
  input.seed = 7;
  input.command = {"raingauge", "run", "x.yaml", "--set", "rf2.order={window3d: {}}"};
  input.libraries = {{"torch", "2.11.0"}};
  return input;
}

TEST(Manifest, HoldsWhatTheRunDependsOn) {
  ManifestInput input = sample();
  input.gpu = [] { return json{{"name", "H200"}, {"driver", "580"}}; };
  const json manifest = make_manifest(input);
  EXPECT_EQ(manifest["experiment"], input.experiment);
  EXPECT_EQ(manifest["experiment_hash"], cell_hash(input.experiment));
  EXPECT_EQ(manifest["captures"], input.captures);
  EXPECT_EQ(manifest["seed"], 7);
  EXPECT_EQ(manifest["command"], "raingauge run x.yaml --set 'rf2.order={window3d: {}}'");
  EXPECT_EQ(manifest["gpu"]["name"], "H200");
  EXPECT_EQ(manifest["build"]["libraries"]["torch"], "2.11.0");
  EXPECT_FALSE(manifest["build"]["libraries"]["nlohmann-json"].get<std::string>().empty());
  EXPECT_FALSE(manifest["build"]["compiler"].get<std::string>().empty());
  EXPECT_FALSE(manifest["git_commit"].get<std::string>().empty());
  EXPECT_GE(manifest["build"]["standard"], 202002);
  EXPECT_GE(manifest["machine"]["logical"], 1);
  EXPECT_GE(manifest["machine"]["usable"], 1);
  EXPECT_LE(manifest["machine"]["usable"], manifest["machine"]["logical"]);
  EXPECT_EQ(manifest["machine"]["load"].size(), 3U);
  EXPECT_GT(manifest["machine"]["memory_bytes"], 1 << 20);
  EXPECT_TRUE(make_manifest(sample())["gpu"].is_null());
}

TEST(Manifest, TimeIsUtc) {
  const std::string time = utc_time();
  ASSERT_EQ(time.size(), 20U);
  EXPECT_EQ(time[4], '-');
  EXPECT_EQ(time[10], 'T');
  EXPECT_EQ(time.back(), 'Z');
  EXPECT_GE(time.substr(0, 4), "2025");
}

TEST(Manifest, ReadsCpuinfoOfSeveralArchitectures) {
  const json x86 = parse_cpuinfo(
      "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: sse2 avx2 fma\n\n"
      "processor\t: 1\nmodel name\t: Other\nflags\t\t: none\n");
  EXPECT_EQ(x86["cpu"], "Some CPU @ 2.0GHz");
  EXPECT_EQ(x86["cpu_flags"], json({"avx2", "fma", "sse2"}));
  const json arm = parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd40\n");
  EXPECT_EQ(arm["cpu"], "unknown");
  EXPECT_EQ(arm["cpu_flags"], json({"asimd", "fp"}));
  EXPECT_TRUE(parse_cpuinfo("")["cpu_flags"].empty());
}

TEST(Manifest, ShellLinesCanBeTypedAgain) {
  EXPECT_EQ(shell_line({"raingauge", "run", "a b.yaml", "", "it's", "k=v", "$HOME", "*"}),
            "raingauge run 'a b.yaml' '' 'it'\\''s' k=v '$HOME' '*'");
}

TEST(Manifest, AResumedRunKeepsTheEarlierOnes) {
  const TemporaryFolder folder;
  ManifestInput input = sample();
  write_manifest(folder.path(), make_manifest(input));
  input.command = {"raingauge", "run", "again.yaml"};
  write_manifest(folder.path(), make_manifest(input));
  const json manifest = json::parse(folder.read("manifest.json"));
  ASSERT_EQ(manifest["runs"].size(), 2U);
  EXPECT_EQ(manifest["runs"][0]["command"],
            "raingauge run x.yaml --set 'rf2.order={window3d: {}}'");
  EXPECT_EQ(manifest["runs"][1]["command"], "raingauge run again.yaml");
  EXPECT_EQ(manifest["command"], "raingauge run again.yaml");
  EXPECT_EQ(manifest["runs"][1]["git_commit"], manifest["git_commit"]);
}

TEST(Manifest, RefusesToReplaceSomethingElse) {
  const TemporaryFolder folder;
  for (const auto* text : {"", "[1]", "{}", "{\"runs\": 3}", "broken"}) {
    folder.write("manifest.json", text);
    try {
      write_manifest(folder.path(), make_manifest(sample()));
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("manifest.json: is no manifest of a run"));
    }
    EXPECT_EQ(folder.read("manifest.json"), text);
  }
}

TEST(Manifest, TextThatIsNoUtf8IsWritten) {
  const TemporaryFolder folder;
  ManifestInput input = sample();
  input.command = {"raingauge", "\xFF.yaml"};
  write_manifest(folder.path(), make_manifest(input));
  EXPECT_EQ(json::parse(folder.read("manifest.json"))["command"], "raingauge '\xEF\xBF\xBD.yaml'");
}

}  // namespace
}  // namespace raingauge
