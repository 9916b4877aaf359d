// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/cuda/boxes.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>

#include "data/error.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

using cuda_walk::TileItem;

constexpr int kTileRows = 128;

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

bool is_valid(const std::uint8_t* key_valid, std::int32_t token) {
  return key_valid == nullptr || key_valid[token] != 0;
}

// Valid keys of every block: [rows, blocks].
std::vector<std::int32_t> keys_of_blocks(const Plan& plan, int rows,
                                         const std::uint8_t* key_valid) {
  const Layout& layout = plan.k_blocks;
  std::vector<std::int32_t> keys(index_of(rows * layout.blocks), 0);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t b = 0; b < layout.blocks; ++b) {
      auto& count = keys[index_of(row * layout.blocks + b)];
      for (auto x = layout.begin(row, b); x < layout.end(row, b); ++x) {
        count += is_valid(key_valid, plan.k_order.token(row, x)) ? 1 : 0;
      }
    }
  }
  return keys;
}

bool stands_in_place(const Plan& plan, const std::vector<std::int32_t>& keys, int box_keys) {
  if (!plan.k_order.identity || plan.k_blocks.rows != 1 || keys.empty()) return false;
  std::int64_t sum = 0;
  for (std::size_t b = 0; b < keys.size(); ++b) {
    if (b + 1 < keys.size() && keys[b] != box_keys) return false;
    sum += keys[b];
  }
  return sum == plan.tokens && keys.back() > 0;
}

void fill_slots(BoxFrame& frame, const Plan& plan, std::int64_t row,
                const std::uint8_t* key_valid) {
  const std::int64_t width = frame.boxes * frame.box_keys;
  const std::int32_t* first = frame.first_box.data() + row * (plan.k_blocks.blocks + 1);
  for (std::int64_t b = 0; b < plan.k_blocks.blocks; ++b) {
    std::int64_t slot = row * width + std::int64_t{first[b]} * frame.box_keys;
    for (auto x = plan.k_blocks.begin(row, b); x < plan.k_blocks.end(row, b); ++x) {
      const std::int32_t token = plan.k_order.token(row, x);
      if (!is_valid(key_valid, token)) continue;
      frame.slots[index_of(slot)] = token;
      ++frame.valid[index_of(slot / frame.box_keys)];
      ++slot;
    }
  }
}

// Where the boxes of every block begin; a block without a key keeps one empty box, so that block
// numbers can stay box numbers.
void place_boxes(BoxFrame& frame, const std::vector<std::int32_t>& keys, std::int64_t blocks) {
  frame.block_is_box = true;
  for (std::int64_t row = 0; row < frame.rows; ++row) {
    std::int32_t box = 0;
    for (std::int64_t b = 0; b < blocks; ++b) {
      frame.first_box.push_back(box);
      const std::int32_t count = keys[index_of(row * blocks + b)];
      const std::int32_t boxes = std::max(1, (count + frame.box_keys - 1) / frame.box_keys);
      frame.block_is_box = frame.block_is_box && boxes == 1;
      box += boxes;
    }
    frame.first_box.push_back(box);
    frame.boxes = std::max<std::int64_t>(frame.boxes, box);
  }
}

// Appends the boxes that one query block sees and returns how many.
std::int32_t append_boxes(const Plan& plan, const BoxFrame& frame, std::int64_t head,
                          std::int64_t block, std::vector<std::int32_t>& boxes) {
  const std::int64_t row = frame.rows == 1 ? 0 : head;
  const std::int32_t* first = frame.first_box.data() + row * (plan.k_blocks.blocks + 1);
  const std::int32_t* columns = plan.lists.begin(head, block);
  const std::size_t before = boxes.size();
  for (std::int64_t c = 0; c < plan.lists.count(head, block); ++c) {
    for (std::int32_t box = first[columns[c]]; box < first[columns[c] + 1]; ++box) {
      if (!frame.in_place && frame.valid[index_of(row * frame.boxes + box)] == 0) continue;
      boxes.push_back(box);
    }
  }
  return static_cast<std::int32_t>(boxes.size() - before);
}

void check_fits(std::size_t count, const char* what) {
  constexpr auto kLimit = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  if (count <= kLimit) return;
  throw Unsupported("cuda: " + std::to_string(count) + " " + what + "; at most " +
                    std::to_string(kLimit) + " are possible");
}

}  // namespace

