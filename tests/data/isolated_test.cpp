// SPDX-License-Identifier: Apache-2.0
#include "data/isolated.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "data/error.h"

namespace raingauge {
namespace {

TEST(IsolatedTest, OutcomesAreTold) {
  EXPECT_EQ(try_isolated([] {}, 1, true), Trial::finished);
  EXPECT_EQ(try_isolated([] { throw Error("no"); }, 1, true), Trial::threw);
  EXPECT_EQ(try_isolated([] { std::raise(SIGSEGV); }, 1, true), Trial::crashed);
  EXPECT_EQ(try_isolated([] { std::abort(); }, 1, true), Trial::crashed);
  const auto loop = [] {
    volatile bool always = true;
    while (always) {
    }
  };
  EXPECT_EQ(try_isolated(loop, 1, true), Trial::timed_out);
  EXPECT_FALSE(in_isolated_copy());
}

TEST(IsolatedTest, CrashesAreErrorsWithTheFile) {
  EXPECT_NO_THROW(check_trial(Trial::finished, "F.h5"));
  EXPECT_NO_THROW(check_trial(Trial::threw, "F.h5"));
  for (const Trial trial : {Trial::crashed, Trial::timed_out}) {
    try {
      check_trial(trial, "F.h5");
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("F.h5: is damaged"), std::string::npos);
    }
  }
}

TEST(IsolatedTest, OnlySharedBuffersAreWritten) {
  const SharedBuffer shared(1 << 20);
  int local = 1;
  const auto work = [&] {
    local = 2;
    std::memset(shared.data(), 7, 1 << 20);
    if (!in_isolated_copy()) throw Error("not in a copy");
  };
  EXPECT_EQ(try_isolated(work, 10, true), Trial::finished);
  EXPECT_EQ(local, 1);
  EXPECT_EQ(shared.data()[(1 << 20) - 1], std::byte{7});
  EXPECT_THROW(SharedBuffer(INT64_MAX / 2), std::bad_alloc);
}

TEST(IsolatedTest, WorksBesideBusyThreads) {
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) {
      const std::vector<char> memory(1000);
      ASSERT_EQ(memory.back(), 0);
    }
  });
  for (int i = 0; i < 20; ++i) {
    const auto allocate = [] {
      for (std::size_t n = 1; n < 200; ++n) {
        const std::vector<char> memory(n * 100);
        if (memory.back() != 0) throw Error("dirty");
      }
    };
    EXPECT_EQ(try_isolated(allocate, 10, true), Trial::finished);
  }
  stop = true;
  busy.join();
}

TEST(IsolatedTest, TimeGrowsWithTheFile) {
  EXPECT_GE(metadata_seconds(0), 1);
  EXPECT_GT(metadata_seconds(std::int64_t{1} << 30), metadata_seconds(1 << 20));
  EXPECT_LE(metadata_seconds(INT64_MAX), 24 * 3600);
}

}  // namespace
}  // namespace raingauge
