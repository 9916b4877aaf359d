// SPDX-License-Identifier: Apache-2.0
#include "methods/reuse.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace raingauge {
namespace {

struct Memory {
  Plan held;
  int decided_at = 0;
  State inner;
};

bool same_order(const Orders& a, const Orders& b, std::int64_t head) {
  if (a.tokens != b.tokens) return false;
  for (std::int64_t p = 0; p < a.tokens; ++p) {
    if (a.token(head, p) != b.token(head, p)) return false;
  }
  return true;
}

bool same_layout(const Layout& a, const Layout& b, std::int64_t head) {
  return a.blocks == b.blocks && std::equal(a.row(head), a.row(head) + a.blocks + 1, b.row(head));
}

class Reuse : public Method {
 public:
  Reuse(std::unique_ptr<Method> inner, int every) : inner_(std::move(inner)), every_(every) {}

  bool stateful() const override { return true; }
  bool dense_at_full_budget() const override { return inner_->dense_at_full_budget(); }

  Plan plan(const RecordView& record, State& state) const override {
    const int step = record.info->site.step;
    auto* memory = std::any_cast<Memory>(&state.memory);
    if (memory != nullptr && step != state.last_step + 1) {
      throw InvalidPlan("reuse_every: step " + std::to_string(step) + " follows step " +
                        std::to_string(state.last_step) +
                        "; a decision is carried through consecutive steps only");
    }
    const bool reuse = memory != nullptr && (every_ == 0 || step - memory->decided_at < every_);
    if (reuse) return noted(memory->held, "reuse", nullptr);
    Memory fresh;
    if (memory != nullptr) {
      fresh.inner = memory->inner;
      fresh.inner.last_step = step - 1;  // what it carries is from the last refresh
    }
    fresh.held = inner_->plan(record, fresh.inner);
    fresh.decided_at = step;
    Plan plan = noted(fresh.held, "refresh", memory != nullptr ? &memory->held : nullptr);
    state.memory = std::move(fresh);
    return plan;
  }

 private:
  static Plan noted(const Plan& held, const char* policy, const Plan* before) {
    Plan plan = held;
    const auto heads = static_cast<std::size_t>(plan.heads);
    plan.notes.push_back({"policy", {}, std::vector<std::string>(heads, policy)});
    if (before == nullptr || before->heads != plan.heads) return plan;
    PlanNote overlap{"overlap", {}, {}};
    for (std::int64_t head = 0; head < plan.heads; ++head) {
      overlap.numbers.push_back(plan_overlap(plan, *before, head));
    }
    plan.notes.push_back(std::move(overlap));
    return plan;
  }

  std::unique_ptr<Method> inner_;
  int every_;
};

}  // namespace

std::vector<ParamSpec> reuse_params() {
  return {{.name = "reuse_every",
           .type = ParamType::integer,
           .default_value = nullptr,
           .help = "decide at every n-th step and reuse the decision in between; 0 = once; rows "
                   "then tell the policy and the overlap of successive decisions",
           .min = 0,
           .max = 1 << 20}};
}

std::unique_ptr<Method> with_reuse(std::unique_ptr<Method> inner, int every) {
  return std::make_unique<Reuse>(std::move(inner), every);
}

double plan_overlap(const Plan& a, const Plan& b, std::int64_t head) {
  if (!same_order(a.q_order, b.q_order, head) || !same_order(a.k_order, b.k_order, head) ||
      !same_layout(a.q_blocks, b.q_blocks, head) || !same_layout(a.k_blocks, b.k_blocks, head)) {
    return std::nan("");
  }
  double common = 0.0;
  double either = 0.0;
  for (std::int64_t i = 0; i < a.q_blocks.blocks; ++i) {
    const double queries = a.q_blocks.size(head, i);
    const auto* in_b = b.lists.begin(head, i);
    const auto* end_b = in_b + b.lists.count(head, i);
    const auto tokens = [&](std::int32_t j) {
      return static_cast<double>(a.k_blocks.size(head, j));
    };
    for (const auto* j = in_b; j != end_b; ++j) either += queries * tokens(*j);
    const auto* in_a = a.lists.begin(head, i);
    for (const auto* j = in_a; j != in_a + a.lists.count(head, i); ++j) {
      const bool both = std::binary_search(in_b, end_b, *j);
      (both ? common : either) += queries * tokens(*j);
    }
  }
  return common / either;
}

}  // namespace raingauge
