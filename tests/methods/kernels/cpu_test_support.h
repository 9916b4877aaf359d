// SPDX-License-Identifier: Apache-2.0
// Fresh random attention problems and their float64 answers, with error bounds derived from the
// arithmetic, for the tests of the CPU kernel, the row evaluator and block_mass.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "methods/kernels/cpu/dispatch.h"

namespace raingauge::test {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Tests of an instruction-set level, forced by its name; one that this CPU lacks says so.
class LevelTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::vector<std::string> levels = cpu::available_levels();
    if (std::find(levels.begin(), levels.end(), GetParam()) == levels.end()) {
      GTEST_SKIP() << "skipped: this CPU cannot run level " << GetParam();
    }
  }
};

#define RAINGAUGE_EVERY_LEVEL(Suite)                                                   \
  INSTANTIATE_TEST_SUITE_P(Levels, Suite, ::testing::ValuesIn(cpu::compiled_levels()), \
                           [](const auto& level) { return level.param; })

// A new seed each run, printed so that a failure can be repeated by writing it here.
inline std::uint32_t fresh_seed() {
  const std::uint32_t seed = std::random_device{}();
  std::printf("[   seed   ] %u\n", static_cast<unsigned>(seed));
  return seed;
}

// [H, N, D] elements in some strided storage.
struct Tensor {
  std::vector<unsigned char> bytes;
  TensorView view;  // into bytes

  Tensor() = default;
  Tensor(const Tensor& other) : bytes(other.bytes), view(other.view) {
    view.data =
        bytes.data() + (static_cast<const unsigned char*>(other.view.data) - other.bytes.data());
  }
  Tensor(Tensor&&) = default;
  Tensor& operator=(const Tensor& other) { return *this = Tensor(other); }
  Tensor& operator=(Tensor&&) = default;

  void set(std::int64_t head, std::int64_t token, std::int64_t c, float value) {
    auto* row = static_cast<unsigned char*>(const_cast<void*>(view.row(head, token)));
    convert_from_float(&value, row + static_cast<std::size_t>(c) * size_of(view.dtype), view.dtype,
                       1);
  }
  double at(std::int64_t head, std::int64_t token, std::int64_t c) const {
    const auto* row = static_cast<const unsigned char*>(view.row(head, token));
    float value = 0.0F;
    convert_to_float(row + static_cast<std::size_t>(c) * size_of(view.dtype), view.dtype, &value,
                     1);
    return static_cast<double>(value);
  }
};

enum class Storage { heads_first, tokens_first, padded, fused };

// Elements outside the view are NaN patterns: a kernel that reads them shows it.
inline Tensor make_tensor(DType dtype, std::int64_t heads, std::int64_t tokens, std::int64_t dim,
                          Storage storage = Storage::heads_first) {
  Tensor tensor;
  const std::int64_t extra = storage == Storage::padded ? 3 : 0;
  // `fused`: one of the three slices of [N, 3, H, D], as a joint projection of q, k and v leaves it.
  const std::int64_t slices = storage == Storage::fused ? 3 : 1;
  const std::int64_t row = dim + extra;
  const std::int64_t total = heads * tokens * row * slices + extra;
  tensor.bytes.assign(static_cast<std::size_t>(total) * size_of(dtype), 0xff);
  tensor.view = contiguous_view(tensor.bytes.data(), dtype, heads, tokens, dim);
  tensor.view.data = tensor.bytes.data() + static_cast<std::size_t>(extra) * size_of(dtype);
  const bool tokens_first = storage == Storage::tokens_first || storage == Storage::fused;
  tensor.view.head_stride = tokens_first ? row : tokens * row;
  tensor.view.token_stride = tokens_first ? slices * heads * row : row;
  return tensor;
}

inline void fill_normal(Tensor& tensor, std::mt19937& random, float scale = 1.0F) {
  std::normal_distribution<float> normal(0.0F, scale);
  for (std::int64_t h = 0; h < tensor.view.heads; ++h) {
    for (std::int64_t n = 0; n < tensor.view.tokens; ++n) {
      for (std::int64_t c = 0; c < tensor.view.head_dim; ++c) {
        tensor.set(h, n, c, normal(random));
      }
    }
  }
}

