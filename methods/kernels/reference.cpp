// SPDX-License-Identifier: Apache-2.0
// What is the right output of a plan? Scores and the sums inside one key tile are fp32; row sums and
// the output are carried from tile to tile in fp64, so the error does not grow with the number of
// keys. Clear before fast: this is what every other kernel is judged against.
#include "methods/kernels/reference.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "data/error.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

constexpr std::int64_t kLanes = 8;      // floats of one vector
constexpr std::int64_t kRowTile = 64;   // query rows computed together
constexpr std::int64_t kKeyTile = 128;  // keys of one step
constexpr std::int64_t kStride = 2 * kLanes;
constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

// Unaligned, may alias float arrays.
using Lanes = float __attribute__((vector_size(32), aligned(4), may_alias));

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

inline Lanes* lanes_at(float* data) { return reinterpret_cast<Lanes*>(data); }
inline const Lanes* lanes_at(const float* data) { return reinterpret_cast<const Lanes*>(data); }

// out[i][r] = sum over `depth` of a[i][x] * b[x][r]: four i and sixteen r at a time, every sum in
// ascending x, so the result does not depend on the instruction set.
// a [rows_a, stride_a] with i and x spaced by step_i and step_x; b, out have rows of stride_b, stride_out.
struct Product {
  const float* a;
  std::int64_t step_i, step_x;
  const float* b;
  std::int64_t stride_b;
  float* out;
  std::int64_t stride_out;
  std::int64_t count_i, depth, count_r;  // count_r a multiple of kStride
};

__attribute__((always_inline)) inline void product_strip(const Product& p, std::int64_t i,
                                                         std::int64_t r) {
  // Beyond the last i, the last one is computed again and written once more: the same value.
  std::array<std::int64_t, 4> row{};
  for (std::int64_t x = 0; x < 4; ++x) row[index_of(x)] = std::min(i + x, p.count_i - 1);
  const float* a0 = p.a + row[0] * p.step_i;
  const float* a1 = p.a + row[1] * p.step_i;
  const float* a2 = p.a + row[2] * p.step_i;
  const float* a3 = p.a + row[3] * p.step_i;
  Lanes s00{}, s01{}, s10{}, s11{}, s20{}, s21{}, s30{}, s31{};
  for (std::int64_t x = 0; x < p.depth; ++x) {
    const Lanes b0 = *lanes_at(p.b + x * p.stride_b + r);
    const Lanes b1 = *lanes_at(p.b + x * p.stride_b + r + kLanes);
    const std::int64_t at = x * p.step_x;
    s00 += a0[at] * b0;
    s01 += a0[at] * b1;
    s10 += a1[at] * b0;
    s11 += a1[at] * b1;
    s20 += a2[at] * b0;
    s21 += a2[at] * b1;
    s30 += a3[at] * b0;
    s31 += a3[at] * b1;
  }
  const auto store = [&](std::size_t x, const Lanes& low, const Lanes& high) {
    *lanes_at(p.out + row[x] * p.stride_out + r) = low;
    *lanes_at(p.out + row[x] * p.stride_out + r + kLanes) = high;
  };
  store(0, s00, s01);
  store(1, s10, s11);
  store(2, s20, s21);
  store(3, s30, s31);
}

__attribute__((always_inline)) inline void product_body(const Product& p) {
  for (std::int64_t i = 0; i < p.count_i; i += 4) {
    for (std::int64_t r = 0; r < p.count_r; r += kStride) product_strip(p, i, r);
  }
}

void product_portable(const Product& p) { product_body(p); }

#if defined(__x86_64__)
__attribute__((target("avx2"))) void product_avx2(const Product& p) { product_body(p); }
#endif

void multiply(const Product& p) {
#if defined(__x86_64__)
  static const bool kAvx2 = __builtin_cpu_supports("avx2") != 0;
  if (kAvx2) return product_avx2(p);
#endif
  product_portable(p);
}

std::string shape_of(const TensorView& view) {
  return "[" + std::to_string(view.heads) + ", " + std::to_string(view.tokens) + ", " +
         std::to_string(view.head_dim) + "] " + std::string(name_of(view.dtype)) + " on " +
         to_string(view.device);
}

float norm2(const float* row, std::int64_t count) {
  double sum = 0.0;
  for (std::int64_t x = 0; x < count; ++x) sum += double{row[x]} * double{row[x]};
  return static_cast<float>(sum);
}

