// SPDX-License-Identifier: Apache-2.0
// The sm_90a kernels' index logic, driven on the host in the order in which the copying warp drives it:
// every step's columns are exactly the keys that the plan keeps.
#include "methods/kernels/cuda/tile_walk.h"

#include <gtest/gtest.h>

#include <set>

#include "methods/kernels/cuda/boxes.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;
using cuda_walk::BoxTable;
using cuda_walk::TileItem;

BoxTable table_of(const Plan& plan, const BoxFrame& frame) {
  return {frame.in_place ? nullptr : frame.valid.data(), frame.rows == 1 ? 0 : frame.boxes,
          static_cast<std::int32_t>(plan.tokens), frame.box_keys};
}

// Token in row r of a box, or -1: what the tensor copy brings, keys or padding.
std::int32_t row_of_box(const Plan& plan, const BoxFrame& frame, std::int64_t head,
                        std::int32_t box, int r) {
  const std::int64_t at_row = std::int64_t{box} * frame.box_keys + r;
  if (frame.in_place) return at_row < plan.tokens ? static_cast<std::int32_t>(at_row) : -1;
  const std::int64_t order = frame.rows == 1 ? 0 : head;
  return frame.slots[at(order * frame.boxes * frame.box_keys + at_row)];
}

// Keys that the columns of all steps of an item stand for.
std::multiset<std::int32_t> walk(const Plan& plan, const BoxFrame& frame, const BoxWork& work,
                                 const TileItem& item) {
  const BoxTable table = table_of(plan, frame);
  const int per_step = cuda_walk::boxes_per_step(table);
  std::multiset<std::int32_t> keys;
  for (int step = 0; step < cuda_walk::step_count(table, item.count); ++step) {
    const int i = step * per_step;
    const std::int32_t first = work.boxes[at(item.first + i)];
    const bool paired = per_step == 2 && i + 1 < item.count;
    const std::int32_t second = paired ? work.boxes[at(item.first + i + 1)] : -1;
    const std::uint32_t columns =
        cuda_walk::step_columns(table, cuda_walk::valid_keys(table, item.head, first),
                                paired ? cuda_walk::valid_keys(table, item.head, second) : 0);
    for (int c = 0; c < cuda_walk::kStepKeys; ++c) {
      const bool in_second = per_step == 2 && c >= cuda_walk::kHalfKeys;
      if (!cuda_walk::column_counts(columns, c)) continue;
      EXPECT_TRUE(!in_second || paired);
      const std::int32_t token = row_of_box(plan, frame, item.head, in_second ? second : first,
                                            in_second ? c - cuda_walk::kHalfKeys : c);
      EXPECT_GE(token, 0) << "a column that counts and is no key";
      keys.insert(token);
    }
  }
  return keys;
}

TEST(TileWalk, ColumnsAreTheKeptKeys) {
  std::mt19937 engine(17);
  for (int round = 0; round < 40; ++round) {
    const int block = round % 4 == 0 ? 128 : round % 4 == 1 ? 64 : round % 4 == 2 ? 40 : 200;
    const std::int64_t tokens = 90 + static_cast<std::int64_t>(engine() % 500);
    const PlanForm form{.orders = round % 3 == 1,
                        .per_head = round % 6 == 1,
                        .ragged = round % 2 == 1,
                        .empty_blocks = round % 5 == 1,
                        .keep = 0.4,
                        .empty_lists = round % 7 == 3};
    const Plan plan = random_plan(2, tokens, block, form, engine);
    std::vector<std::uint8_t> valid(at(tokens), 1);
    for (auto& flag : valid) flag = engine() % 5 != 0;
    const std::uint8_t* key_valid = round % 8 < 4 ? nullptr : valid.data();
    const BoxFrame frame = make_box_frame(plan, key_valid);
    const BoxWork work = make_box_work(plan, frame, 1);
    const std::vector<char> sees = visibility(plan, key_valid);
    for (const TileItem& item : work.items) {
      const std::multiset<std::int32_t> keys = walk(plan, frame, work, item);
      const std::int64_t q = plan.q_order.token(item.head, item.q_first);
      for (std::int32_t k = 0; k < tokens; ++k) {
        ASSERT_EQ(keys.count(k),
                  static_cast<std::size_t>(sees[at((item.head * tokens + q) * tokens + k)]))
            << "round " << round << " head " << item.head << " query " << q << " key " << k;
      }
    }
  }
}

TEST(TileWalk, FullStepsNeedNoMask) {
  const BoxTable whole{nullptr, 0, 1000, 128};
  EXPECT_EQ(cuda_walk::step_columns(whole, cuda_walk::valid_keys(whole, 0, 3), 0),
            cuda_walk::kAllColumns);
  EXPECT_EQ(cuda_walk::valid_keys(whole, 0, 7), 1000 - 7 * 128);
  EXPECT_EQ(cuda_walk::valid_keys(whole, 0, 8), 0);
  const BoxTable halves{nullptr, 0, 1000, 64};
  EXPECT_EQ(cuda_walk::step_columns(halves, 64, 64), cuda_walk::kAllColumns);
  EXPECT_EQ(cuda_walk::step_count(halves, 5), 3);
}

TEST(TileWalk, SwizzleIsABijectionWithoutBankConflicts) {
  for (const int rows : {64, 128, 256}) {
    for (const int chunks : {8, 16}) {
      std::set<int> places;
      for (int row = 0; row < rows; ++row) {
        for (int chunk = 0; chunk < chunks; ++chunk) {
          const int place = cuda_walk::tile_byte(row, chunk, rows);
          EXPECT_TRUE(place % 16 == 0 && place >= 0 && place < rows * chunks * 16);
          EXPECT_TRUE(places.insert(place).second);
        }
      }
      for (int chunk = 0; chunk < chunks; ++chunk) {
        std::set<int> groups;  // of 16 bytes among the 128 bytes of all banks
        for (int row = 0; row < 8; ++row) {
          groups.insert(cuda_walk::tile_byte(row, chunk, rows) / 16 % 8);
        }
        EXPECT_EQ(groups.size(), 8U);
      }
    }
  }
}

}  // namespace
}  // namespace raingauge
