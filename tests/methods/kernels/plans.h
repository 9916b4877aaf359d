// SPDX-License-Identifier: Apache-2.0
// Plans and inputs for kernel tests: random orders, ragged and empty blocks, per-head layouts, and the
// float64 N x N attention that answers for them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "data/dtype.h"
#include "data/plan.h"
#include "methods/kernels/kernel.h"

namespace raingauge::testing_kernels {

inline std::size_t at(std::int64_t value) { return static_cast<std::size_t>(value); }

// Q, K, V in one dtype with the strides asked for, padding filled with NaN.
struct Tensors {
  enum class Form { contiguous, interleaved, padded };  // [H,N,D]; [N,H,D]; rows of D + 8 elements

  Tensors(DType type, std::int64_t heads, std::int64_t tokens, std::int64_t dim,
          Form form = Form::contiguous, float scale = 0.0F)
      : dtype(type), h(heads), n(tokens), d(dim) {
    const std::int64_t row = form == Form::padded ? d + 8 : d;
    for (int t = 0; t < 3; ++t) {
      // One row more in front, so that no view starts at the allocation.
      raw[t].resize(at((h * n + 1) * row) * size_of(dtype) + 64);
      const std::vector<float> nans(raw[t].size() / size_of(dtype),
                                    std::numeric_limits<float>::quiet_NaN());
      convert_from_float(nans.data(), aligned(t), dtype, at((h * n + 1) * row));
      TensorView& view = views[t];
      view = contiguous_view(aligned(t), dtype, h, n, d);
      view.data =
          static_cast<const char*>(view.data) + row * static_cast<std::int64_t>(size_of(dtype));
      view.token_stride = form == Form::interleaved ? h * d : row;
      view.head_stride = form == Form::interleaved ? d : n * row;
    }
    inputs.scale = scale == 0.0F ? 1.0F / std::sqrt(static_cast<float>(dim)) : scale;
    inputs.q = views[0];
    inputs.k = views[1];
    inputs.v = views[2];
  }

  void* aligned(int t) {
    const auto address = reinterpret_cast<std::uintptr_t>(raw[t].data());
    return raw[t].data() + (64 - address % 64) % 64;
  }
  void* row(int t, std::int64_t head, std::int64_t token) {
    return const_cast<void*>(views[t].row(head, token));
  }
  void set(int t, std::int64_t head, std::int64_t token, const std::vector<float>& values) {
    convert_from_float(values.data(), row(t, head, token), dtype, at(d));
  }
  std::vector<float> get(int t, std::int64_t head, std::int64_t token) {
    std::vector<float> values(at(d));
    convert_to_float(row(t, head, token), dtype, values.data(), at(d));
    return values;
  }
  void fill(int t, float value) {
    for (std::int64_t x = 0; x < h; ++x) {
      for (std::int64_t y = 0; y < n; ++y) set(t, x, y, std::vector<float>(at(d), value));
    }
  }
  // N(0, 1) times `spread`.
  void randomise(std::mt19937& engine, float spread = 1.0F) {
    std::normal_distribution<float> normal(0.0F, spread);
    std::vector<float> values(at(d));
    for (int t = 0; t < 3; ++t) {
      for (std::int64_t x = 0; x < h; ++x) {
        for (std::int64_t y = 0; y < n; ++y) {
          for (float& value : values) value = normal(engine);
          set(t, x, y, values);
        }
      }
    }
  }

