// SPDX-License-Identifier: Apache-2.0
// Is every row of a kernel's output within what its arithmetic can explain? A norm over the whole
// output would pass a 10 % error in one of 600 query blocks; this gate judges rows.
//
// Where the tolerance comes from. Per row, with exact weights p_j (sum 1), a kernel computes
//   o' = sum_j p_j (1 + e_j) v_j,   |e_j| <= u,
// where u collects what disturbs one weight:
//   u_dtype   rounding of the weight to the inputs' type before it meets V (2^-8 for bf16), and of
//             the output where a library returns it in that type;
//   u_exp     the exponential: hardware and polynomial versions stay below 2^-17;
//   d_score   the score's own error: a dot product of length d in fp32 has a rounding error of
//             about sqrt(d) 2^-24 |q||k| (independent roundings), scaling and the exponent's argument
//             a few more; kernel and reference both make it, hence twice. A kernel that rounds scores
//             to the inputs' type adds u_dtype |score| (weights below e^-12 of the largest are left
//             out: |score| <= max(|m|, |m - 12|) for the rest, m the row's maximum);
//   u_sum     sums over n keys in fp32: sqrt(n) 2^-24.
// If the e_j are independent and uniform on [-u, u], the error has the variance u^2/3 sum p_j^2 |v_j|^2
// and exceeds t u sqrt(sum p_j^2 |v_j|^2) with probability at most 2 exp(-3 t^2 / 2): 8e-11 a row for
// t = 4. Equal keys (padding, still video) share one rounding: their errors add up within a tile, or
// over the row, to at most u |sum p_j v_j|. error_scale is the largest of the three sizes, so t u
// error_scale covers each; and it does not shrink with |o| when the values cancel.
#include "methods/kernels/conformance.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <sstream>
#include <vector>

#include "data/error.h"
#include "methods/kernels/reference.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

constexpr double kSpread = 4.0;          // t above
constexpr double kExpError = 0x1p-17;    // u_exp
constexpr double kFloatRound = 0x1p-24;  // rounding of one fp32 operation
constexpr double kWeightDepth = 12.0;    // weights below exp(-12) of the largest do not matter
constexpr std::int64_t kRaggedBlocks = 8;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

// SplitMix64: the same draws on every platform.
class Draws {
 public:
  Draws(std::uint64_t seed, std::int64_t head)
      : state_(seed * 0x9e3779b97f4a7c15ULL + static_cast<std::uint64_t>(head) + 1) {}
  std::int64_t below(std::int64_t limit) {
    state_ += 0x9e3779b97f4a7c15ULL;
    std::uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<std::int64_t>((x ^ (x >> 31)) % static_cast<std::uint64_t>(limit));
  }

 private:
  std::uint64_t state_;
};

// Moves up to `count` drawn elements of `from` to `to`.
void draw(std::vector<std::int64_t>& from, std::int64_t count, Draws& draws,
          std::vector<bool>& to) {
  for (; count > 0 && !from.empty(); --count) {
    const auto pick = draws.below(static_cast<std::int64_t>(from.size()));
    to[index_of(from[index_of(pick)])] = true;
    from[index_of(pick)] = from.back();
    from.pop_back();
  }
}

std::int32_t usual_size(const Plan& plan, std::int64_t head,
                        const std::vector<std::int64_t>& blocks) {
  std::map<std::int32_t, std::int64_t> count;
  for (const std::int64_t block : blocks) ++count[plan.q_blocks.size(head, block)];
  std::int32_t usual = 0;
  std::int64_t most = 0;
  for (const auto& [size, times] : count) {
    if (times >= most) {  // equally common: the larger size
      usual = size;
      most = times;
    }
  }
  return usual;
}

