// SPDX-License-Identifier: Apache-2.0
// What does a plan lose? Exact attention of sampled query rows, over all keys or over a plan's keys.
//
// Keys are streamed in tiles of at most 128 of one block, each converted and transposed once for all
// rows of a batch that attend it; rows that do not are skipped. A row's state (largest score, fp64
// sums, fp64 output) is carried from tile to tile. The keys are cut into segments of fixed length
// that threads take; their states are merged in order, so the number of threads changes nothing.
#include "methods/kernels/row_evaluator.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <optional>
#include <string>

#include "data/error.h"
#include "methods/kernels/cpu/buffer.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/cpu/judge.h"
#include "methods/kernels/cpu/packed_head.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

using cpu::kChunkKeys;
using cpu::kChunkUnits;
using cpu::kUnit;

constexpr std::size_t kBatchRows = 512;      // rows that share one packing of a key tile
constexpr std::int64_t kSegmentKeys = 2048;  // keys of one item of the queue
constexpr std::size_t kStateBytes = std::size_t{64} << 20;  // of row states held at once

constexpr std::uint8_t kPlain = 0, kFirstFrame = 1, kText = 2;  // classes of keys

// Valid keys of one block, or a part of them.
struct KeyTile {
  std::int64_t block = 0;
  std::size_t first = 0;  // into Job::keys
  int count = 0;
};

struct KeySegment {
  std::size_t first_tile = 0;
  std::size_t last_tile = 0;
};

// Rows [first, last) of the sorted sample that attend the same key blocks.
struct RowGroup {
  std::int64_t block = 0;  // query block
  std::size_t first = 0;
  std::size_t last = 0;
};

struct Batch {
  std::size_t first = 0;  // into Job::rows
  std::size_t count = 0;
  std::vector<RowGroup> groups;
};

struct Job {
  const cpu::LevelOps& ops;
  const RecordView& record;
  std::int64_t head = 0;
  const Plan* plan = nullptr;
  cpu::PackShape q_shape, k_shape, v_shape;
  cpu::ScaleParts scale;
  std::vector<std::int32_t> keys;  // tokens of the valid keys, in block order
  std::vector<KeyTile> tiles;
  std::vector<KeySegment> segments;
  std::vector<std::uint8_t> key_class;  // [tokens]
  std::vector<std::size_t> rows;        // indices into the sample, sorted by query block
  std::vector<Batch> batches;
};

// Sums of some rows over some keys; a view, rows apart by one (o: by padded_dim).
struct RowStates {
  float* largest = nullptr;
  double* sum = nullptr;
  double* first_frame = nullptr;
  double* text = nullptr;
  double* o = nullptr;           // [rows, padded_dim]
  std::int64_t* keys = nullptr;  // attended
};

// States of a batch's rows over one segment of keys, `count` times. The memory is left as it comes: the
// thread that takes a segment clears its states, and so pays for their pages.
class SegmentStates {
 public:
  SegmentStates(std::size_t count, std::size_t rows, std::size_t padded_dim)
      : rows_(rows),
        dim_(padded_dim),
        largest_(cpu::make_buffer<float>(count * rows)),
        sums_(cpu::make_buffer<double>(count * rows * (3 + padded_dim))),
        keys_(cpu::make_buffer<std::int64_t>(count * rows)) {}

  RowStates at(std::size_t number) const {
    double* sums = sums_.get() + number * rows_ * (3 + dim_);
    return {largest_.get() + number * rows_, sums, sums + rows_, sums + 2 * rows_, sums + 3 * rows_,
            keys_.get() + number * rows_};
  }

  // Rows [first, last) of one.
  void clear(std::size_t number, std::size_t first, std::size_t last) const {
    const RowStates states = at(number);
    const std::size_t rows = last - first;
    std::fill_n(states.largest + first, rows, -std::numeric_limits<float>::infinity());
    for (double* sums : {states.sum, states.first_frame, states.text}) {
      std::fill_n(sums + first, rows, 0.0);
    }
    std::fill_n(states.o + first * dim_, rows * dim_, 0.0);
    std::fill_n(states.keys + first, rows, std::int64_t{0});
  }

