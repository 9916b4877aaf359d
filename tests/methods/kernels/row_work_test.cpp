// SPDX-License-Identifier: Apache-2.0
// The row evaluator's index logic, driven on the host as the device drives it: every sampled row stands in
// one item, its tiles name the keys that the plan keeps, and masks tell their classes.
#include "methods/kernels/cuda/row_work.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;
using cuda_walk::kKeyTile;
using cuda_walk::RowItem;

RowSample sample_of(std::int64_t tokens, std::int64_t step) {
  RowSample sample;
  for (std::int64_t i = step > 1 ? 1 : 0; i < tokens; i += step)
    sample.tokens.push_back(static_cast<std::int32_t>(i));
  return sample;
}

// Text, a video of two frames, text, another video: only the first video has a frame 0 that counts.
RecordInfo info_of(std::int64_t tokens) {
  RecordInfo info;
  const std::int64_t text = tokens / 10;
  const std::int64_t frame = tokens / 8;
  std::int64_t at_token = 0;
  const auto add = [&](Role role, std::int64_t length, int frames) {
    info.segments.push_back({role, at_token, length, frames, frames > 0 ? 1 : 0,
                             frames > 0 ? static_cast<int>(length / frames) : 0});
    at_token += length;
  };
  add(Role::text, text, 0);
  add(Role::video, 2 * frame, 2);
  add(Role::text, text, 0);
  add(Role::video, tokens - at_token, 1);
  return info;
}

// What the masks of a tile say, as the ballots of two warps would fill them.
cuda_walk::TileMasks masks_of(const std::vector<std::int32_t>& tokens,
                              const std::vector<std::uint8_t>& classes) {
  cuda_walk::TileMasks masks{};
  for (int c = 0; c < kKeyTile; ++c) {
    const auto kind = tokens[at(c)] < 0 ? cuda_walk::kPlainKey : classes[at(tokens[at(c)])];
    if (kind == cuda_walk::kFirstFrameKey) masks.first_frame[c / 32] |= 1U << (c % 32);
    if (kind == cuda_walk::kTextKey) masks.text[c / 32] |= 1U << (c % 32);
  }
  return masks;
}

struct Walked {
  std::multiset<std::int32_t> keys, first_frame, text;
};

Walked walk(const RowFrame& frame, const RowWork& work, const RowItem& item,
            const std::vector<std::uint8_t>& classes) {
  std::vector<cuda_walk::KeyCursor> cursors(kKeyTile);
  const auto stream = cuda_walk::stream_of(item);
  for (auto& cursor : cursors) cursor.start(work.runs.data(), stream);
  Walked walked;
  for (int tile = 0; tile < cuda_walk::tile_count(stream); ++tile) {
    std::vector<std::int32_t> tokens;
    for (int c = 0; c < kKeyTile; ++c) {
      tokens.push_back(cuda_walk::token_at(cursors[at(c)], item, frame.key_tokens.data(), tile, c));
      EXPECT_EQ(tokens.back() >= 0, c < cuda_walk::keys_in_tile(stream, tile));
    }
    const auto masks = masks_of(tokens, classes);
    for (int c = 0; c < kKeyTile; ++c) {
      if (tokens[at(c)] < 0) continue;
      walked.keys.insert(tokens[at(c)]);
      if (cuda_walk::in_mask(masks.first_frame, c)) walked.first_frame.insert(tokens[at(c)]);
      if (cuda_walk::in_mask(masks.text, c)) walked.text.insert(tokens[at(c)]);
    }
  }
  return walked;
}

// Every slot of one plan's results is written by one item, which sees what the row sees.
void expect_covered(const RowFrame& frame, const RowWork& work, std::int64_t out,
                    const RowSample& sample, const RecordInfo& info, std::int64_t tokens,
                    const std::function<bool(std::int64_t q, std::int64_t k)>& sees) {
  const auto classes = classify_key_tokens(info, tokens);
  std::vector<int> written(sample.tokens.size(), 0);
  for (const RowItem& item : work.items) {
    if (item.out != out) continue;
    ASSERT_GT(item.rows, 0);
    ASSERT_LE(item.rows, cuda_walk::kRowTile);
    const Walked walked = walk(frame, work, item, classes);
    for (std::int32_t r = 0; r < item.rows; ++r) {
      const std::int32_t slot = frame.row_slots[at(item.first_row + r)];
      ++written[at(slot)];
      const std::int64_t q = sample.tokens[at(slot)];
      for (std::int32_t k = 0; k < tokens; ++k) {
        const std::size_t expected = sees(q, k) ? 1 : 0;
        ASSERT_EQ(walked.keys.count(k), expected) << "row " << q << " key " << k;
        const auto kind = classes[at(k)];
        ASSERT_EQ(walked.first_frame.count(k), kind == cuda_walk::kFirstFrameKey ? expected : 0);
        ASSERT_EQ(walked.text.count(k), kind == cuda_walk::kTextKey ? expected : 0);
      }
    }
  }
  for (const int times : written) ASSERT_EQ(times, 1);
}

