// SPDX-License-Identifier: Apache-2.0
// Synthetic records in memory. Every element depends on its own indices alone, so threads share
// nothing and any number of them gives the same bits.
#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>
#include <thread>

#include "data/error.h"
#include "data/synthetic.h"
#include "data/synthetic_head.h"

namespace raingauge {
namespace {

constexpr std::int64_t kTokensPerTask = 2048;

class SyntheticRecord : public Record {
 public:
  explicit SyntheticRecord(RecordInfo info) : info_(std::move(info)) {
    const std::int64_t bytes = info_.head_count() * info_.tokens * info_.head_dim *
                               static_cast<std::int64_t>(size_of(info_.dtype));
    try {
      for (auto& tensor : tensors_) {
        tensor = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes));
      }
    } catch (const std::bad_alloc&) {
      throw Error("synthetic records: 3 x " + std::to_string(bytes) +
                  " bytes do not fit into memory; make fewer heads at a time");
    }
  }
  const RecordInfo& info() const override { return info_; }
  RecordView view() const override { return {&info_, tensor(0), tensor(1), tensor(2), nullptr}; }
  // [head_dim] of q (0), k (1) or v (2), to be written.
  void* row(std::size_t which, std::int64_t head, std::int64_t token) {
    const auto element = static_cast<std::int64_t>(size_of(info_.dtype));
    return tensors_[which].get() + (head * info_.tokens + token) * info_.head_dim * element;
  }

 private:
  TensorView tensor(std::size_t which) const {
    return contiguous_view(tensors_[which].get(), info_.dtype, info_.head_count(), info_.tokens,
                           info_.head_dim);
  }

  RecordInfo info_;
  std::unique_ptr<std::byte[]> tensors_[3];
};

void check_index(int value, int count, const char* name) {
  if (value >= 0 && value < count) return;
  throw Error(std::string("synthetic records: ") + name + " " + std::to_string(value) +
              "; allowed are 0 to " + std::to_string(count - 1));
}

void fill_tokens(SyntheticRecord& record, const SyntheticHead& head, std::int64_t index,
                 const std::vector<TokenPlace>& places, std::int64_t begin, std::int64_t end) {
  const RecordInfo& info = record.info();
  const auto width = static_cast<std::size_t>(info.head_dim);
  std::vector<float> rows(3 * width);
  float* const q = rows.data();
  float* const k = q + width;
  float* const v = k + width;
  for (std::int64_t token = begin; token < end; ++token) {
    head.fill(token, places[static_cast<std::size_t>(token)], q, k, v);
    convert_from_float(q, record.row(0, index, token), info.dtype, width);
    convert_from_float(k, record.row(1, index, token), info.dtype, width);
    convert_from_float(v, record.row(2, index, token), info.dtype, width);
  }
}

// Runs task(0) … task(count - 1) on up to `threads` threads, the caller's among them.
template <typename Task>
void run_tasks(std::int64_t count, int threads, const Task& task) {
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    for (std::int64_t i = next++; i < count; i = next++) task(i);
  };
  std::vector<std::thread> helpers;
  const int wanted =
      threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  try {
    for (int i = 1; i < wanted && i < count; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // No more threads to be had: those there are do the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace

std::unique_ptr<Record> make_synthetic_record(const SyntheticSpec& spec, int generation, int step,
                                              int layer, std::span<const int> heads, int threads) {
  const SyntheticSpec full = complete(spec);
  check_index(generation, full.generations, "generation");
  check_index(step, full.steps, "step");
  check_index(layer, full.layers, "layer");
  const auto number = (std::int64_t{generation} * full.steps + step) * full.layers + layer;
  RecordInfo info = list_synthetic(full)[static_cast<std::size_t>(number)];
  if (!heads.empty()) info.heads.assign(heads.begin(), heads.end());
  std::vector<SyntheticHead> makers;
  for (const int head : info.heads) {
    check_index(head, full.heads, "head");
    makers.emplace_back(full, generation, step, layer, head);
  }
  const std::vector<TokenPlace> places = token_places(full, generation);
  auto record = std::make_unique<SyntheticRecord>(std::move(info));
  const std::int64_t tokens = record->info().tokens;
  const std::int64_t per_head = (tokens + kTokensPerTask - 1) / kTokensPerTask;
  run_tasks(per_head * record->info().head_count(), threads, [&](std::int64_t task) {
    const std::int64_t head = task / per_head;
    const std::int64_t begin = task % per_head * kTokensPerTask;
    fill_tokens(*record, makers[static_cast<std::size_t>(head)], head, places, begin,
                std::min(begin + kTokensPerTask, tokens));
  });
  return record;
}

std::vector<int> synthetic_clusters(const SyntheticSpec& spec, int generation) {
  const SyntheticSpec full = complete(spec);
  check_index(generation, full.generations, "generation");
  std::vector<int> clusters;
  for (const TokenPlace& place : token_places(full, generation)) {
    if (place.visual) clusters.push_back(place.cluster);
  }
  return clusters;
}

}  // namespace raingauge