  DType dtype;
  std::int64_t h, n, d;
  std::vector<char> raw[3];
  TensorView views[3];
  AttendInputs inputs;
};

struct Outputs {
  Outputs(std::int64_t heads, std::int64_t tokens, std::int64_t dim)
      : o(at(heads * tokens * dim), kUnwritten), lse(at(heads * tokens), kUnwritten) {}
  static constexpr float kUnwritten = -12345.0F;
  std::vector<float> o, lse;
  AttendOutputs view() { return {o.data(), lse.data()}; }
};

// Everything a plan may be: see each flag.
struct PlanForm {
  bool orders = false;        // random orders instead of identity
  bool per_head = false;      // orders and layouts of their own for each head
  bool ragged = false;        // block sizes drawn from 1 .. 2 * block
  bool empty_blocks = false;  // some blocks without tokens
  double keep = 0.5;          // probability of keeping a key block; at least one stays
  bool empty_lists = false;   // some query blocks keep nothing
};

inline void add_layout(Layout& layout, std::int64_t tokens, int block, const PlanForm& form,
                       std::mt19937& engine, std::int64_t blocks) {
  std::vector<std::int32_t> offsets{0};
  std::uniform_int_distribution<int> size(1, 2 * block);
  while (offsets.back() < tokens) {
    const auto step = form.ragged ? size(engine) : block;
    offsets.push_back(
        static_cast<std::int32_t>(std::min<std::int64_t>(tokens, offsets.back() + step)));
    if (form.empty_blocks && engine() % 4 == 0) offsets.push_back(offsets.back());
  }
  while (static_cast<std::int64_t>(offsets.size()) < blocks + 1) {
    offsets.push_back(static_cast<std::int32_t>(tokens));
  }
  layout.offsets.insert(layout.offsets.end(), offsets.begin(), offsets.end());
  layout.blocks = static_cast<std::int64_t>(offsets.size()) - 1;
}

inline Layout random_layout(std::int64_t heads, std::int64_t tokens, int block,
                            const PlanForm& form, std::mt19937& engine) {
  Layout layout;
  layout.rows = form.per_head ? static_cast<int>(heads) : 1;
  // Rows of one layout have one number of blocks: draw each, then pad all to the largest.
  std::vector<Layout> rows(at(layout.rows));
  std::int64_t most = 0;
  for (Layout& row : rows) {
    add_layout(row, tokens, block, form, engine, 0);
    most = std::max(most, row.blocks);
  }
  for (Layout& row : rows) {
    row.offsets.resize(at(most + 1), static_cast<std::int32_t>(tokens));
    layout.offsets.insert(layout.offsets.end(), row.offsets.begin(), row.offsets.end());
  }
  layout.blocks = most;
  return layout;
}

inline Orders random_orders(std::int64_t heads, std::int64_t tokens, const PlanForm& form,
                            std::mt19937& engine) {
  Orders orders;
  orders.tokens = tokens;
  if (!form.orders) return orders;
  orders.identity = false;
  orders.rows = form.per_head ? static_cast<int>(heads) : 1;
  for (int row = 0; row < orders.rows; ++row) {
    std::vector<std::int32_t> index(at(tokens));
    std::iota(index.begin(), index.end(), 0);
    std::shuffle(index.begin(), index.end(), engine);
    orders.index.insert(orders.index.end(), index.begin(), index.end());
  }
  return orders;
}

inline Plan random_plan(std::int64_t heads, std::int64_t tokens, int block, const PlanForm& form,
                        std::mt19937& engine) {
  Plan plan;
  plan.heads = heads;
  plan.tokens = tokens;
  plan.q_order = random_orders(heads, tokens, form, engine);
  plan.k_order = random_orders(heads, tokens, form, engine);
  plan.q_blocks = random_layout(heads, tokens, block, form, engine);
  plan.k_blocks = random_layout(heads, tokens, block, form, engine);
  plan.lists.heads = heads;
  plan.lists.query_blocks = plan.q_blocks.blocks;
  plan.lists.row_offsets.push_back(0);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t qb = 0; qb < plan.q_blocks.blocks; ++qb) {
      std::vector<std::int32_t> kept;
      std::vector<std::int32_t> usable;
      for (std::int32_t kb = 0; kb < plan.k_blocks.blocks; ++kb) {
        if (plan.k_blocks.size(h, kb) > 0) usable.push_back(kb);
        if (uniform(engine) < form.keep) kept.push_back(kb);
      }
      const bool needs_one = std::none_of(
          kept.begin(), kept.end(), [&](std::int32_t kb) { return plan.k_blocks.size(h, kb) > 0; });
      if (needs_one) kept = {usable[engine() % usable.size()]};
      if (plan.q_blocks.size(h, qb) == 0) kept.clear();
      if (form.empty_lists && qb % 3 == 1) kept.clear();
      plan.lists.columns.insert(plan.lists.columns.end(), kept.begin(), kept.end());
      plan.lists.row_offsets.push_back(static_cast<std::int64_t>(plan.lists.columns.size()));
    }
  }
  return plan;
}

