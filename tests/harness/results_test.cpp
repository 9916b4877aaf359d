// SPDX-License-Identifier: Apache-2.0
#include "harness/results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <limits>

#include "tests/harness/temporary_folder.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing_support::TemporaryFolder;

std::vector<json> cell_of(const std::string& cell, int rows) {
  std::vector<json> list;
  for (int head = 0; head < rows; ++head)
    list.push_back({{"cell", cell}, {"head", head}, {"value", 0.25}});
  return list;
}

template <typename Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(CellHash, IsSixteenDigitsOfTheContent) {
  const std::string hash = cell_hash({{"b", 2}, {"a", 1}});
  EXPECT_EQ(hash.size(), 16U);
  EXPECT_EQ(hash.find_first_not_of("0123456789abcdef"), std::string::npos);
  // sha256 of {"a":1,"b":2}
  EXPECT_EQ(hash, "43258cff783fe703");
  EXPECT_EQ(cell_hash(json::parse(R"({"a": 1, "b": 2})")), hash);
  EXPECT_NE(cell_hash({{"a", 1}, {"b", 2.0}}), hash);  // an integer is not a real
  EXPECT_NE(cell_hash({{"a", "1"}, {"b", 2}}), hash);
  EXPECT_EQ(cell_hash({{"a", std::nan("")}}), cell_hash({{"a", nullptr}}));
  EXPECT_EQ(cell_hash("\xFF").size(), 16U);  // text that is no UTF-8
}

TEST(RunFolder, RemembersCellsAcrossRuns) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "deep" / "run";
  {
    RunFolder run(path, "hash");
    EXPECT_FALSE(run.done("fidelity", "a"));
    run.append("fidelity", cell_of("a", 3));
    run.append("latency", cell_of("l", 1));
    EXPECT_TRUE(run.done("fidelity", "a"));
    EXPECT_FALSE(run.done("conformance", "a"));
    EXPECT_EQ(run.cells("fidelity"), 1U);
  }
  RunFolder run(path, "hash");
  EXPECT_TRUE(run.done("fidelity", "a"));
  EXPECT_TRUE(run.done("latency", "l"));
  run.append("fidelity", cell_of("b", 2));
  const auto rows = load_rows(path, "fidelity");
  ASSERT_EQ(rows.size(), 5U);
  EXPECT_EQ(rows[1], (json{{"cell", "a"}, {"head", 1}, {"value", 0.25}, {"cell_rows", 3}}));
  EXPECT_EQ(rows[4]["cell"], "b");
  EXPECT_TRUE(load_rows(path, "generate").empty());
}

TEST(RunFolder, WritesOneObjectALineAndNoNan) {
  const TemporaryFolder folder;
  RunFolder run(folder.path(), "hash");
  run.append("fidelity", {{{"cell", "a"},
                           {"x", std::nan("")},
                           {"y", std::numeric_limits<double>::infinity()},
                           {"text", "two\nlines \xFF"}}});
  const std::string text = folder.read("fidelity.jsonl");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  const json row = json::parse(text);
  EXPECT_TRUE(row["x"].is_null());
  EXPECT_TRUE(row["y"].is_null());
  EXPECT_EQ(row["text"], "two\nlines \xEF\xBF\xBD");
}

TEST(RunFolder, CutsOffWhatAKillLeft) {
  const TemporaryFolder folder;
  { RunFolder(folder.path(), "hash").append("fidelity", cell_of("a", 2)); }
  { RunFolder(folder.path(), "hash").append("fidelity", cell_of("b", 3)); }
  const std::string whole = folder.read("fidelity.jsonl");
  const std::size_t first_cell = whole.find("\"b\"") - std::string("{\"cell\":").size();
  // Wherever the file was cut: the cells before it stay, the cell in flight is gone.
  for (std::size_t bytes = 0; bytes <= whole.size(); ++bytes) {
    folder.write("fidelity.jsonl", whole.substr(0, bytes));
    const bool has_a = bytes >= first_cell;
    const bool has_b = bytes == whole.size();
    EXPECT_EQ(load_rows(folder.path(), "fidelity").size(), (has_a ? 2U : 0U) + (has_b ? 3U : 0U))
        << bytes;
    const bool at_line_end = bytes > 0 && whole[bytes - 1] == '\n';
    if (!at_line_end && bytes % 16 != 0) continue;  // resuming syncs to the disk: not at every byte
    {
      RunFolder run(folder.path(), "hash");
      EXPECT_EQ(run.done("fidelity", "a"), has_a) << bytes;
      EXPECT_EQ(run.done("fidelity", "b"), has_b) << bytes;
      if (!has_a) run.append("fidelity", cell_of("a", 2));
      if (!has_b) run.append("fidelity", cell_of("b", 3));
    }
    ASSERT_EQ(folder.read("fidelity.jsonl"), whole) << bytes;
  }
}