// Which query blocks are compared whole.
std::vector<bool> whole_blocks(const Plan& plan, std::int64_t head, std::int64_t at_least,
                               Draws& draws) {
  std::vector<std::int64_t> blocks;
  for (std::int64_t b = 0; b < plan.q_blocks.blocks; ++b) {
    if (plan.q_blocks.size(head, b) > 0) blocks.push_back(b);
  }
  std::vector<bool> whole(index_of(plan.q_blocks.blocks), false);
  if (blocks.empty()) return whole;
  whole[index_of(blocks.front())] = true;
  whole[index_of(blocks.back())] = true;
  const std::int32_t usual = usual_size(plan, head, blocks);
  std::vector<std::int64_t> ragged;
  std::vector<std::int64_t> others;
  for (const std::int64_t b : blocks) {
    if (whole[index_of(b)]) continue;
    (plan.q_blocks.size(head, b) == usual ? others : ragged).push_back(b);
  }
  draw(ragged, kRaggedBlocks, draws, whole);
  others.insert(others.end(), ragged.begin(), ragged.end());
  const std::int64_t have = std::count(whole.begin(), whole.end(), true);
  draw(others, at_least - have, draws, whole);
  return whole;
}

struct Worst {
  double error = 0.0;
  double tolerance = 0.0;
  std::int64_t token = -1;

  // NaN counts as worst of all.
  double ratio() const {
    if (token < 0) return -1.0;
    if (error == 0.0) return 0.0;
    const double value = error / tolerance;
    return std::isnan(value) ? kInfinity : value;
  }
  bool passed() const { return token < 0 || error <= tolerance; }
  void take(const Worst& other) {
    if (other.ratio() > ratio()) *this = other;
  }
};

// What one query block's check found.
struct BlockVerdict {
  Worst row, lse;
  std::int64_t rows = 0;
  std::int64_t not_finite = -1;   // token
  std::int64_t empty_wrong = -1;  // token of a row without keys (or with) that says otherwise
  bool reference_finite = true;
};

// What rows of one query block should have been.
struct BlockReference {
  std::vector<std::int32_t> positions;  // compared; empty for a block without tokens
  std::vector<float> o, lse;
  std::vector<RowScale> scales;
  std::int64_t keys = 0;
};

class HeadCheck {
 public:
  HeadCheck(const KernelSpec& kernel, const Plan& plan, const AttendInputs& inputs,
            const AttendOutputs& outputs, std::int64_t head)
      : kernel_(kernel), plan_(plan), inputs_(inputs), outputs_(outputs), head_(head) {}

  BlockVerdict check(std::int64_t block, const BlockReference& reference) const {
    BlockVerdict verdict;
    scan(block, reference, verdict);
    compare(reference, verdict);
    return verdict;
  }

 private:
  std::int64_t row_of(std::int64_t token) const { return head_ * inputs_.q.tokens + token; }
  const float* o_of(std::int64_t token) const {
    return outputs_.o + row_of(token) * inputs_.q.head_dim;
  }

  // Every row: finite values, and o = 0, lse = -inf exactly where there are no keys.
  void scan(std::int64_t block, const BlockReference& reference, BlockVerdict& verdict) const {
    const bool empty = reference.keys == 0;
    for (std::int32_t x = plan_.q_blocks.begin(head_, block); x < plan_.q_blocks.end(head_, block);
         ++x) {
      const std::int64_t token = plan_.q_order.token(head_, x);
      const float* o = o_of(token);
      bool finite = true;
      bool zero = true;
      for (std::int64_t i = 0; i < inputs_.q.head_dim; ++i) {
        finite = finite && std::isfinite(o[i]);
        zero = zero && o[i] == 0.0F;
      }
      bool says_empty = empty;
      if (outputs_.lse != nullptr) {
        const float lse = outputs_.lse[row_of(token)];
        finite = finite && !std::isnan(lse) && lse < std::numeric_limits<float>::infinity();
        says_empty = std::isinf(lse) && lse < 0.0F;
      }
      if (!finite && verdict.not_finite < 0) verdict.not_finite = token;
      if (finite && verdict.empty_wrong < 0 && (says_empty != empty || (empty && !zero))) {
        verdict.empty_wrong = token;
      }
    }
  }