 private:
  std::size_t rows_, dim_;
  cpu::Buffer<float> largest_;
  cpu::Buffer<double> sums_;
  cpu::Buffer<std::int64_t> keys_;
};

void mark(std::vector<std::uint8_t>& classes, std::int64_t first, std::int64_t count,
          std::uint8_t value) {
  std::fill(classes.begin() + first, classes.begin() + first + count, value);
}

// Frame 0 of the first video segment; every text token.
std::vector<std::uint8_t> classify_keys(const RecordView& record) {
  std::vector<std::uint8_t> classes(static_cast<std::size_t>(record.tokens()), kPlain);
  bool first_video = true;
  for (const Segment& segment : record.info->segments) {
    if (segment.role == Role::text) {
      mark(classes, segment.start, segment.length, kText);
    } else if (segment.role == Role::video && first_video) {
      first_video = false;
      mark(classes, segment.start, std::min(segment.frame_size(), segment.length), kFirstFrame);
    }
  }
  return classes;
}

// One block of keys at a time; without a plan the blocks are runs of 128 tokens.
void list_keys(Job& job) {
  const Layout runs =
      job.plan == nullptr ? uniform_layout(job.record.tokens(), kChunkKeys) : Layout{};
  const Layout& layout = job.plan == nullptr ? runs : job.plan->k_blocks;
  const std::uint8_t* key_valid = job.record.key_valid;
  job.keys.reserve(static_cast<std::size_t>(job.record.tokens()));
  for (std::int64_t b = 0; b < layout.blocks; ++b) {
    const std::size_t first = job.keys.size();
    for (std::int32_t p = layout.begin(job.head, b); p < layout.end(job.head, b); ++p) {
      const std::int32_t token = job.plan == nullptr ? p : job.plan->k_order.token(job.head, p);
      if (key_valid == nullptr || key_valid[token] != 0) {
        job.keys.push_back(token);
      }
    }
    for (std::size_t at = first; at < job.keys.size(); at += kChunkKeys) {
      const std::size_t left = job.keys.size() - at;
      job.tiles.push_back({b, at, static_cast<int>(std::min<std::size_t>(left, kChunkKeys))});
    }
  }
  std::size_t tile = 0;
  while (tile < job.tiles.size()) {
    KeySegment segment{tile, tile};
    for (std::int64_t keys = 0; tile < job.tiles.size() && keys < kSegmentKeys; ++tile) {
      keys += job.tiles[tile].count;
    }
    segment.last_tile = tile;
    job.segments.push_back(segment);
  }
}

// Rows sorted by query block (ties in the sample's order), cut into batches and groups.
void group_rows(Job& job, const RowSample& sample) {
  const std::size_t count = sample.tokens.size();
  std::vector<std::int64_t> block_of(count, 0);
  if (job.plan != nullptr) {
    const std::vector<std::int32_t> position = inverse_order(job.plan->q_order, job.head);
    const std::int32_t* offsets = job.plan->q_blocks.row(job.head);
    const std::int32_t* end = offsets + job.plan->q_blocks.blocks + 1;
    for (std::size_t i = 0; i < count; ++i) {
      const std::int32_t token = sample.tokens[i];
      const std::int32_t at = position.empty() ? token : position[static_cast<std::size_t>(token)];
      block_of[i] = std::upper_bound(offsets, end, at) - offsets - 1;
    }
  }
  job.rows.resize(count);
  std::iota(job.rows.begin(), job.rows.end(), std::size_t{0});
  std::stable_sort(job.rows.begin(), job.rows.end(),
                   [&](std::size_t a, std::size_t b) { return block_of[a] < block_of[b]; });
  for (std::size_t first = 0; first < count; first += kBatchRows) {
    Batch batch;
    batch.first = first;
    batch.count = std::min<std::size_t>(count - first, kBatchRows);
    for (std::size_t i = 0; i < batch.count; ++i) {
      const std::int64_t block = block_of[job.rows[first + i]];
      if (batch.groups.empty() || batch.groups.back().block != block) {
        batch.groups.push_back({block, i, i});
      }
      batch.groups.back().last = i + 1;
    }
    job.batches.push_back(std::move(batch));
  }
}