TEST(RunFolder, SurvivesKillsInTheMiddle) {
  const TemporaryFolder folder;
  for (int round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        RunFolder run(folder.path(), "hash");
        for (int cell = 0;; ++cell) {
          const std::string name = std::to_string(round) + "-" + std::to_string(cell);
          run.append("fidelity", cell_of(name, 200));
        }
      } catch (...) {
      }
      ::_exit(7);
    }
    ::usleep(static_cast<useconds_t>(2000 + 700 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child failed by itself";
  }
  const RunFolder run(folder.path(), "hash");
  EXPECT_GT(run.cells("fidelity"), 0U);
  EXPECT_EQ(load_rows(folder.path(), "fidelity").size(), 200U * run.cells("fidelity"));
}

TEST(RunFolder, KeepsRowsOfACellTogether) {
  const TemporaryFolder folder;
  {
    RunFolder run(folder.path(), "hash");
    run.append("conformance",
               {{{"cell", "a"}, {"n", 0}}, {{"cell", "b"}, {"n", 1}}, {{"cell", "a"}, {"n", 2}}});
  }
  const auto rows = load_rows(folder.path(), "conformance");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[1]["n"], 2);
  EXPECT_EQ(rows[1]["cell_rows"], 2);
  EXPECT_EQ(rows[2]["cell_rows"], 1);
}

TEST(RunFolder, RefusesAnotherExperiment) {
  const TemporaryFolder folder;
  { RunFolder(folder.path(), "one").append("fidelity", cell_of("a", 1)); }
  const std::string message = error_of([&] { RunFolder(folder.path(), "two"); });
  EXPECT_THAT(message, HasSubstr(folder.path().string()));
  EXPECT_THAT(message, HasSubstr("another experiment (one, this one is two)"));
  EXPECT_THAT(message, HasSubstr("--fresh"));
  EXPECT_EQ(load_rows(folder.path(), "fidelity").size(), 1U);
  {
    RunFolder run(folder.path(), "two", true);
    EXPECT_FALSE(run.done("fidelity", "a"));
  }
  EXPECT_TRUE(load_rows(folder.path(), "fidelity").empty());
  EXPECT_EQ(error_of([&] { RunFolder(folder.path(), "two"); }), "no error");
}

TEST(RunFolder, FreshStartsTheSameExperimentOver) {
  const TemporaryFolder folder;
  { RunFolder(folder.path(), "one").append("fidelity", cell_of("a", 1)); }
  RunFolder run(folder.path(), "one", true);
  EXPECT_FALSE(run.done("fidelity", "a"));
}

TEST(RunFolder, LeavesForeignFoldersAlone) {
  const TemporaryFolder folder;
  folder.write("thesis/chapter.tex", "text");
  for (const bool fresh : {false, true}) {
    EXPECT_THAT(error_of([&] { RunFolder(folder.path() / "thesis", "hash", fresh); }),
                HasSubstr("not empty and holds no run"));
  }
  EXPECT_EQ(folder.read("thesis/chapter.tex"), "text");
  EXPECT_THAT(error_of([&] { RunFolder(folder.path() / "thesis" / "chapter.tex", "hash"); }),
              HasSubstr("cannot be created as a folder"));
}