  void compare(const BlockReference& reference, BlockVerdict& verdict) const {
    const std::int64_t dim = inputs_.q.head_dim;
    const auto& [positions, o, lse, scales, keys] = reference;
    verdict.rows = static_cast<std::int64_t>(positions.size());
    for (std::size_t r = 0; r < positions.size(); ++r) {
      if (scales[r].keys == 0) continue;  // scan() has judged it
      const std::int64_t token = plan_.q_order.token(head_, positions[r]);
      if (!std::isfinite(lse[r]) || !std::isfinite(scales[r].error_scale)) {
        verdict.reference_finite = false;
        verdict.not_finite = token;
        return;
      }
      const RowTolerance allowed =
          row_tolerance(kernel_, inputs_.q.dtype, dim, scales[r], double{lse[r]});
      verdict.row.take({row_error(o.data() + r * index_of(dim), o_of(token), scales[r].error_scale),
                        allowed.row, token});
      if (outputs_.lse == nullptr) continue;
      verdict.lse.take(
          {std::abs(double{outputs_.lse[row_of(token)]} - double{lse[r]}), allowed.lse, token});
    }
  }

  // |o - reference| / scale. Results below the smallest normal number of the inputs' type may have
  // been flushed to zero or rounded to its coarse steps.
  double row_error(const float* expected, const float* got, double scale) const {
    double sum = 0.0;
    for (std::int64_t i = 0; i < inputs_.q.head_dim; ++i) {
      const double difference = double{got[i]} - double{expected[i]};
      sum += difference * difference;
    }
    const double step = inputs_.q.dtype == DType::f16 ? 0x1p-24 : 0x1p-126;
    const double error = std::sqrt(sum);
    if (error <= step * std::sqrt(static_cast<double>(inputs_.q.head_dim))) return 0.0;
    return error / scale;  // scale 0 with a difference: infinite
  }

  const KernelSpec& kernel_;
  const Plan& plan_;
  const AttendInputs& inputs_;
  const AttendOutputs& outputs_;
  std::int64_t head_;
};

std::string place(std::int64_t head, std::int64_t block, std::int64_t token) {
  return "head " + std::to_string(head) + ", query block " + std::to_string(block) + ", token " +
         std::to_string(token);
}

std::string exceeds(const char* what, const Worst& worst) {
  std::ostringstream text;
  text << what << ' ' << worst.error << " exceeds the tolerance " << worst.tolerance << ": ";
  return text.str();
}

// The worst row and LSE of all heads; of the other failures the first, but a reference that is not
// finite explains an output that is not, wherever it comes.
struct Verdict {
  Worst row, lse;
  std::string row_place, lse_place, empty_place, not_finite_place;
  bool reference_finite = true;
  std::int64_t rows = 0;

  void take(const BlockVerdict& found, std::int64_t head, std::int64_t block) {
    rows += found.rows;
    if (found.row.ratio() > row.ratio()) {
      row = found.row;
      row_place = place(head, block, row.token);
    }
    if (found.lse.ratio() > lse.ratio()) {
      lse = found.lse;
      lse_place = place(head, block, lse.token);
    }
    if (found.empty_wrong >= 0 && empty_place.empty()) {
      empty_place = place(head, block, found.empty_wrong);
    }
    const bool graver = reference_finite && !found.reference_finite;
    if (found.not_finite >= 0 && (not_finite_place.empty() || graver)) {
      not_finite_place = place(head, block, found.not_finite);
      reference_finite = found.reference_finite;
    }
  }

  Conformance finish() const {
    Conformance result;
    result.max_row_error = row.error;
    result.tolerance = row.tolerance;
    result.max_lse_error = lse.error;
    result.lse_tolerance = lse.tolerance;
    result.rows = rows;
    result.outcome = ConformanceOutcome::incorrect;
    if (!not_finite_place.empty()) {
      result.outcome = ConformanceOutcome::not_finite;
      result.reason = (reference_finite ? "the kernel's output is not finite: "
                                        : "the reference is not finite, so q, k or v hold NaN, Inf "
                                          "or overflow: ") +
                      not_finite_place;
    } else if (!empty_place.empty()) {
      result.reason =
          "a row must have o = 0 and lse = -inf exactly when its query block keeps no "
          "valid key: " +
          empty_place;
    } else if (!row.passed()) {
      result.reason = exceeds("row error", row) + row_place;
    } else if (!lse.passed()) {
      result.reason = exceeds("LSE error", lse) + lse_place;
    } else {
      result.outcome = ConformanceOutcome::ok;
      result.ok = true;
    }
    return result;
  }
};

}  // namespace