// Rare values a hundred times the usual: the cube of a normal value.
inline void fill_heavy_tailed(Tensor& tensor, std::mt19937& random) {
  std::normal_distribution<float> normal;
  for (std::int64_t h = 0; h < tensor.view.heads; ++h) {
    for (std::int64_t n = 0; n < tensor.view.tokens; ++n) {
      for (std::int64_t c = 0; c < tensor.view.head_dim; ++c) {
        const float x = normal(random);
        tensor.set(h, n, c, x * x * x);
      }
    }
  }
}

// Neighbouring tokens are alike, and every token has a share in common, as in a still video.
inline void fill_correlated(Tensor& tensor, std::mt19937& random) {
  std::normal_distribution<float> normal;
  for (std::int64_t h = 0; h < tensor.view.heads; ++h) {
    for (std::int64_t c = 0; c < tensor.view.head_dim; ++c) {
      const float common = 2.0F * normal(random);
      float walk = normal(random);
      for (std::int64_t n = 0; n < tensor.view.tokens; ++n) {
        tensor.set(h, n, c, common + walk);
        walk = 0.98F * walk + 0.2F * normal(random);
      }
    }
  }
}

inline int random_int(std::mt19937& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

// One attention problem: tensors, plan, mask.
struct Problem {
  Tensor q, k, v;
  Plan plan;
  std::vector<std::uint8_t> valid;  // empty = all valid
  double scale = 1.0;
  RecordInfo info;

  const std::uint8_t* key_valid() const { return valid.empty() ? nullptr : valid.data(); }
  bool is_valid(std::int64_t token) const {
    return valid.empty() || valid[static_cast<std::size_t>(token)] != 0;
  }
  RecordView record() {
    info.scale = scale;
    info.tokens = q.view.tokens;
    info.head_dim = q.view.head_dim;
    info.dtype = q.view.dtype;
    info.heads.resize(static_cast<std::size_t>(q.view.heads));
    RecordView view;
    view.info = &info;
    view.q = q.view;
    view.k = k.view;
    view.v = v.view;
    view.key_valid = key_valid();
    return view;
  }
};

inline Problem make_problem(DType dtype, std::int64_t heads, std::int64_t tokens, std::int64_t dim,
                            int block, std::mt19937& random,
                            Storage storage = Storage::heads_first) {
  Problem problem;
  for (Tensor* tensor : {&problem.q, &problem.k, &problem.v}) {
    *tensor = make_tensor(dtype, heads, tokens, dim, storage);
    fill_normal(*tensor, random);
  }
  problem.plan = dense_plan(heads, tokens, block);
  problem.scale = 1.0 / std::sqrt(static_cast<double>(dim));
  return problem;
}

inline Orders random_order(std::int64_t heads, std::int64_t tokens, bool per_head,
                           std::mt19937& random) {
  Orders orders;
  orders.rows = per_head ? static_cast<int>(heads) : 1;
  orders.tokens = tokens;
  orders.identity = false;
  for (int r = 0; r < orders.rows; ++r) {
    std::vector<std::int32_t> row(static_cast<std::size_t>(tokens));
    std::iota(row.begin(), row.end(), 0);
    std::shuffle(row.begin(), row.end(), random);
    orders.index.insert(orders.index.end(), row.begin(), row.end());
  }
  return orders;
}

// `blocks` blocks of random sizes, some of them empty, some of one token.
inline Layout random_layout(std::int64_t heads, std::int64_t tokens, std::int64_t blocks,
                            bool per_head, std::mt19937& random) {
  Layout layout;
  layout.rows = per_head ? static_cast<int>(heads) : 1;
  layout.blocks = blocks;
  for (int r = 0; r < layout.rows; ++r) {
    std::vector<std::int32_t> cuts{0, static_cast<std::int32_t>(tokens)};
    while (static_cast<std::int64_t>(cuts.size()) < blocks + 1) {
      const bool repeat = random_int(random, 0, 4) == 0;
      cuts.push_back(repeat ? cuts[static_cast<std::size_t>(
                                  random_int(random, 0, static_cast<int>(cuts.size()) - 1))]
                            : random_int(random, 0, static_cast<int>(tokens)));
    }
    std::sort(cuts.begin(), cuts.end());
    layout.offsets.insert(layout.offsets.end(), cuts.begin(), cuts.end());
  }
  return layout;
}

// Every pair kept with probability `density`; rows may stay empty.
inline void randomise_lists(Plan& plan, double density, std::mt19937& random) {
  plan.lists.heads = plan.heads;
  plan.lists.query_blocks = plan.q_blocks.blocks;
  plan.lists.row_offsets.assign(1, 0);
  plan.lists.columns.clear();
  std::bernoulli_distribution keep(density);
  for (std::int64_t row = 0; row < plan.heads * plan.q_blocks.blocks; ++row) {
    for (std::int32_t column = 0; column < plan.k_blocks.blocks; ++column) {
      if (keep(random)) {
        plan.lists.columns.push_back(column);
      }
    }
    plan.lists.row_offsets.push_back(static_cast<std::int64_t>(plan.lists.columns.size()));
  }
}

// [heads, tokens]: query block of each token.
inline std::vector<std::int64_t> block_of_tokens(const Plan& plan, const Orders& order,
                                                 const Layout& layout) {
  std::vector<std::int64_t> blocks(static_cast<std::size_t>(plan.heads * plan.tokens), -1);
  for (std::int64_t h = 0; h < plan.heads; ++h) {
    for (std::int64_t b = 0; b < layout.blocks; ++b) {
      for (std::int32_t p = layout.begin(h, b); p < layout.end(h, b); ++p) {
        blocks[static_cast<std::size_t>(h * plan.tokens + order.token(h, p))] = b;
      }
    }
  }
  return blocks;
}

// The elements of one head in float64, contiguous.
inline std::vector<double> doubles_of(const Tensor& tensor, std::int64_t head) {
  const auto dim = static_cast<std::size_t>(tensor.view.head_dim);
  std::vector<double> values(static_cast<std::size_t>(tensor.view.tokens) * dim);
  std::vector<float> row(dim);
  for (std::int64_t n = 0; n < tensor.view.tokens; ++n) {
    convert_to_float(tensor.view.row(head, n), tensor.view.dtype, row.data(), dim);
    std::copy(row.begin(), row.end(), values.begin() + n * tensor.view.head_dim);
  }
  return values;
}

// The answer for one query row in float64, with what its error bounds need.
struct Exact {
  std::vector<double> o;
  std::vector<double> o_abs;  // sum of p |v|: errors of p reach o at most times this
  double lse = -kInfinity;
  double score_abs = 0.0;  // largest |scale| * sum of |q| |k| over kept keys
  std::int64_t keys = 0;
  std::vector<double> p;  // [tokens]
};

// One head of a problem, for exact rows.
class ExactHead {
 public:
  ExactHead(const Problem& problem, std::int64_t head)
      : problem_(problem),
        q_(doubles_of(problem.q, head)),
        k_(doubles_of(problem.k, head)),
        v_(doubles_of(problem.v, head)) {}

  // keep(token) says whether a key is attended; invalid keys never are.
  template <class Keep>
  Exact row(std::int64_t row, const Keep& keep) const {
    const std::int64_t tokens = problem_.q.view.tokens;
    const std::int64_t dim = problem_.q.view.head_dim;
    Exact exact;
    exact.o.assign(static_cast<std::size_t>(dim), 0.0);
    exact.o_abs = exact.o;
    exact.p.assign(static_cast<std::size_t>(tokens), 0.0);
    const double* q = q_.data() + row * dim;
    double top = -kInfinity;
    for (std::int64_t j = 0; j < tokens; ++j) {
      double& score = exact.p[static_cast<std::size_t>(j)];
      score = -kInfinity;
      if (!problem_.is_valid(j) || !keep(j)) {
        continue;
      }
      const double* k = k_.data() + j * dim;
      double dot = 0.0, absolute = 0.0;
      for (std::int64_t c = 0; c < dim; ++c) {
        dot += q[c] * k[c];
        absolute += std::abs(q[c] * k[c]);
      }
      score = dot * problem_.scale;
      top = std::max(top, score);
      exact.score_abs = std::max(exact.score_abs, absolute * std::abs(problem_.scale));
      ++exact.keys;
    }
    double sum = 0.0;
    for (double& p : exact.p) {
      p = exact.keys == 0 ? 0.0 : std::exp(p - top);
      sum += p;
    }
    if (exact.keys == 0) {
      return exact;
    }
    exact.lse = top + std::log(sum);
    for (std::int64_t j = 0; j < tokens; ++j) {
      double& p = exact.p[static_cast<std::size_t>(j)];
      p /= sum;
      const double* v = v_.data() + j * dim;
      for (std::int64_t c = 0; p > 0.0 && c < dim; ++c) {
        exact.o[static_cast<std::size_t>(c)] += p * v[c];
        exact.o_abs[static_cast<std::size_t>(c)] += p * std::abs(v[c]);
      }
    }
    return exact;
  }

 private:
  const Problem& problem_;
  std::vector<double> q_, k_, v_;
};

// Whether the list of the query block of (head, row) holds the block of `key`.
class Kept {
 public:
  explicit Kept(const Plan& plan)
      : plan_(plan),
        q_block_(block_of_tokens(plan, plan.q_order, plan.q_blocks)),
        k_block_(block_of_tokens(plan, plan.k_order, plan.k_blocks)) {}

  bool operator()(std::int64_t head, std::int64_t row, std::int64_t key) const {
    const std::int64_t block = query_block(head, row);
    const std::int32_t* list = plan_.lists.begin(head, block);
    return std::binary_search(list, list + plan_.lists.count(head, block),
                              static_cast<std::int32_t>(key_block(head, key)));
  }
  std::int64_t query_block(std::int64_t head, std::int64_t token) const {
    return q_block_[static_cast<std::size_t>(head * plan_.tokens + token)];
  }
  std::int64_t key_block(std::int64_t head, std::int64_t token) const {
    return k_block_[static_cast<std::size_t>(head * plan_.tokens + token)];
  }

 private:
  const Plan& plan_;
  std::vector<std::int64_t> q_block_, k_block_;
};

// Worst-case bounds with u = 2^-24. A dot product of length d, scaled, is off by at most
// (d + 4) u * score_abs; the logit by that plus the rounding of scale * log2(e) and of the
// difference, another 4 u * score_abs. The exponential adds 2e-7 relative (3e-6 where weights of
// matrix tiles are made); sums over n keys n u.
// p = e / sum, so its relative error is twice the logit's. Probabilities rounded to bf16 add 2^-8.
struct Bound {
  double lse;
  double p;  // relative
};
inline Bound error_bound(const Exact& exact, std::int64_t dim, bool rounds_p,
                         double exponential = 2e-7) {
  constexpr double kUnit32 = 0x1p-24;
  const double logit = static_cast<double>(dim + 8) * kUnit32 * exact.score_abs;
  const double sums = static_cast<double>(exact.keys + 8) * kUnit32 + exponential;
  Bound bound{};
  // The result itself is rounded to fp32.
  bound.lse = logit + sums + 2.0 * kUnit32 * std::abs(exact.lse);
  bound.p = std::expm1(2.0 * logit) + 2.0 * sums + (rounds_p ? 0x1p-8 : 0.0);
  return bound;
}

// Two valid keys, whose scores are exactly 0 and x for query row -64 x: lse = log(1 + e^x) shows
// the exponential alone. x runs from 0 to -2 in steps that bf16 holds exactly.
inline Problem make_exponentials(DType dtype, std::mt19937& random) {
  constexpr std::int64_t kTokens = 129;
  Problem problem = make_problem(dtype, 1, kTokens, 8, 64, random);
  for (std::int64_t i = 0; i < kTokens; ++i) {
    for (std::int64_t c = 0; c < 8; ++c) {
      problem.q.set(0, i, c, c == 0 ? -static_cast<float>(i) / 64.0F : 0.0F);
      problem.k.set(0, i, c, i == 1 && c == 0 ? 1.0F : 0.0F);
    }
  }
  problem.valid.assign(kTokens, 0);
  problem.valid[0] = problem.valid[1] = 1;
  problem.scale = 1.0;
  return problem;
}

}  // namespace raingauge::test