// What a thread takes at once: rows [first_row, last_row) of a batch and one segment of keys.
struct Item {
  std::size_t batch = 0;
  std::size_t segment = 0;
  std::size_t first_row = 0;
  std::size_t last_row = 0;
};

// Which rows of an item attend a key block, asked for ascending blocks.
class ActiveRows {
 public:
  ActiveRows(const Job& job, const Item& item, std::int64_t first_block)
      : job_(job), batch_(job.batches[item.batch]), item_(item) {
    rows_.reserve(item.last_row - item.first_row);
    if (job.plan == nullptr) {
      rows_.resize(item.last_row - item.first_row);
      std::iota(rows_.begin(), rows_.end(), static_cast<std::int32_t>(item.first_row));
      return;
    }
    for (const RowGroup& group : batch_.groups) {
      const std::int32_t* list = job.plan->lists.begin(job.head, group.block);
      const std::int32_t* end = list + job.plan->lists.count(job.head, group.block);
      cursors_.push_back({std::lower_bound(list, end, first_block), end});
    }
  }

  const std::vector<std::int32_t>& of_block(std::int64_t block) {
    if (job_.plan == nullptr || block == block_) {
      return rows_;
    }
    block_ = block;
    rows_.clear();
    for (std::size_t g = 0; g < cursors_.size(); ++g) {
      Cursor& cursor = cursors_[g];
      while (cursor.next != cursor.end && *cursor.next < block) {
        ++cursor.next;
      }
      if (cursor.next != cursor.end && *cursor.next == block) {
        const std::size_t last = std::min(batch_.groups[g].last, item_.last_row);
        for (std::size_t i = std::max(batch_.groups[g].first, item_.first_row); i < last; ++i) {
          rows_.push_back(static_cast<std::int32_t>(i));
        }
      }
    }
    return rows_;
  }

 private:
  struct Cursor {
    const std::int32_t* next;
    const std::int32_t* end;
  };
  const Job& job_;
  const Batch& batch_;
  const Item& item_;
  std::vector<Cursor> cursors_;
  std::vector<std::int32_t> rows_;
  std::int64_t block_ = -1;
};

// Packed keys of one tile; a worker keeps them from item to item.
struct TileBuffers {
  explicit TileBuffers(const Job& job)
      : k(cpu::make_buffer<std::uint32_t>(job.k_shape.k_unit_words() * kChunkUnits)),
        v(cpu::make_buffer<std::uint32_t>(job.v_shape.v_unit_words() * kChunkUnits)),
        scratch(cpu::make_buffer<float>(cpu::scratch_floats(job.q_shape.head_dim))) {}

  cpu::Buffer<std::uint32_t> k, v;
  cpu::Buffer<float> scratch;
  float bias[kChunkKeys] = {};
  float weight[2][kChunkKeys] = {};  // first frame, text
  bool has_class[2] = {};
};

int units_of(const Job& job, const KeyTile& tile) {
  const int group = kUnit * job.k_shape.unit_multiple();
  return (tile.count + group - 1) / group * job.k_shape.unit_multiple();
}

void pack_tile(const Job& job, const KeyTile& tile, TileBuffers& buffers) {
  buffers.has_class[0] = buffers.has_class[1] = false;
  const int units = units_of(job, tile);
  for (int u = 0; u < units; ++u) {
    const void* k_rows[kUnit];
    const void* v_rows[kUnit];
    for (int i = 0; i < kUnit; ++i) {
      const int at = u * kUnit + i;
      const bool valid = at < tile.count;
      const std::int32_t token = valid ? job.keys[tile.first + static_cast<std::size_t>(at)] : -1;
      const std::uint8_t kind = valid ? job.key_class[static_cast<std::size_t>(token)] : kPlain;
      k_rows[i] = valid ? job.record.k.row(job.head, token) : nullptr;
      v_rows[i] = valid ? job.record.v.row(job.head, token) : nullptr;
      buffers.bias[at] = valid ? 0.0F : -std::numeric_limits<float>::infinity();
      buffers.weight[0][at] = kind == kFirstFrame ? 1.0F : 0.0F;
      buffers.weight[1][at] = kind == kText ? 1.0F : 0.0F;
      buffers.has_class[0] = buffers.has_class[0] || kind == kFirstFrame;
      buffers.has_class[1] = buffers.has_class[1] || kind == kText;
    }
    const auto unit = static_cast<std::size_t>(u);
    job.ops.pack_k(job.k_shape, k_rows, buffers.k.get() + unit * job.k_shape.k_unit_words());
    job.ops.pack_v(job.v_shape, v_rows, u, buffers.v.get() + unit * job.v_shape.v_unit_words());
  }
}