BoxFrame make_box_frame(const Plan& plan, const std::uint8_t* key_valid) {
  BoxFrame frame;
  frame.rows = std::max(plan.k_order.identity ? 1 : plan.k_order.rows, plan.k_blocks.rows);
  const std::vector<std::int32_t> keys = keys_of_blocks(plan, frame.rows, key_valid);
  const bool small = std::all_of(keys.begin(), keys.end(),
                                 [](std::int32_t n) { return n <= cuda_walk::kHalfKeys; });
  frame.box_keys = small ? cuda_walk::kHalfKeys : cuda_walk::kStepKeys;
  frame.in_place = stands_in_place(plan, keys, frame.box_keys);
  place_boxes(frame, keys, plan.k_blocks.blocks);
  if (frame.in_place) return frame;
  frame.slots.assign(index_of(frame.rows * frame.boxes * frame.box_keys), -1);
  frame.valid.assign(index_of(frame.rows * frame.boxes), 0);
  for (std::int64_t row = 0; row < frame.rows; ++row) fill_slots(frame, plan, row, key_valid);
  return frame;
}

BoxWork make_every_box_work(const Plan& plan, const BoxFrame& frame, int rows) {
  BoxWork work;
  work.every_box = static_cast<std::int32_t>(frame.boxes);
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    for (std::int64_t q = 0; q < plan.tokens; q += rows) {
      work.items.push_back(
          {0, static_cast<std::int32_t>(head), static_cast<std::int32_t>(q),
           static_cast<std::int32_t>(std::min<std::int64_t>(rows, plan.tokens - q)),
           work.every_box});
    }
  }
  check_fits(work.items.size(), "work items");
  const double steps = cuda_walk::step_count({nullptr, 0, 0, frame.box_keys}, work.every_box);
  const auto tiles = static_cast<double>((plan.tokens + kTileRows - 1) / kTileRows);
  work.density_tiles = steps * static_cast<double>(work.items.size()) * rows / kTileRows /
                       (static_cast<double>(plan.heads) * tiles * tiles);
  return work;
}

BoxWork make_box_work(const Plan& plan, const BoxFrame& frame, int threads, int dense_rows) {
  if (dense_rows > 0 && keeps_every_pair(plan)) return make_every_box_work(plan, frame, dense_rows);
  struct HeadWork {
    std::vector<std::int32_t> boxes;
    std::vector<TileItem> items;
  };
  std::vector<HeadWork> heads(index_of(plan.heads));
  parallel_for(threads, plan.heads, [&](std::int64_t head, int) {
    HeadWork& work = heads[index_of(head)];
    for (std::int64_t block = 0; block < plan.q_blocks.blocks; ++block) {
      if (plan.q_blocks.size(head, block) == 0) continue;
      const auto first = static_cast<std::int64_t>(work.boxes.size());
      const std::int32_t count = append_boxes(plan, frame, head, block, work.boxes);
      const std::int32_t end = plan.q_blocks.end(head, block);
      for (std::int32_t q = plan.q_blocks.begin(head, block); q < end; q += kTileRows) {
        work.items.push_back(
            {first, static_cast<std::int32_t>(head), q, std::min(kTileRows, end - q), count});
      }
    }
  });
  BoxWork all;
  const cuda_walk::BoxTable table{nullptr, 0, 0, frame.box_keys};
  double steps = 0.0;
  for (HeadWork& head : heads) {
    const auto base = static_cast<std::int64_t>(all.boxes.size());
    for (TileItem& item : head.items) {
      item.first += base;
      steps += cuda_walk::step_count(table, item.count);
    }
    all.boxes.insert(all.boxes.end(), head.boxes.begin(), head.boxes.end());
    all.items.insert(all.items.end(), head.items.begin(), head.items.end());
  }
  check_fits(all.items.size(), "work items");
  std::stable_sort(all.items.begin(), all.items.end(),
                   [](const TileItem& a, const TileItem& b) { return a.count > b.count; });
  const auto tiles = static_cast<double>((plan.tokens + kTileRows - 1) / kTileRows);
  all.density_tiles = steps / (static_cast<double>(plan.heads) * tiles * tiles);
  return all;
}

}  // namespace raingauge
