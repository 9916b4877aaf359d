// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace raingauge {
namespace {

TEST(ParallelFor, RunsEveryItemOnce) {
  for (const int threads : {1, 2, 3, 8, 0}) {
    for (const std::int64_t items : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> hits(static_cast<std::size_t>(items));
      parallel_for(threads, items,
                   [&](std::int64_t item, int) { ++hits[static_cast<std::size_t>(item)]; });
      for (const auto& hit : hits) {
        EXPECT_EQ(hit.load(), 1) << threads << " threads, " << items << " items";
      }
    }
  }
}

TEST(ParallelFor, NoTwoConcurrentCallsShareAWorker) {
  constexpr int kThreads = 4;
  std::vector<std::atomic<int>> inside(kThreads);
  std::atomic<bool> shared{false};
  parallel_for(kThreads, 200, [&](std::int64_t, int worker) {
    if (worker < 0 || worker >= kThreads || inside[static_cast<std::size_t>(worker)]++ != 0) {
      shared = true;
    }
    std::this_thread::yield();
    --inside[static_cast<std::size_t>(worker)];
  });
  EXPECT_FALSE(shared.load());
}

TEST(ParallelFor, UsesSeveralThreadsAtOnce) {
  std::atomic<int> waiting{0};
  std::atomic<bool> met{false};
  parallel_for(2, 2, [&](std::int64_t, int) {
    ++waiting;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (waiting.load() < 2 && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    if (waiting.load() == 2) {
      met = true;
    }
  });
  EXPECT_TRUE(met.load());
}

TEST(ParallelFor, RethrowsAndStaysUsable) {
  for (const int threads : {1, 3}) {
    std::atomic<int> done{0};
    try {
      parallel_for(threads, 100000, [&](std::int64_t item, int) {
        if (item == 5) {
          throw std::runtime_error("item five");
        }
        ++done;
      });
      FAIL() << "no exception";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()), "item five");
    }
    EXPECT_LT(done.load(), 100000);
    std::atomic<int> count{0};
    parallel_for(threads, 50, [&](std::int64_t, int) { ++count; });
    EXPECT_EQ(count.load(), 50);
  }
}

TEST(ParallelFor, NestedCallsRunInline) {
  std::atomic<std::int64_t> total{0};
  parallel_for(3, 6, [&](std::int64_t, int) {
    const auto self = std::this_thread::get_id();
    parallel_for(3, 10, [&](std::int64_t item, int worker) {
      EXPECT_EQ(std::this_thread::get_id(), self);
      EXPECT_EQ(worker, 0);
      total += item;
    });
  });
  EXPECT_EQ(total.load(), 6 * 45);
}

TEST(ParallelFor, CallersFromSeveralThreadsTakeTurns) {
  std::vector<std::int64_t> sums(4, 0);
  std::vector<std::thread> callers;
  for (std::size_t c = 0; c < sums.size(); ++c) {
    callers.emplace_back([&sums, c] {
      for (int repeat = 0; repeat < 50; ++repeat) {
        std::vector<std::int64_t> squares(64);
        parallel_for(3, 64, [&](std::int64_t item, int) {
          squares[static_cast<std::size_t>(item)] = item * item;
        });
        sums[c] += std::accumulate(squares.begin(), squares.end(), std::int64_t{0});
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  for (const std::int64_t sum : sums) {
    EXPECT_EQ(sum, 50 * (63 * 64 * 127 / 6));
  }
}

TEST(ResolveThreads, ZeroMeansAll) {
  EXPECT_GE(resolve_threads(0), 1);
  EXPECT_EQ(resolve_threads(0), resolve_threads(-3));
  EXPECT_EQ(resolve_threads(5), 5);
}

}  // namespace
}  // namespace raingauge
