// SPDX-License-Identifier: Apache-2.0
#include "harness/record_judge.h"

#include <algorithm>
#include <numeric>

#include "data/error.h"
#include "data/random.h"
#include "methods/block_similarity.h"

namespace raingauge {
namespace {

constexpr std::int64_t kLaneBytes = std::int64_t{128} << 20;

// `count` distinct query tokens of the whole sequence, or all of them: the same for every head and arm.
RowSample sample_rows(std::int64_t tokens, const RowPlan& rows) {
  RowSample sample;
  sample.tokens.resize(static_cast<std::size_t>(tokens));
  std::iota(sample.tokens.begin(), sample.tokens.end(), 0);
  if (rows.all || tokens <= rows.sample) return sample;
  seeded_shuffle(sample.tokens, hash_seed({rows.seed, static_cast<std::uint64_t>(tokens)}));
  sample.tokens.resize(static_cast<std::size_t>(rows.sample));
  std::sort(sample.tokens.begin(), sample.tokens.end());
  return sample;
}

}  // namespace

bool shares_frame(const Plan& plan) {
  return (plan.q_order.identity || plan.q_order.rows == 1) &&
         (plan.k_order.identity || plan.k_order.rows == 1) && plan.q_blocks.rows == 1 &&
         plan.k_blocks.rows == 1;
}

std::uint64_t layout_key(const Plan& plan, std::int64_t head) {
  std::uint64_t state = 0x6c617967ULL;
  const auto add_order = [&](const Orders& orders) {
    state = mix64(state ^ (orders.identity ? 1ULL : 2ULL));
    if (orders.identity) return;
    for (std::int64_t i = 0; i < orders.tokens; ++i) {
      state = mix64(state ^ static_cast<std::uint64_t>(orders.row(head)[i]));
    }
  };
  const auto add_layout = [&](const Layout& layout) {
    for (std::int64_t i = 0; i <= layout.blocks; ++i) {
      state = mix64(state ^ static_cast<std::uint64_t>(layout.row(head)[i]));
    }
  };
  add_order(plan.q_order);
  add_order(plan.k_order);
  add_layout(plan.q_blocks);
  add_layout(plan.k_blocks);
  return state;
}

RowLane RowLanes::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      RowLane lane = std::move(free_.back());
      free_.pop_back();
      return lane;
    }
  }
  return RowLane(device_);
}

void RowLanes::give_back(RowLane lane) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(lane));
}

RecordJudge::RecordJudge(const RecordView& record, const RowPlan& rows, int threads,
                         const DeviceRecord* copy, RowLanes* lanes)
    : record_(record),
      threads_(threads),
      sample_(sample_rows(record.tokens(), rows)),
      lanes_(lanes) {
  sampled_ = static_cast<std::int64_t>(sample_.tokens.size()) < record.tokens();
  if (copy == nullptr) return;
  if (const Support reason = device_rows_support(copy->on_device())) {
    host_reason_ = *reason;
    return;
  }
  on_device_ = true;
  try {
    RowLane lane = lanes_->take();
    device_rows_ = std::make_unique<DeviceRows>(copy->on_device(), sample_, lane);
    lanes_->give_back(std::move(lane));
  } catch (const NotFinite&) {
    dense_failed_ = std::current_exception();
  }
}

const DeviceRows& RecordJudge::device_rows() const {
  if (dense_failed_) std::rethrow_exception(dense_failed_);
  return *device_rows_;
}

const RowResults& RecordJudge::dense(std::int64_t head) {
  if (on_device()) return device_rows().dense(head);
  return dense_.get(head, [&] { return evaluate_rows(record_, head, sample_, nullptr, threads_); });
}

RowResults RecordJudge::sparse(std::int64_t head, const Plan& plan) const {
  if (plan.heads == record_.heads()) return evaluate_rows(record_, head, sample_, &plan, threads_);
  RecordView one = record_;  // a control is a plan of this head alone
  one.q = record_.q.slice_heads(head, 1);
  one.k = record_.k.slice_heads(head, 1);
  one.v = record_.v.slice_heads(head, 1);
  return evaluate_rows(one, 0, sample_, &plan, threads_);
}

void RecordJudge::judge(std::int64_t head, const Plan& frame, const std::vector<const Plan*>& plans,
                        const std::function<void(std::size_t, const FoundRows&)>& use) {
  if (!on_device()) {
    for (std::size_t i = 0; i < plans.size(); ++i) {
      const RowResults found = sparse(head, *plans[i]);
      use(i, {{found.lse.data(), found.mass_first_frame.data(), found.mass_text.data(), nullptr},
              found.o.data()});
    }
    return;
  }
  // As many plans in one launch as keep a lane's outputs small: large records go one by one.
  const std::int64_t outputs = rows() * record_.head_dim() * std::int64_t{sizeof(float)};
  const auto at_once = static_cast<std::size_t>(std::max<std::int64_t>(kLaneBytes / outputs, 1));
  RowLane lane = lanes_->take();
  for (std::size_t first = 0; first < plans.size(); first += at_once) {
    std::vector<RowLists> lists;
    for (std::size_t i = first; i < std::min(first + at_once, plans.size()); ++i) {
      lists.push_back({&plans[i]->lists, plans[i]->heads == record_.heads() ? head : 0});
    }
    const auto found = device_rows().judge(lane, head, frame, head, lists);
    for (std::size_t i = 0; i < found.size(); ++i) use(first + i, {found[i], nullptr});
  }
  lanes_->give_back(std::move(lane));
}

const TrueMass& RecordJudge::mass(std::int64_t head, const Plan& plan, std::uint64_t key) {
  if (on_device() && shares_frame(plan)) {
    const auto& all =
        masses_of_all_heads_.get(key, [&] { return true_block_masses_on_device(record_, plan); });
    if (!all.empty()) return all.at(static_cast<std::size_t>(head));
  }
  return masses_.get({head, key}, [&] { return true_block_mass(record_, head, plan, threads_); });
}

std::pair<double, double> RecordJudge::similarity(std::int64_t head, const Plan& plan,
                                                  std::uint64_t key) {
  return similarities_.get({head, key}, [&] {
    return std::pair{block_similarity(record_.q, head, plan.q_order, plan.q_blocks),
                     block_similarity(record_.k, head, plan.k_order, plan.k_blocks)};
  });
}

}  // namespace raingauge