TEST(RunFolder, LocksTheFolder) {
  const TemporaryFolder folder;
  {
    const RunFolder first(folder.path(), "hash");
    const std::string message = error_of([&] { RunFolder(folder.path(), "hash"); });
    EXPECT_THAT(message, HasSubstr("another run (process " + std::to_string(::getpid()) + ")"));
    EXPECT_TRUE(load_rows(folder.path(), "fidelity").empty());  // reading needs no lock
  }
  EXPECT_EQ(error_of([&] { RunFolder(folder.path(), "hash"); }), "no error");
}

TEST(RunFolder, RefusesRowsThatCannotBeResumed) {
  const TemporaryFolder folder;
  RunFolder run(folder.path(), "hash");
  run.append("fidelity", cell_of("a", 1));
  EXPECT_THAT(error_of([&] { run.append("fidelity", cell_of("a", 1)); }),
              HasSubstr("cell a is already there"));
  EXPECT_THAT(error_of([&] {
                run.append("fidelity", {{{"head", 1}}});
              }),
              HasSubstr("a row without `cell`"));
  EXPECT_THAT(error_of([&] { run.append("fidelty", cell_of("b", 1)); }),
              HasSubstr("no stream 'fidelty'"));
  EXPECT_THAT(error_of([&] { load_rows(folder.path(), "x"); }), HasSubstr("no stream 'x'"));
  EXPECT_THAT(error_of([&] { load_rows(folder.path() / "none", "fidelity"); }),
              HasSubstr("no such folder"));
  EXPECT_EQ(load_rows(folder.path(), "fidelity").size(), 1U);
}

TEST(RunFolder, NamesTheLineOfDamage) {
  const TemporaryFolder folder;
  { RunFolder(folder.path(), "hash").append("fidelity", cell_of("a", 1)); }
  const std::string good = folder.read("fidelity.jsonl");
  const auto message = [&](const std::string& text) {
    folder.write("fidelity.jsonl", text);
    return error_of([&] { RunFolder(folder.path(), "hash"); });
  };
  EXPECT_THAT(message(good + "{broken\n" + good), HasSubstr("fidelity.jsonl:2: not a JSON object"));
  EXPECT_THAT(message(good + "[1]\n"), HasSubstr("fidelity.jsonl:2: not a JSON object"));
  EXPECT_THAT(message(good + "{}\n"), HasSubstr("fidelity.jsonl:2: a row without `cell`"));
  EXPECT_THAT(message(good + "{\"cell\": 3}\n"),
              HasSubstr("fidelity.jsonl:2: a row without `cell`"));
  EXPECT_THAT(message(good + good), HasSubstr("fidelity.jsonl:2: cell a has more rows"));
  EXPECT_THAT(message("{\"cell\": \"b\", \"cell_rows\": -1}\n"),
              HasSubstr("fidelity.jsonl:1: `cell_rows` is -1"));
  EXPECT_THAT(message("{\"cell\": \"b\", \"cell_rows\": 2}\n" + good),
              HasSubstr("rows of cell b are missing"));
  EXPECT_EQ(message(good), "no error");
}

TEST(RunFolder, TakesBackRowsThatDoNotFit) {
  const TemporaryFolder folder;
  RunFolder run(folder.path(), "hash");
  run.append("fidelity", cell_of("a", 2));
  const std::string before = folder.read("fidelity.jsonl");
  // A limit on file sizes stands in for a full disk.
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = before.size() + 30;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const std::string message = error_of([&] { run.append("fidelity", cell_of("b", 5)); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(message, HasSubstr("fidelity.jsonl: cannot be written: "));
  EXPECT_EQ(folder.read("fidelity.jsonl"), before);
  EXPECT_FALSE(run.done("fidelity", "b"));
  run.append("fidelity", cell_of("b", 5));
  EXPECT_EQ(load_rows(folder.path(), "fidelity").size(), 7U);
}

TEST(WriteTextFile, ReplacesInOneStep) {
  const TemporaryFolder folder;
  write_text_file(folder.path() / "a.txt", "one");
  write_text_file(folder.path() / "a.txt", "two");
  EXPECT_EQ(folder.read("a.txt"), "two");
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "a.txt.tmp"));
  EXPECT_THAT(error_of([&] { write_text_file(folder.path() / "no" / "a.txt", "x"); }),
              HasSubstr("cannot be created"));
}

}  // namespace
}  // namespace raingauge