// Running state of one chunk of query rows; everything is [kRowTile] unless noted.
struct RowState {
  std::array<float, kRowTile> max;
  std::array<double, kRowTile> sum;
  std::array<double, kRowTile> token_term;  // sum_j w_j^2 |v_j|^2
  std::array<double, kRowTile> tile_term;   // sum_t |sum_{j in t} w_j v_j|^2
  std::array<float, kRowTile> k_norm;

  RowState() {
    max.fill(kMinusInf);
    sum.fill(0.0);
    token_term.fill(0.0);
    tile_term.fill(0.0);
    k_norm.fill(0.0F);
  }
};

}  // namespace

void check_attend_inputs(const Plan& plan, const AttendInputs& inputs) {
  const TensorView& q = inputs.q;
  for (const TensorView* view : {&inputs.k, &inputs.v}) {
    if (view->heads != q.heads || view->tokens != q.tokens || view->head_dim != q.head_dim ||
        view->dtype != q.dtype || !(view->device == q.device)) {
      throw Error(std::string("attention inputs disagree: q is ") + shape_of(q) + ", " +
                  (view == &inputs.k ? "k" : "v") + " is " + shape_of(*view) +
                  "; all three need one shape, dtype and device");
    }
  }
  if (plan.heads != q.heads || plan.tokens != q.tokens) {
    throw Error("the plan is for " + std::to_string(plan.heads) + " heads of " +
                std::to_string(plan.tokens) + " tokens, but q is " + shape_of(q));
  }
  if (q.heads < 1 || q.tokens < 1 || q.head_dim < 1) {
    throw Error("attention inputs are empty: q is " + shape_of(q));
  }
  if (!std::isfinite(inputs.scale)) {
    throw NotFinite("the softmax scale is " + std::to_string(inputs.scale) + "; it must be finite");
  }
}

// Scratch of one chunk of rows; q and scores have the query rows in the lanes.
struct ReferenceHead::Tile {
  explicit Tile(std::int64_t stride)
      : row(index_of(stride)),
        q(index_of(stride * kRowTile)),
        scores(index_of(kKeyTile * kRowTile)),
        part(index_of(kRowTile * stride)),
        o(index_of(kRowTile * stride)) {}
  std::vector<float> row;     // [stride]
  std::vector<float> q;       // [stride, kRowTile]
  std::vector<float> scores;  // [kKeyTile, kRowTile]; weights after the softmax step
  std::vector<float> part;    // [kRowTile, stride]: this tile's sum of w v
  std::vector<double> o;      // [kRowTile, stride]
};

ReferenceHead::ReferenceHead(const AttendInputs& inputs, const Plan& plan, std::int64_t head,
                             int threads)
    : inputs_(inputs), plan_(plan), head_(head), stride_(round_up(inputs.q.head_dim, kStride)) {
  check_attend_inputs(plan, inputs);
  if (inputs.q.device.kind != DeviceKind::cpu) {
    throw Error("the reference needs q, k, v in host memory; they are on " +
                to_string(inputs.q.device));
  }
  if (head < 0 || head >= plan.heads) {
    throw Error("head " + std::to_string(head) + " is out of range: allowed are 0 to " +
                std::to_string(plan.heads - 1));
  }
  offsets_.push_back(0);
  for (std::int64_t block = 0; block < plan.k_blocks.blocks; ++block) {
    const std::int64_t end = plan.k_blocks.end(head, block);
    for (std::int64_t position = plan.k_blocks.begin(head, block); position < end; ++position) {
      const std::int64_t token = plan.k_order.token(head, position);
      if (inputs.key_valid == nullptr || inputs.key_valid[token] != 0) source_.push_back(token);
    }
    offsets_.push_back(static_cast<std::int64_t>(source_.size()));
  }
  const auto keys = static_cast<std::int64_t>(source_.size());
  k_.resize(index_of(keys * stride_));
  v_.resize(index_of(keys * stride_));
  k_norm_.resize(index_of(keys));
  v_norm2_.resize(index_of(keys));
  constexpr std::int64_t kChunk = 1024;
  parallel_for(threads, (keys + kChunk - 1) / kChunk, [&](std::int64_t chunk, int) {
    load_keys(chunk * kChunk, std::min(keys, (chunk + 1) * kChunk));
  });
}

