// SPDX-License-Identifier: Apache-2.0
// XAttention section 3.1 (arXiv 2503.16428): attention estimated on strided groups of tokens,
// X_ab = scale / S * sum_j Q[aS + S-1-j] . K[bS + j]; softmax over b; a block pair is worth the sum of
// the softmax over its query and key groups. Rows of the result sum to the number of query groups.
// fp32; one query block at a time, so that nothing of size (N / S)^2 is held.
#include "methods/scores/antidiagonal.h"

#include <algorithm>
#include <cmath>

#include "methods/kernels/cpu/buffer.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/scores/score.h"

namespace raingauge {
namespace {

using cpu::kUnit;

GroupTail parse_tail(const std::string& name) {
  if (name == "dropped") return GroupTail::dropped;
  return name == "zero_keys" ? GroupTail::zero_keys : GroupTail::padded;
}

std::vector<std::int32_t> valid_tokens(const Orders& order, std::int64_t head, const Layout& layout,
                                       std::int64_t block, const std::uint8_t* key_valid) {
  std::vector<std::int32_t> tokens;
  for (auto p = layout.begin(0, block); p < layout.end(0, block); ++p) {
    const auto token = order.token(head, p);
    if (key_valid == nullptr || key_valid[token] != 0) tokens.push_back(token);
  }
  return tokens;
}

std::int64_t largest_block(const Layout& layout) {
  std::int64_t largest = 0;
  for (std::int64_t b = 0; b < layout.blocks; ++b) {
    largest = std::max<std::int64_t>(largest, layout.size(0, b));
  }
  return largest;
}

// All key groups in the packed form of the score kernel.
cpu::Buffer<std::uint32_t> pack_groups(const cpu::LevelOps& ops, const cpu::PackShape& shape,
                                       const TokenGroups& groups) {
  const std::int64_t units = (groups.count() + kUnit - 1) / kUnit;
  auto packed =
      cpu::make_buffer<std::uint32_t>(static_cast<std::size_t>(units) * shape.k_unit_words());
  for (std::int64_t unit = 0; unit < units; ++unit) {
    const void* rows[kUnit];
    for (int i = 0; i < kUnit; ++i) {
      const std::int64_t group = unit * kUnit + i;
      rows[i] = group < groups.count() ? groups.row(group) : nullptr;
    }
    ops.pack_k(shape, rows, packed.get() + static_cast<std::size_t>(unit) * shape.k_unit_words());
  }
  return packed;
}

// Adds softmax(logits) of one query group, summed by key block, to `sums`.
void add_row(const float* logits, const std::vector<std::int64_t>& block_begin,
             std::vector<float>& weights, double* sums) {
  const auto count = static_cast<std::size_t>(block_begin.back());
  const float top = *std::max_element(logits, logits + count);
  double total = 0.0;
  for (std::size_t b = 0; b < count; ++b) {
    weights[b] = std::exp(logits[b] - top);
    total += weights[b];
  }
  for (std::size_t j = 0; j + 1 < block_begin.size(); ++j) {
    double part = 0.0;
    for (auto b = block_begin[j]; b < block_begin[j + 1]; ++b) {
      part += weights[static_cast<std::size_t>(b)];
    }
    sums[j] += part / total;
  }
}

ScoreMatrix antidiagonal(const ScoreRequest& request) {
  const int stride = request.params.at("stride").get<int>();
  const GroupTail tail = parse_tail(request.params.at("tail").get<std::string>());
  const auto& record = request.record;
  // Queries that do not exist are left out by everybody.
  const auto queries = group_tokens(record.q, request.head, request.q_order, request.q_blocks,
                                    stride, true, GroupTail::padded);
  const auto keys = group_tokens(record.k, request.head, request.k_order, request.k_blocks, stride,
                                 false, tail, record.key_valid);
  ScoreMatrix scores;
  scores.rows = request.q_blocks.blocks;
  scores.columns = request.k_blocks.blocks;
  scores.values.assign(static_cast<std::size_t>(scores.rows * scores.columns), 0.0F);
  scores.probabilities = true;
  if (keys.count() == 0 || queries.count() == 0) return scores;
  const cpu::LevelOps& ops = cpu::level_ops();
  const cpu::PackShape shape{DType::f32, static_cast<int>(keys.width), cpu::Products::floats};
  const auto packed = pack_groups(ops, shape, keys);
  const auto scratch = cpu::make_buffer<float>(cpu::scratch_floats(shape.head_dim));
  const auto scale = static_cast<float>(request.scale / stride);
  constexpr std::int64_t kRows = 16;
  std::vector<float> logits(static_cast<std::size_t>(kRows * keys.count()));
  std::vector<float> weights(static_cast<std::size_t>(keys.count()));
  for (std::int64_t i = 0; i < scores.rows; ++i) {
    std::vector<double> sums(static_cast<std::size_t>(scores.columns), 0.0);
    const auto last = queries.block_begin[static_cast<std::size_t>(i) + 1];
    for (auto a = queries.block_begin[static_cast<std::size_t>(i)]; a < last; a += kRows) {
      const auto rows = std::min(kRows, last - a);
      ops.scores(queries.row(a), rows, shape.head_dim, packed.get(), keys.count(), scale,
                 scratch.get(), logits.data(), keys.count());
      for (std::int64_t r = 0; r < rows; ++r) {
        add_row(logits.data() + r * keys.count(), keys.block_begin, weights, sums.data());
      }
    }
    for (std::int64_t j = 0; j < scores.columns; ++j) {
      scores.values[static_cast<std::size_t>(i * scores.columns + j)] =
          static_cast<float>(sums[static_cast<std::size_t>(j)]);
    }
  }
  return scores;
}

}  // namespace

TokenGroups group_tokens(const TensorView& x, std::int64_t head, const Orders& order,
                         const Layout& layout, int stride, bool reversed, GroupTail tail,
                         const std::uint8_t* key_valid) {
  TokenGroups groups;
  const auto d = static_cast<std::size_t>(x.head_dim);
  groups.width = stride * x.head_dim;
  groups.block_begin = {0};
  const std::int64_t full = tail == GroupTail::zero_keys ? largest_block(layout) : 0;
  for (std::int64_t block = 0; block < layout.blocks; ++block) {
    const auto tokens = valid_tokens(order, head, layout, block, key_valid);
    const auto size = std::max<std::int64_t>(full, static_cast<std::int64_t>(tokens.size()));
    const std::int64_t count =
        tail == GroupTail::dropped ? size / stride : (size + stride - 1) / stride;
    const auto first = groups.block_begin.back();
    groups.block_begin.push_back(first + count);
    groups.values.resize(static_cast<std::size_t>((first + count) * groups.width), 0.0F);
    const auto held =
        std::min<std::int64_t>(static_cast<std::int64_t>(tokens.size()), count * stride);
    for (std::int64_t i = 0; i < held; ++i) {
      const std::int64_t slot = reversed ? stride - 1 - i % stride : i % stride;
      float* target = groups.values.data() + (first + i / stride) * groups.width +
                      slot * static_cast<std::int64_t>(d);
      convert_to_float(x.row(head, tokens[static_cast<std::size_t>(i)]), x.dtype, target, d);
    }
  }
  return groups;
}

ScoreEntry antidiagonal_score() {
  return {
      "antidiagonal",
      "softmax over strided groups of tokens, reversed queries against keys, summed by block",
      "XAttention (arXiv 2503.16428) 3.1; MindIE-SD ada_bsa",
      {{.name = "stride",
        .type = ParamType::integer,
        .default_value = 8,
        .help = "tokens of a group: costs 2 N^2 d / stride",
        .min = 1,
        .max = 128},
       {.name = "tail",
        .type = ParamType::choice,
        .default_value = "padded",
        .help = "where a block is no multiple of the stride: fill the last group with zeros; drop "
                "it (keys); or fill every block with zero keys that take part in the softmax",
        .choices = {"padded", "dropped", "zero_keys"}}},
      antidiagonal};
}

}  // namespace raingauge
