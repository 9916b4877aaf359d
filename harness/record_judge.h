// SPDX-License-Identifier: Apache-2.0
// The fp32 judge of one record: exact results of sampled (or all) query rows, dense and under plans. Rows
// are judged on the run's device where its row evaluator covers the record, on the host otherwise; every
// result says which it was.
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "harness/experiment.h"
#include "methods/kernels/cuda_rows.h"
#include "methods/kernels/device_record.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/kernels/true_mass.h"

namespace raingauge {

// Values that several threads ask for and one makes.
template <typename Key, typename Value>
class OnceMap {
 public:
  template <typename Make>
  const Value& get(const Key& key, Make make) {
    Slot* slot = nullptr;
    {
      const std::lock_guard lock(mutex_);
      slot = &slots_[key];
    }
    std::call_once(slot->made, [&] { slot->value = make(); });
    return slot->value;
  }

 private:
  struct Slot {
    std::once_flag made;
    Value value;
  };
  std::mutex mutex_;
  std::map<Key, Slot> slots_;
};

// Lanes of one device for as many threads as ask at once. They keep their memory from record to record.
class RowLanes {
 public:
  explicit RowLanes(const Device& device) : device_(device) {}
  const Device& device() const { return device_; }
  RowLane take();
  void give_back(RowLane lane);

 private:
  Device device_;
  std::mutex mutex_;
  std::vector<RowLane> free_;
};

// What one plan's rows are judged by: outputs on the host, or their comparison with dense ones.
struct FoundRows {
  JudgedRows rows;
  const float* o = nullptr;  // [rows, head_dim]; null: rows.moments are there
};

// Shared by all arms of one record, and computed at most once: dense rows, block masses, similarities.
// Threads may use it together.
class RecordJudge {
 public:
  // `copy`: the record on the lanes' device; both null: judged on the host. A record that the device does
  // not cover is judged on the host as well, and host_reason() says why. Where dense attention is not finite
  // dense() and judge() throw NotFinite.
  RecordJudge(const RecordView& record, const RowPlan& rows, int threads,
              const DeviceRecord* copy = nullptr, RowLanes* lanes = nullptr);

  const RecordView& record() const { return record_; }
  bool sampled() const { return sampled_; }
  std::int64_t rows() const { return static_cast<std::int64_t>(sample_.tokens.size()); }
  bool on_device() const { return on_device_; }
  std::string judged_on() const { return on_device() ? to_string(lanes_->device()) : "cpu"; }
  const std::string& host_reason() const { return host_reason_; }  // empty: none is needed

  // Exact dense results of the judged rows of one head; without outputs when judged on a device.
  const RowResults& dense(std::int64_t head);
  // Judges plans of one head, all with the orders and layouts of `frame`, and hands each result over in
  // turn. A plan has all heads of the record, or is one of `head` alone.
  void judge(std::int64_t head, const Plan& frame, const std::vector<const Plan*>& plans,
             const std::function<void(std::size_t plan, const FoundRows& found)>& use);
  // True block masses of one head under the plan's order and layout; `key` names those (layout_key).
  const TrueMass& mass(std::int64_t head, const Plan& plan, std::uint64_t key);
  // Within-block similarity of queries and keys under the plan's order and layout.
  std::pair<double, double> similarity(std::int64_t head, const Plan& plan, std::uint64_t key);

 private:
  using HeadKey = std::pair<std::int64_t, std::uint64_t>;
  RowResults sparse(std::int64_t head, const Plan& plan) const;
  const DeviceRows& device_rows() const;

  RecordView record_;
  int threads_;
  bool sampled_ = false;
  RowSample sample_;
  RowLanes* lanes_ = nullptr;
  bool on_device_ = false;
  std::unique_ptr<DeviceRows> device_rows_;
  std::exception_ptr dense_failed_;  // dense attention is not finite: every arm's outcome
  std::string host_reason_;
  OnceMap<std::int64_t, RowResults> dense_;
  OnceMap<HeadKey, TrueMass> masses_;
  OnceMap<std::uint64_t, std::vector<TrueMass>> masses_of_all_heads_;
  OnceMap<HeadKey, std::pair<double, double>> similarities_;
};

// Names the orders and block boundaries of one head: what block masses depend on.
std::uint64_t layout_key(const Plan& plan, std::int64_t head);
// One order and layout for all heads.
bool shares_frame(const Plan& plan);

}  // namespace raingauge