std::int64_t ReferenceHead::keys_of(std::int64_t block) const {
  const std::int32_t* columns = plan_.lists.begin(head_, block);
  std::int64_t keys = 0;
  for (std::int64_t c = 0; c < plan_.lists.count(head_, block); ++c) {
    keys += offsets_[index_of(columns[c] + 1)] - offsets_[index_of(columns[c])];
  }
  return keys;
}

void ReferenceHead::load_keys(std::int64_t first, std::int64_t last) {
  const std::int64_t dim = inputs_.q.head_dim;
  for (std::int64_t key = first; key < last; ++key) {
    const std::int64_t token = source_[index_of(key)];
    float* k = k_.data() + key * stride_;
    float* v = v_.data() + key * stride_;
    convert_to_float(inputs_.k.row(head_, token), inputs_.k.dtype, k, index_of(dim));
    convert_to_float(inputs_.v.row(head_, token), inputs_.v.dtype, v, index_of(dim));
    k_norm_[index_of(key)] = std::sqrt(norm2(k, dim));
    v_norm2_[index_of(key)] = norm2(v, dim);
  }
}

namespace {

// Moves row r to a new maximum: everything summed so far shrinks by exp(old - new).
void rescale_row(RowState& state, std::int64_t r, float new_max, double* o, std::int64_t stride) {
  const auto at = index_of(r);
  if (!(new_max > state.max[at])) return;
  const double factor = std::exp(double{state.max[at]} - double{new_max});
  state.max[at] = new_max;
  state.sum[at] *= factor;
  state.token_term[at] *= factor * factor;
  state.tile_term[at] *= factor * factor;
  for (std::int64_t x = 0; x < stride; ++x) o[r * stride + x] *= factor;
}

// Scores [keys, kRowTile] become weights exp(score - max of the row). A NaN score loses every
// comparison and so leaves the maximum alone; its weight is NaN and the row with it.
void softmax_step(RowState& state, float* scores, std::int64_t keys, std::int64_t rows, float scale,
                  double* o, std::int64_t stride) {
  std::array<float, kRowTile> tile_max;
  tile_max.fill(kMinusInf);
  for (std::int64_t j = 0; j < keys; ++j) {
    float* row = scores + j * kRowTile;
    for (std::int64_t r = 0; r < rows; ++r) {
      row[r] *= scale;
      tile_max[index_of(r)] = row[r] > tile_max[index_of(r)] ? row[r] : tile_max[index_of(r)];
    }
  }
  std::array<float, kRowTile> base;
  for (std::int64_t r = 0; r < rows; ++r) {
    rescale_row(state, r, tile_max[index_of(r)], o, stride);
    const float max = state.max[index_of(r)];
    base[index_of(r)] = max == kMinusInf ? 0.0F : max;  // all scores -inf: every weight is 0
  }
  std::array<float, kRowTile> sum{};
  for (std::int64_t j = 0; j < keys; ++j) {
    float* row = scores + j * kRowTile;
    for (std::int64_t r = 0; r < rows; ++r) {
      row[r] = std::exp(row[r] - base[index_of(r)]);
      sum[index_of(r)] += row[r];
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) state.sum[index_of(r)] += double{sum[index_of(r)]};
}

// The terms of RowScale that this tile adds; `part` is its sum of w v.
void add_scale_terms(RowState& state, const float* weights, const float* part, std::int64_t stride,
                     const float* v_norm2, const float* k_norm, std::int64_t keys,
                     std::int64_t rows) {
  const float longest = *std::max_element(k_norm, k_norm + keys);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto at = index_of(r);
    double token_term = 0.0;
    for (std::int64_t j = 0; j < keys; ++j) {
      const double weight = weights[j * kRowTile + r];
      token_term += weight * weight * double{v_norm2[j]};
    }
    state.token_term[at] += token_term;
    state.tile_term[at] += double{norm2(part + r * stride, stride)};
    state.k_norm[at] = std::max(state.k_norm[at], longest);
  }
}

}  // namespace