TEST(RowWork, ItemsCoverTheSampleAndSeeWhatThePlanKeeps) {
  std::mt19937 engine(23);
  for (int round = 0; round < 24; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const std::int64_t tokens = 80 + static_cast<std::int64_t>(engine() % 400);
    const PlanForm form{.orders = round % 2 == 1,
                        .per_head = round % 4 == 1,
                        .ragged = round % 3 == 1,
                        .empty_blocks = round % 5 == 1,
                        .keep = 0.35,
                        .empty_lists = round % 7 == 3};
    const int block = round % 3 == 0 ? 128 : 24;
    const Plan plan = random_plan(2, tokens, block, form, engine);
    Plan other = plan;  // the same frame, other lists: a control
    for (auto& column : other.lists.columns)
      column = static_cast<std::int32_t>(plan.k_blocks.blocks - 1 - column);
    for (std::size_t row = 0; row + 1 < other.lists.row_offsets.size(); ++row) {
      std::sort(other.lists.columns.begin() + other.lists.row_offsets[row],
                other.lists.columns.begin() + other.lists.row_offsets[row + 1]);
    }
    std::vector<std::uint8_t> valid(at(tokens), 1);
    for (auto& flag : valid) flag = engine() % 4 != 0;
    const std::uint8_t* key_valid = round % 6 < 3 ? nullptr : valid.data();
    const RowSample sample = sample_of(tokens, round % 4 == 2 ? 1 : 3);
    const RecordInfo info = info_of(tokens);
    const auto rows = static_cast<std::int64_t>(sample.tokens.size());
    const std::vector<char> sees = visibility(plan, key_valid);
    const std::vector<char> other_sees = visibility(other, key_valid);
    for (std::int64_t head = 0; head < 2; ++head) {
      const RowFrame frame = make_row_frame(&plan, head, sample, tokens, key_valid);
      RowWork work;
      append_row_work(frame, &plan.lists, head, head, 0, work);
      append_row_work(frame, &other.lists, head, head, rows, work);
      finish_row_work(work);
      const auto seen = [&](const std::vector<char>& by) {
        return [&, head](std::int64_t q, std::int64_t k) {
          return by[at((head * tokens + q) * tokens + k)] != 0;
        };
      };
      expect_covered(frame, work, 0, sample, info, tokens, seen(sees));
      expect_covered(frame, work, rows, sample, info, tokens, seen(other_sees));
      for (const RowItem& item : work.items) {
        ASSERT_EQ(item.head, head);
        ASSERT_LT(at(item.first_run), work.runs.size());
      }
    }
    const RowFrame dense = make_row_frame(nullptr, 0, sample, tokens, key_valid);
    RowWork work;
    append_row_work(dense, nullptr, 0, 1, 0, work);
    finish_row_work(work);
    expect_covered(dense, work, 0, sample, info, tokens, [&](std::int64_t, std::int64_t k) {
      return key_valid == nullptr || key_valid[k] != 0;
    });
  }
}

TEST(RowWork, NeighbouringBlocksMakeOneRunAndLongStreamsComeFirst) {
  const Plan plan = dense_plan(1, 1000, 128);
  const RowSample sample = sample_of(1000, 1);
  const RowFrame frame = make_row_frame(&plan, 0, sample, 1000, nullptr);
  RowWork work;
  append_row_work(frame, &plan.lists, 0, 0, 0, work);
  BlockLists first_only;
  first_only.heads = 1;
  first_only.query_blocks = 8;
  first_only.row_offsets = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  first_only.columns.assign(8, 0);
  append_row_work(frame, &first_only, 0, 0, 1000, work);
  finish_row_work(work);
  EXPECT_EQ(work.runs.size(), 8 + 8 + 1U);  // and the one that is read but never used
  EXPECT_EQ(work.items.size(), 2 * 16U);    // 7 x 128 + 104 rows in items of 64
  for (std::size_t i = 1; i < work.items.size(); ++i)
    EXPECT_GE(work.items[i - 1].keys, work.items[i].keys);
}

TEST(RowWork, MasksOutliveTheTilesInFlight) {
  // A tile's masks are written two tiles ahead while a thread may still use those of the tile before.
  for (int tile = 0; tile < 20; ++tile) {
    EXPECT_NE(cuda_walk::mask_slot(tile + 2), cuda_walk::mask_slot(tile));
    EXPECT_NE(cuda_walk::mask_slot(tile + 2), cuda_walk::mask_slot(tile + 1));
    EXPECT_NE(cuda_walk::mask_slot(tile + 2), cuda_walk::mask_slot(tile - 1));
  }
}

}  // namespace
}  // namespace raingauge