// Does query token q of the head see key token k? [H, N, N], from the definition.
inline std::vector<char> visibility(const Plan& plan, const std::uint8_t* key_valid) {
  std::vector<char> sees(at(plan.heads * plan.tokens * plan.tokens), 0);
  for (std::int64_t h = 0; h < plan.heads; ++h) {
    for (std::int64_t qb = 0; qb < plan.q_blocks.blocks; ++qb) {
      for (std::int64_t c = 0; c < plan.lists.count(h, qb); ++c) {
        const std::int64_t kb = plan.lists.begin(h, qb)[c];
        for (auto qp = plan.q_blocks.begin(h, qb); qp < plan.q_blocks.end(h, qb); ++qp) {
          for (auto kp = plan.k_blocks.begin(h, kb); kp < plan.k_blocks.end(h, kb); ++kp) {
            const std::int64_t q = plan.q_order.token(h, qp);
            const std::int64_t k = plan.k_order.token(h, kp);
            if (key_valid != nullptr && key_valid[k] == 0) continue;
            sees[at((h * plan.tokens + q) * plan.tokens + k)] = 1;
          }
        }
      }
    }
  }
  return sees;
}

// float64 softmax over an N x N mask: o [H, N, D], lse [H, N].
struct Exact {
  std::vector<double> o, lse;
};

inline Exact exact_attention(Tensors& tensors, const Plan& plan) {
  const std::int64_t n = tensors.n;
  const std::int64_t d = tensors.d;
  const std::vector<char> sees = visibility(plan, tensors.inputs.key_valid);
  Exact exact{std::vector<double>(at(tensors.h * n * d), 0.0),
              std::vector<double>(at(tensors.h * n), -std::numeric_limits<double>::infinity())};
  for (std::int64_t h = 0; h < tensors.h; ++h) {
    std::vector<std::vector<float>> keys, values;
    for (std::int64_t k = 0; k < n; ++k) {
      keys.push_back(tensors.get(1, h, k));
      values.push_back(tensors.get(2, h, k));
    }
    for (std::int64_t q = 0; q < n; ++q) {
      const std::vector<float> query = tensors.get(0, h, q);
      std::vector<double> score(at(n), 0.0);
      double max = -std::numeric_limits<double>::infinity();
      for (std::int64_t k = 0; k < n; ++k) {
        if (sees[at((h * n + q) * n + k)] == 0) continue;
        for (std::int64_t x = 0; x < d; ++x) {
          score[at(k)] += double{query[at(x)]} * double{keys[at(k)][at(x)]};
        }
        score[at(k)] *= double{tensors.inputs.scale};
        max = std::max(max, score[at(k)]);
      }
      double sum = 0.0;
      double* o = exact.o.data() + (h * n + q) * d;
      for (std::int64_t k = 0; k < n; ++k) {
        if (sees[at((h * n + q) * n + k)] == 0) continue;
        const double weight = std::exp(score[at(k)] - max);
        sum += weight;
        for (std::int64_t x = 0; x < d; ++x) o[x] += weight * double{values[at(k)][at(x)]};
      }
      if (sum == 0.0) continue;
      for (std::int64_t x = 0; x < d; ++x) o[x] /= sum;
      exact.lse[at(h * n + q)] = max + std::log(sum);
    }
  }
  return exact;
}

}  // namespace raingauge::testing_kernels