void ReferenceHead::attend_chunk(std::int64_t block, std::span<const std::int32_t> positions,
                                 Tile& tile, float* o, float* lse, RowScale* scales) const {
  const std::int64_t dim = inputs_.q.head_dim;
  const auto rows = static_cast<std::int64_t>(positions.size());
  const std::int64_t lanes = round_up(rows, kStride);
  std::array<double, kRowTile> q_norm2{};
  for (std::int64_t r = 0; r < lanes; ++r) {
    if (r < rows) {
      const std::int64_t token = plan_.q_order.token(head_, positions[index_of(r)]);
      convert_to_float(inputs_.q.row(head_, token), inputs_.q.dtype, tile.row.data(),
                       index_of(dim));
      q_norm2[index_of(r)] = norm2(tile.row.data(), dim);
    }
    for (std::int64_t x = 0; x < dim; ++x) {
      tile.q[index_of(x * kRowTile + r)] = r < rows ? tile.row[index_of(x)] : 0.0F;
    }
  }
  std::fill(tile.o.begin(), tile.o.end(), 0.0);

  RowState state;
  std::int64_t keys_total = 0;
  const std::int32_t* columns = plan_.lists.begin(head_, block);
  for (std::int64_t c = 0; c < plan_.lists.count(head_, block); ++c) {
    const std::int64_t end = offsets_[index_of(columns[c] + 1)];
    for (std::int64_t first = offsets_[index_of(columns[c])]; first < end; first += kKeyTile) {
      const std::int64_t keys = std::min(kKeyTile, end - first);
      multiply({k_.data() + first * stride_, stride_, 1, tile.q.data(), kRowTile,
                tile.scores.data(), kRowTile, keys, dim, lanes});
      softmax_step(state, tile.scores.data(), keys, rows, inputs_.scale, tile.o.data(), stride_);
      multiply({tile.scores.data(), 1, kRowTile, v_.data() + first * stride_, stride_,
                tile.part.data(), stride_, rows, keys, stride_});
      for (std::int64_t x = 0; x < rows * stride_; ++x) {
        tile.o[index_of(x)] += double{tile.part[index_of(x)]};
      }
      if (scales != nullptr) {
        add_scale_terms(state, tile.scores.data(), tile.part.data(), stride_,
                        v_norm2_.data() + first, k_norm_.data() + first, keys, rows);
      }
      keys_total += keys;
    }
  }

  for (std::int64_t r = 0; r < rows; ++r) {
    const auto at = index_of(r);
    const double sum = state.sum[at];
    const double inverse = sum == 0.0 ? 0.0 : 1.0 / sum;
    double o_norm2 = 0.0;
    for (std::int64_t x = 0; x < dim; ++x) {
      const double value = sum == 0.0 ? 0.0 : tile.o[index_of(r * stride_ + x)] * inverse;
      o_norm2 += value * value;
      o[r * dim + x] = static_cast<float>(value);
    }
    lse[r] = sum == 0.0 ? kMinusInf : static_cast<float>(double{state.max[at]} + std::log(sum));
    if (scales == nullptr) continue;
    const double largest = std::max(state.token_term[at], state.tile_term[at]) * inverse * inverse;
    scales[r].error_scale = std::sqrt(std::max(largest, o_norm2));
    scales[r].score_bound =
        std::abs(double{inputs_.scale}) * std::sqrt(q_norm2[at]) * double{state.k_norm[at]};
    scales[r].row_max = double{state.max[at]};
    scales[r].keys = keys_total;
  }
}

void ReferenceHead::rows(std::int64_t block, std::span<const std::int32_t> positions, float* o,
                         float* lse, RowScale* scales) const {
  Tile tile(stride_);
  const std::int64_t dim = inputs_.q.head_dim;
  const auto count = static_cast<std::int64_t>(positions.size());
  for (std::int64_t first = 0; first < count; first += kRowTile) {
    const std::int64_t rows = std::min(kRowTile, count - first);
    attend_chunk(block, positions.subspan(index_of(first), index_of(rows)), tile, o + first * dim,
                 lse + first, scales == nullptr ? nullptr : scales + first);
  }
}

namespace {

std::vector<std::int32_t> block_positions(const Plan& plan, std::int64_t head, std::int64_t block) {
  std::vector<std::int32_t> positions;
  for (std::int32_t x = plan.q_blocks.begin(head, block); x < plan.q_blocks.end(head, block); ++x) {
    positions.push_back(x);
  }
  return positions;
}

struct ReferencePrepared final : Prepared {
  ReferencePrepared(const Plan& given, double density) : plan(given), tiles(density) {}
  double density_tiles() const override { return tiles; }
  const Plan& plan;
  double tiles;  // nothing is padded: executed pairs are kept pairs
};

class ReferenceKernel final : public Kernel {
 public:
  explicit ReferenceKernel(const KernelOptions& options);
  const KernelSpec& spec() const override { return spec_; }

