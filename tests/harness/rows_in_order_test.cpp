// SPDX-License-Identifier: Apache-2.0
#include "harness/rows_in_order.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/harness/temporary_folder.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing_support::TemporaryFolder;

std::vector<json> cell(std::size_t i) {
  std::vector<json> rows;
  for (std::size_t row = 0; row < 1 + i % 3; ++row)
    rows.push_back({{"cell", "c" + std::to_string((i * 7919) % 1000)}, {"i", i}, {"row", row}});
  return rows;
}

// Whatever thread is ready first, the file is the same.
TEST(RowsInOrder, WritesCellsInTheirOwnOrder) {
  const TemporaryFolder folder;
  constexpr std::size_t kCells = 200;
  {
    RunFolder run(folder.path(), "hash");
    RowsInOrder written(run, "fidelity", kCells);
    std::atomic<std::size_t> next{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 6; ++t) {
      threads.emplace_back([&] {
        for (std::size_t i = next++; i < kCells; i = next++) {
          if (i % 5 == 0) std::this_thread::yield();
          written.put(i,
                      i % 11 == 3 ? std::vector<json>() : cell(i));  // some have nothing to write
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
  std::vector<json> expected;
  for (std::size_t i = 0; i < kCells; ++i) {
    for (auto& row : i % 11 == 3 ? std::vector<json>() : cell(i)) {
      row["cell_rows"] = 1 + i % 3;
      expected.push_back(row);
    }
  }
  EXPECT_EQ(load_rows(folder.path(), "fidelity"), expected);
}

TEST(RowsInOrder, WritesAsSoonAsAllBeforeAreThere) {
  const TemporaryFolder folder;
  RunFolder run(folder.path(), "hash");
  RowsInOrder written(run, "fidelity", 3);
  written.put(1, cell(1));
  EXPECT_EQ(run.cells("fidelity"), 0U);
  written.put(0, cell(0));
  EXPECT_EQ(run.cells("fidelity"), 2U);
  written.put(2, cell(2));
  EXPECT_EQ(run.cells("fidelity"), 3U);
}

}  // namespace
}  // namespace raingauge