void evaluate_item(const Job& job, const Item& item, const std::uint32_t* q, TileBuffers& buffers,
                   const RowStates& states) {
  const KeySegment& segment = job.segments[item.segment];
  ActiveRows active(job, item, job.tiles[segment.first_tile].block);
  cpu::RowTile tile;
  tile.shape = job.q_shape;
  tile.q = q;
  tile.k = buffers.k.get();
  tile.v = buffers.v.get();
  tile.bias = buffers.bias;
  tile.log2_scale = job.scale.log2_scale();
  tile.scratch = buffers.scratch.get();
  tile.largest = states.largest;
  tile.sum = states.sum;
  tile.class_sum[0] = states.first_frame;
  tile.class_sum[1] = states.text;
  tile.o = states.o;
  for (std::size_t t = segment.first_tile; t < segment.last_tile; ++t) {
    const KeyTile& keys = job.tiles[t];
    const std::vector<std::int32_t>& rows = active.of_block(keys.block);
    if (rows.empty()) {
      continue;
    }
    pack_tile(job, keys, buffers);
    tile.active = rows.data();
    tile.active_count = static_cast<std::int64_t>(rows.size());
    tile.unit_count = units_of(job, keys);
    tile.full = keys.count == tile.unit_count * kUnit;
    tile.class_weight[0] = buffers.has_class[0] ? buffers.weight[0] : nullptr;
    tile.class_weight[1] = buffers.has_class[1] ? buffers.weight[1] : nullptr;
    job.ops.evaluate(tile);
    for (const std::int32_t row : rows) {
      states.keys[static_cast<std::size_t>(row)] += keys.count;
    }
  }
}

// into += from: both scaled to the larger of the two maxima. NaN sums stay NaN.
void merge_row(const Job& job, const RowStates& into, const RowStates& from, std::size_t row) {
  if (from.keys[row] == 0) {
    return;
  }
  const auto dim = static_cast<std::size_t>(job.v_shape.padded_dim());
  const double scale = static_cast<double>(job.scale.log2_scale());
  const float top = std::max(into.largest[row], from.largest[row]);
  const auto factor = [&](const RowStates& states) {
    const auto largest = static_cast<double>(states.largest[row]);
    return states.largest[row] == top ? 1.0
                                      : std::exp2((largest - static_cast<double>(top)) * scale);
  };
  const double mine = factor(into);
  const double theirs = factor(from);
  into.sum[row] = into.sum[row] * mine + from.sum[row] * theirs;
  into.first_frame[row] = into.first_frame[row] * mine + from.first_frame[row] * theirs;
  into.text[row] = into.text[row] * mine + from.text[row] * theirs;
  for (std::size_t c = row * dim; c < (row + 1) * dim; ++c) {
    into.o[c] = into.o[c] * mine + from.o[c] * theirs;
  }
  into.largest[row] = top;
  into.keys[row] += from.keys[row];
}