  Support supports(const Plan& plan, const AttendInputs& inputs) const override {
    if (inputs.q.device.kind != DeviceKind::cpu) return "reference: inputs must be in host memory";
    if (!plan.terms.empty()) {
      return "reference: the plan adds the output term `" + plan.terms.front().name + "`";
    }
    return std::nullopt;
  }

  std::unique_ptr<Prepared> prepare(const Plan& plan, const AttendInputs& inputs) override {
    check_attend_inputs(plan, inputs);
    if (const Support reason = supports(plan, inputs)) throw Unsupported(*reason);
    return std::make_unique<ReferencePrepared>(plan,
                                               measure_density(plan, inputs.key_valid).mean_pairs);
  }

  void attend(const Prepared& prepared, const AttendInputs& inputs,
              const AttendOutputs& outputs) override {
    const auto* mine = dynamic_cast<const ReferencePrepared*>(&prepared);
    if (mine == nullptr) throw Error("reference: attend() got what another kernel prepared");
    for (std::int64_t head = 0; head < inputs.q.heads; ++head) {
      attend_head(ReferenceHead(inputs, mine->plan, head, options_.threads), mine->plan, head,
                  inputs.q, outputs);
    }
  }

 private:
  void attend_head(const ReferenceHead& reference, const Plan& plan, std::int64_t head,
                   const TensorView& q, const AttendOutputs& outputs) const {
    parallel_for(options_.threads, plan.q_blocks.blocks, [&](std::int64_t block, int) {
      const auto positions = block_positions(plan, head, block);
      std::vector<float> o(positions.size() * index_of(q.head_dim));
      std::vector<float> lse(positions.size());
      reference.rows(block, positions, o.data(), lse.data());
      for (std::size_t r = 0; r < positions.size(); ++r) {
        const std::int64_t row = head * q.tokens + plan.q_order.token(head, positions[r]);
        std::copy_n(o.data() + r * index_of(q.head_dim), q.head_dim, outputs.o + row * q.head_dim);
        if (outputs.lse != nullptr) outputs.lse[row] = lse[r];
      }
    });
  }

  KernelOptions options_;
  KernelSpec spec_;
};

}  // namespace

void reference_query_blocks(const AttendInputs& inputs, const Plan& plan, std::int64_t head,
                            const std::vector<std::int64_t>& blocks, float* o_rows, float* lse_rows,
                            RowScale* scales, int threads) {
  const ReferenceHead reference(inputs, plan, head, threads);
  std::vector<std::int64_t> first(blocks.size() + 1, 0);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i] < 0 || blocks[i] >= plan.q_blocks.blocks) {
      throw Error("query block " + std::to_string(blocks[i]) +
                  " is out of range: allowed are 0 to " + std::to_string(plan.q_blocks.blocks - 1));
    }
    first[i + 1] = first[i] + plan.q_blocks.size(head, blocks[i]);
  }
  parallel_for(threads, static_cast<std::int64_t>(blocks.size()), [&](std::int64_t i, int) {
    const std::int64_t row = first[index_of(i)];
    reference.rows(blocks[index_of(i)], block_positions(plan, head, blocks[index_of(i)]),
                   o_rows + row * inputs.q.head_dim, lse_rows + row,
                   scales == nullptr ? nullptr : scales + row);
  });
}

KernelSpec reference_kernel_spec() {
  return {
      .name = "reference",
      .help = "fp32 arithmetic with fp64 sums, any plan, any dtype: what the others are judged by",
      .cpu = true,
      .cuda = false,
      .dense_only = false,
      .folds_permutation = true};
}

namespace {
ReferenceKernel::ReferenceKernel(const KernelOptions& options)
    : options_(options), spec_(reference_kernel_spec()) {}
}  // namespace

std::unique_ptr<Kernel> make_reference_kernel(const KernelOptions& options) {
  return std::make_unique<ReferenceKernel>(options);
}

}  // namespace raingauge