RowTolerance row_tolerance(const KernelSpec& kernel, DType dtype, std::int64_t head_dim,
                           const RowScale& scale, double lse) {
  const double depth = std::sqrt(static_cast<double>(head_dim));
  const double keys = std::sqrt(static_cast<double>(scale.keys));
  double score = 2.0 * (depth + 4.0) * kFloatRound * scale.score_bound;
  if (kernel.rounds_scores) {
    score += unit_roundoff(dtype) *
             std::max(std::abs(scale.row_max), std::abs(scale.row_max - kWeightDepth));
  }
  return {kSpread * (unit_roundoff(dtype) + kExpError + score + kFloatRound * keys),
          // Row sums are taken before weights are rounded: u_dtype has no part in the LSE.
          kSpread * (kExpError + score + kFloatRound * (keys + std::abs(lse)))};
}

struct ConformanceReference::Impl {
  const Plan& plan;
  AttendInputs inputs;
  int threads;
  std::vector<std::vector<BlockReference>> heads;

  Impl(const Plan& given, const AttendInputs& tensors, const ConformanceOptions& options)
      : plan(given), inputs(tensors), threads(options.threads) {
    for (std::int64_t head = 0; head < plan.heads; ++head) {
      heads.push_back(chosen_rows(head, options));
      const ReferenceHead reference(inputs, plan, head, threads);
      parallel_for(threads, plan.q_blocks.blocks, [&](std::int64_t block, int) {
        compute(reference, block, heads.back()[index_of(block)]);
      });
    }
  }

  std::vector<BlockReference> chosen_rows(std::int64_t head,
                                          const ConformanceOptions& options) const {
    Draws draws(options.seed, head);
    const std::vector<bool> whole = whole_blocks(plan, head, options.blocks, draws);
    std::vector<BlockReference> blocks(whole.size());
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const auto block = static_cast<std::int64_t>(b);
      const auto begin = plan.q_blocks.begin(head, block);
      const auto size = plan.q_blocks.size(head, block);
      if (size == 0) continue;
      const auto drawn = static_cast<std::int32_t>(draws.below(size));
      for (std::int32_t x = 0; x < size; ++x) {
        if (whole[b] || x == drawn) blocks[b].positions.push_back(begin + x);
      }
    }
    return blocks;
  }

  void compute(const ReferenceHead& reference, std::int64_t block, BlockReference& rows) const {
    rows.keys = reference.keys_of(block);
    rows.o.resize(rows.positions.size() * index_of(inputs.q.head_dim));
    rows.lse.resize(rows.positions.size());
    rows.scales.resize(rows.positions.size());
    if (rows.positions.empty()) return;
    reference.rows(block, rows.positions, rows.o.data(), rows.lse.data(), rows.scales.data());
  }
};

ConformanceReference::ConformanceReference(const Plan& plan, const AttendInputs& inputs,
                                           const ConformanceOptions& options) {
  check_attend_inputs(plan, inputs);
  impl_ = std::make_unique<const Impl>(plan, inputs, options);
}

ConformanceReference::~ConformanceReference() = default;

Conformance ConformanceReference::check(const KernelSpec& kernel,
                                        const AttendOutputs& outputs) const {
  if (outputs.o == nullptr) throw Error("conformance: there is no output to check");
  Verdict verdict;
  for (std::int64_t head = 0; head < impl_->plan.heads; ++head) {
    const auto& blocks = impl_->heads[index_of(head)];
    const HeadCheck check(kernel, impl_->plan, impl_->inputs, outputs, head);
    std::vector<BlockVerdict> found(blocks.size());
    parallel_for(impl_->threads, static_cast<std::int64_t>(blocks.size()),
                 [&](std::int64_t block, int) {
                   const BlockReference& reference = blocks[index_of(block)];
                   if (reference.positions.empty()) return;
                   found[index_of(block)] = check.check(block, reference);
                 });
    for (std::size_t b = 0; b < found.size(); ++b) {
      verdict.take(found[b], head, static_cast<std::int64_t>(b));
    }
  }
  return verdict.finish();
}

Conformance check_conformance(const KernelSpec& kernel, const Plan& plan,
                              const AttendInputs& inputs, const AttendOutputs& outputs,
                              const ConformanceOptions& options) {
  return ConformanceReference(plan, inputs, options).check(kernel, outputs);
}

}  // namespace raingauge
