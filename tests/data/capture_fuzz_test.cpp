// SPDX-License-Identifier: Apache-2.0
// Damaged files: cut at any length, bytes changed anywhere. Each must load or throw Error and the
// process must survive. Changes are tried in a child process, whose death would be the failure.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>

#include "capture_fixture.h"
#include "data/capture_check.h"
#include "data/plan_file.h"

namespace raingauge {
namespace {

using namespace testing_support;

// Files tried of each kind. A thorough run: RAINGAUGE_FUZZ_ROUNDS=5000.
std::uint64_t rounds() {
  const char* wanted = std::getenv("RAINGAUGE_FUZZ_ROUNDS");
  return wanted != nullptr ? std::stoull(wanted) : 60;
}

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_all(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

enum class Outcome { loaded, refused };

// Opens, lists and loads everything.
Outcome try_capture(const std::string& path) {
  try {
    const Capture capture = Capture::open(path);
    for (const RecordInfo& info : capture.records()) capture.load(info);
    for (const std::string& arm : capture.frame_arms()) capture.read_frames(arm);
    return Outcome::loaded;
  } catch (const Error&) {
    return Outcome::refused;
  }
}

Outcome try_plan(const std::string& path) {
  try {
    read_plan(path);
    return Outcome::loaded;
  } catch (const Error&) {
    return Outcome::refused;
  }
}

// Runs in a child; returns how it ended, "" for a clean exit.
std::string in_child(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      work();
    } catch (...) {
      ::_exit(3);  // anything but Error
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "" : "exit " + std::to_string(WEXITSTATUS(status));
}

class FuzzTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SmallRecord record(small_info());
    for (const bool gzip : {false, true}) {
      const std::string path = folder_ / (gzip ? "gzip.h5" : "plain.h5");
      CaptureWriter writer(path, small_capture_info(), {.gzip = gzip});
      writer.write_record(record.info, record.view(0), record.view(1), record.view(2));
      writer.write_frames("dense", {1, 2, 2, std::vector<std::uint8_t>(12, 7)});
      writer.finish();
      captures_.push_back(read_all(path));
    }
    PlanFile plan;
    plan.plan = dense_plan(2, 300, 64);
    plan.heads = {0, 1};
    write_plan(folder_ / "plan.h5", plan);
    plan_ = read_all(folder_ / "plan.h5");
  }

  TempFolder folder_;
  std::vector<std::string> captures_;
  std::string plan_;
};

TEST_F(FuzzTest, CutFilesAreRefused) {
  const std::string path = folder_ / "cut.h5";
  const auto cut = [&](const std::string& whole, auto attempt) {
    const std::size_t cuts = 2 * rounds() / 3;
    for (std::size_t i = 0; i < cuts; ++i) {
      const std::size_t length = whole.size() * i / cuts;
      write_all(path, whole.substr(0, length));
      EXPECT_EQ(attempt(path), Outcome::refused) << length << " of " << whole.size();
    }
    write_all(path, whole.substr(0, whole.size() - 1));
    EXPECT_EQ(attempt(path), Outcome::refused);
    write_all(path, whole);
    EXPECT_EQ(attempt(path), Outcome::loaded);
  };
  for (const std::string& whole : captures_) cut(whole, try_capture);
  cut(plan_, try_plan);
}

// Seeded: one to four bytes changed, weighted towards the non-zero bytes, where the metadata is.
TEST_F(FuzzTest, ChangedBytesNeverCrash) {
  const std::string path = folder_ / "changed.h5";
  const auto shake = [&](const std::string& whole, auto attempt, std::uint64_t seed) {
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      if (whole[i] != 0) places.push_back(i);
    }
    const std::string end = in_child([&] {
      for (std::uint64_t round = 0; round < rounds(); ++round) {
        std::string bytes = whole;
        const std::uint64_t key = hash_seed({seed, round});
        for (std::uint64_t n = 0; n <= key % 4; ++n) {
          const std::uint64_t draw = mix64(key + n);
          const std::size_t at = places[below(draw, places.size())] + (draw % 3 == 0 ? 1 : 0);
          if (at < bytes.size()) bytes[at] = static_cast<char>(mix64(draw));
        }
        write_all(path, bytes);
        attempt(path);
      }
    });
    EXPECT_EQ(end, "") << "seed " << seed << "; the file is the last one written";
  };
  for (std::size_t i = 0; i < captures_.size(); ++i) shake(captures_[i], try_capture, i + 1);
  shake(plan_, try_plan, 3);
}

// A chunk whose deflate stream is valid but gives 4 of its 432 bytes: the library copies 432.
TEST_F(FuzzTest, ChunksThatAreTooShortDoNotCrash) {
  const std::string path = folder_ / "short.h5";
  write_all(path, captures_[1]);
  edit_record(path, [](hid_t record) {
    const hdf5::Handle q(H5Dopen2(record, "q", H5P_DEFAULT));
    // zlib header, one stored block of 4 zeros, Adler-32.
    const unsigned char stream[15] = {0x78, 0x01, 0x01, 0x04, 0x00, 0xfb, 0xff, 0,
                                      0,    0,    0,    0x00, 0x04, 0x00, 0x01};
    const hsize_t offset[3] = {1, 0, 0};
    ASSERT_GE(H5Dwrite_chunk(q.get(), H5P_DEFAULT, 0, offset, sizeof stream, stream), 0);
  });
  const std::string end = in_child([&] { try_capture(path); });
  EXPECT_EQ(end, "");
  // The other heads are as they were.
  const Capture capture = Capture::open(path);
  const std::vector<int> others{5, 9};
  EXPECT_NO_THROW(capture.load(capture.record(42), others));
}

}  // namespace
}  // namespace raingauge