void write_row(const Job& job, const RowSample& sample, const RowStates& states, std::size_t row,
               std::size_t target, RowResults& results) {
  const auto dim = static_cast<std::size_t>(results.head_dim);
  const double sum = states.sum[row];
  if (states.keys[row] == 0) {
    return;  // lse is -inf, o and masses are 0 already
  }
  results.lse[target] =
      job.scale.positive * static_cast<double>(states.largest[row]) + std::log(sum);
  results.mass_first_frame[target] = states.first_frame[row] / sum;
  results.mass_text[target] = states.text[row] / sum;
  bool finite = std::isfinite(results.lse[target]);
  for (std::size_t c = 0; c < dim; ++c) {
    const double value =
        states.o[row * static_cast<std::size_t>(job.v_shape.padded_dim()) + c] / sum;
    results.o[target * dim + c] = static_cast<float>(value);
    finite = finite && std::isfinite(value);
  }
  if (!finite) {
    throw NotFinite("attention of head " + std::to_string(job.head) + ", query token " +
                    std::to_string(sample.tokens[target]) +
                    " is not finite: its Q, or K or V of a key it attends, holds NaN or Inf, or a "
                    "score overflows fp32");
  }
}

// Of batches [first, last). The last segments, one a thread, come in parts of 128 rows, so that threads
// finish together: each part packs the segment again, and the rows' results are the same bits.
std::vector<Item> list_items(const Job& job, std::size_t first, std::size_t last, int threads) {
  const std::size_t segments = job.segments.size();
  const std::size_t wholes = (last - first) * segments;
  const auto cut = std::min(wholes, static_cast<std::size_t>(threads > 1 ? threads : 0));
  std::vector<Item> items;
  for (std::size_t at = 0; at < wholes; ++at) {
    const std::size_t batch = first + at / segments;
    const std::size_t rows = job.batches[batch].count;
    const std::size_t step = at < wholes - cut ? rows : cpu::kMaxTileRows;
    for (std::size_t row = 0; row < rows; row += step) {
      items.push_back({batch, at % segments, row, std::min(row + step, rows)});
    }
  }
  return items;
}

// Batches [first, last): segments of keys one by one, then the segments of every row are merged, in
// order.
void evaluate_batches(const Job& job, const RowSample& sample, std::size_t first, std::size_t last,
                      int threads, RowResults& results) {
  constexpr std::size_t kReadAhead = 31;  // rows: matrix tiles read 32 at once
  const auto depth = static_cast<std::size_t>(job.q_shape.depth());
  const std::size_t segments = job.segments.size();
  std::vector<cpu::Buffer<std::uint32_t>> q(last - first);
  for (std::size_t b = first; b < last; ++b) {
    const Batch& batch = job.batches[b];
    q[b - first] = cpu::make_buffer<std::uint32_t>((batch.count + kReadAhead) * depth);
    for (std::size_t i = 0; i < batch.count; ++i) {
      const std::int32_t token = sample.tokens[job.rows[batch.first + i]];
      job.ops.pack_q(job.q_shape, job.record.q.row(job.head, token), job.scale.factor,
                     q[b - first].get() + i * depth);
    }
  }
  const SegmentStates states((last - first) * segments, job.batches.front().count,
                             static_cast<std::size_t>(job.v_shape.padded_dim()));
  const int workers = resolve_threads(threads);
  const std::vector<Item> items = list_items(job, first, last, workers);
  std::vector<std::optional<TileBuffers>> buffers(static_cast<std::size_t>(workers));
  parallel_for(threads, static_cast<std::int64_t>(items.size()),
               [&](std::int64_t number, int worker) {
                 const Item& item = items[static_cast<std::size_t>(number)];
                 std::optional<TileBuffers>& mine = buffers[static_cast<std::size_t>(worker)];
                 if (!mine) {
                   mine.emplace(job);
                 }
                 const std::size_t state = (item.batch - first) * segments + item.segment;
                 states.clear(state, item.first_row, item.last_row);
                 evaluate_item(job, item, q[item.batch - first].get(), *mine, states.at(state));
               });
  constexpr std::size_t kMergedRows = 32;  // rows of one item
  constexpr std::size_t kParts = kBatchRows / kMergedRows;
  parallel_for(threads, static_cast<std::int64_t>((last - first) * kParts),
               [&](std::int64_t item, int) {
                 const auto at = static_cast<std::size_t>(item);
                 const Batch& batch = job.batches[first + at / kParts];
                 const std::size_t begin = at % kParts * kMergedRows;
                 const std::size_t end = std::min(begin + kMergedRows, batch.count);
                 const RowStates total = states.at(at / kParts * segments);
                 for (std::size_t row = begin; row < end; ++row) {
                   for (std::size_t s = 1; s < segments; ++s) {
                     merge_row(job, total, states.at(at / kParts * segments + s), row);
                   }
                   write_row(job, sample, total, row, job.rows[batch.first + row], results);
                 }
               });
}

// Pairs of bf16 would round the weights to bf16; matrix tiles are fast enough to multiply them in two
// parts.
cpu::Products judged_products(const cpu::LevelOps& ops, const RecordView& record) {
  const bool bf16 = record.q.dtype == DType::bf16 && record.k.dtype == DType::bf16 &&
                    record.v.dtype == DType::bf16;
  const auto shape = ops.shape(record.q.dtype, static_cast<int>(record.head_dim()));
  return bf16 && shape.tiles() ? shape.products : cpu::Products::floats;
}

void check_sample(const RecordView& record, const RowSample& sample) {
  for (const std::int32_t token : sample.tokens) {
    if (token < 0 || token >= record.tokens()) {
      throw Error("evaluate_rows: query token " + std::to_string(token) +
                  " is not in the record; allowed are 0 to " + std::to_string(record.tokens() - 1));
    }
  }
}

}  // namespace

void cpu::check_judged(const RecordView& record, std::int64_t head, const Plan* plan) {
  for (const TensorView* view : {&record.q, &record.k, &record.v}) {
    if (view->device.kind != DeviceKind::cpu) {
      throw Error("the row evaluator and block_mass need host memory; the record is on " +
                  to_string(view->device));
    }
    if (view->heads != record.q.heads || view->tokens != record.q.tokens ||
        view->head_dim != record.q.head_dim) {
      throw Error("q, k and v of the record differ in heads, tokens or head_dim");
    }
  }
  if (head < 0 || head >= record.heads()) {
    throw Error("head " + std::to_string(head) + " is out of range; the record has " +
                std::to_string(record.heads()));
  }
  if (plan != nullptr && (plan->heads != record.heads() || plan->tokens != record.tokens())) {
    throw Error("the plan is for " + std::to_string(plan->heads) + " heads of " +
                std::to_string(plan->tokens) + " tokens, the record has " +
                std::to_string(record.heads()) + " of " + std::to_string(record.tokens()));
  }
}

RowResults cpu::evaluate_rows_at(const LevelOps& ops, const RecordView& record, std::int64_t head,
                                 const RowSample& sample, const Plan* plan, int threads) {
  check_judged(record, head, plan);
  check_sample(record, sample);
  const int dim = static_cast<int>(record.head_dim());
  const cpu::Products products = judged_products(ops, record);
  Job job{ops,
          record,
          head,
          plan,
          {record.q.dtype, dim, products},
          {record.k.dtype, dim, products},
          {record.v.dtype, dim, products},
          split_scale(record.info->scale),
          {},
          {},
          {},
          {},
          {},
          {}};
  job.key_class = classify_keys(record);
  list_keys(job);
  group_rows(job, sample);

  const std::size_t rows = sample.tokens.size();
  RowResults results;
  results.rows = static_cast<std::int64_t>(rows);
  results.head_dim = dim;
  results.o.resize(rows * static_cast<std::size_t>(dim));
  results.lse.resize(rows, -std::numeric_limits<double>::infinity());
  results.mass_first_frame.resize(rows);
  results.mass_text.resize(rows);
  if (job.segments.empty()) {
    return results;  // no key at all
  }
  const std::size_t batch_bytes = job.segments.size() * kBatchRows *
                                  static_cast<std::size_t>(job.v_shape.padded_dim()) *
                                  sizeof(double);
  const std::size_t step = std::max<std::size_t>(kStateBytes / batch_bytes, 1);
  for (std::size_t first = 0; first < job.batches.size(); first += step) {
    evaluate_batches(job, sample, first, std::min(first + step, job.batches.size()), threads,
                     results);
  }
  return results;
}

RowResults evaluate_rows(const RecordView& record, std::int64_t head, const RowSample& sample,
                         const Plan* plan, int threads) {
  return cpu::evaluate_rows_at(cpu::level_ops(), record, head, sample, plan, threads);
}

}  // namespace raingauge
