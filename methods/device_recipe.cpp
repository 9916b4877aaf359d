// SPDX-License-Identifier: Apache-2.0
#include "methods/device_recipe.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <numeric>
#include <vector>

#include "data/error.h"
#include "methods/forced.h"
#include "methods/kernels/cuda/plan.h"
#include "methods/kernels/device.h"
#include "methods/orders/registry.h"
#include "methods/plan_heads.h"
#include "methods/selection.h"

namespace raingauge {

std::string host_only(const BlockRecipe& recipe, const RecordView& record) {
  if (recipe.score != "pooled") return "the score " + recipe.score + " is made on the host";
  if (recipe.arithmetic != Arithmetic::fp32) return "faithful arithmetic is the host's";
  if (recipe.selector != "top_k") return "the selector " + recipe.selector + " runs on the host";
  if (recipe.selector_params.value("ties", "lowest_index") != "lowest_index") {
    return "ties: keep_all are kept on the host";
  }
  if (!recipe.solve || recipe.budget != Budget::inside) return "budget: outside is the host's";
  if (recipe.force || recipe.competes || recipe.adjust || recipe.finish) {
    return "rules of its own beside the recipe are the host's";
  }
  if (recipe.selector_params.value("at_least", 0) > 0) return "at_least is kept on the host";
  if (!recipe.score_params.empty()) return "settings of the score are the host's";
  if (recipe.arrangement.whole_sequence) return "blocks over the whole sequence are the host's";
  if (find_order(recipe.arrangement.order.at("name").get<std::string>()).from_content()) {
    return "orders made from content are made on the host";
  }
  if (recipe.arrangement.mindie) return "the released block index is the host's";
  if (recipe.head_dim_scale) return "the scale head_dim^-1/2 is the host's";
  if (record.q.dtype == DType::f32) return "f32 records are planned on the host";
  if (record.head_dim() % 8 != 0 || record.head_dim() > 256) {
    return "head_dim " + std::to_string(record.head_dim()) + " is planned on the host";
  }
  return {};
}

std::unique_ptr<DevicePlanner> RecipeMethod::device_planner(const RecordView& record,
                                                            const Device& device) const {
  return make_device_planner(recipe_, record, options_, device);
}

#ifdef RAINGAUGE_WITH_CUDA
namespace {

using cuda_plan::SelectFrame;

std::size_t at(std::int64_t value) { return static_cast<std::size_t>(value); }

// Tokens of every block; of keys only the valid ones.
std::vector<std::int32_t> block_tokens(const Layout& layout, const Orders& order,
                                       const std::uint8_t* key_valid) {
  std::vector<std::int32_t> tokens(at(layout.blocks), 0);
  for (std::int64_t b = 0; b < layout.blocks; ++b) {
    for (auto p = layout.begin(0, b); p < layout.end(0, b); ++p) {
      tokens[at(b)] += key_valid == nullptr || key_valid[order.token(0, p)] != 0 ? 1 : 0;
    }
  }
  return tokens;
}

// What SelectFrame points to, on the host.
struct HostFrame {
  std::vector<std::uint8_t> kind;
  std::vector<std::int32_t> candidates, already, must, row_tokens, row_of_rank, ragged,
      ragged_tokens;
  std::int32_t full_tokens = 0, most_price = 0;
  std::int64_t forced_pairs = 0;
  double target = 0.0;
};

void check_feasible(const HostFrame& frame, double density, double all) {
  std::int64_t least = frame.forced_pairs;
  for (std::size_t i = 0; i < frame.must.size(); ++i) {
    least += std::int64_t{frame.must[i]} * frame.row_tokens[i] * frame.full_tokens;
  }
  const auto tallest = *std::max_element(frame.row_tokens.begin(), frame.row_tokens.end());
  if (static_cast<double>(least) <=
      frame.target + 0.5 * static_cast<double>(tallest) * frame.full_tokens) {
    return;
  }
  char text[160];
  std::snprintf(text, sizeof text,
                "the forced blocks alone are %.4f of all pairs, the density asked for is %.4f",
                static_cast<double>(least) / all, density);
  throw Infeasible(text, static_cast<double>(least) / all);
}

HostFrame make_frame(const ForcedBlocks& forced, const std::vector<std::int32_t>& row_tokens,
                     const std::vector<std::int32_t>& column_tokens, double density,
                     std::uint64_t row_seed) {
  HostFrame frame;
  frame.row_tokens = row_tokens;
  frame.full_tokens = *std::max_element(column_tokens.begin(), column_tokens.end());
  for (std::size_t j = 0; j < column_tokens.size(); ++j) {
    if (column_tokens[j] == 0 || column_tokens[j] == frame.full_tokens) continue;
    frame.ragged.push_back(static_cast<std::int32_t>(j));
    frame.ragged_tokens.push_back(column_tokens[j]);
  }
  for (std::size_t i = 0; i < row_tokens.size(); ++i) {
    std::int32_t candidates = 0;
    std::int32_t already = 0;
    std::int64_t forced_tokens = 0;
    for (std::size_t j = 0; j < column_tokens.size(); ++j) {
      const bool there = row_tokens[i] > 0 && column_tokens[j] > 0;
      const bool is_forced =
          there && forced.at(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j));
      frame.kind.push_back(static_cast<std::uint8_t>(is_forced ? 2 : there ? 1 : 0));
      candidates += there && !is_forced ? 1 : 0;
      already += is_forced ? 1 : 0;
      forced_tokens += is_forced ? column_tokens[j] : 0;
    }
    frame.candidates.push_back(candidates);
    frame.already.push_back(already);
    frame.must.push_back(candidates > 0 && already == 0 ? 1 : 0);
    frame.forced_pairs += forced_tokens * row_tokens[i];
    frame.most_price = std::max(frame.most_price, already + candidates);
  }
  frame.row_of_rank = rows_by_rank(row_tokens.size(), row_seed);
  const auto sum = [](const std::vector<std::int32_t>& sizes) {
    return static_cast<double>(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}));
  };
  const double all = sum(row_tokens) * sum(column_tokens);
  frame.target = density * all;
  check_feasible(frame, density, all);
  return frame;
}

void check_launch(int status, const char* what) {
  if (status != 0) {
    throw Error(std::string("CUDA: ") + what + ": error " + std::to_string(status) +
                " of the runtime");
  }
}

class RecipePlanner final : public DevicePlanner {
 public:
  RecipePlanner(const BlockRecipe& recipe, const RecordView& record, const MethodOptions& options,
                const Device& device)
      : device_(device), head_dim_(record.head_dim()) {
    ArrangementSpec spec = recipe.arrangement;
    spec.base_folder = options.base_folder;
    const Arrangement arrangement = arrange(record.info->segments, record.tokens(), spec);
    frame_.heads = record.heads();
    frame_.tokens = record.tokens();
    frame_.q_order = frame_.k_order = arrangement.order;
    frame_.q_blocks = arrangement.q_blocks;
    frame_.k_blocks = arrangement.k_blocks;
    frame_.windows = arrangement.windows;
    if (recipe.asks_density) frame_.nominal_density = recipe.density;
    frame_.lists.heads = frame_.heads;
    frame_.lists.query_blocks = frame_.q_blocks.blocks;
    const HostFrame host =
        make_frame(forced_blocks(arrangement, recipe.forced),
                   block_tokens(frame_.q_blocks, frame_.q_order, nullptr),
                   block_tokens(frame_.k_blocks, frame_.k_order, record.key_valid), recipe.density,
                   options.row_seed);
    if (frame_.k_blocks.blocks > cuda_plan::kMostColumns ||
        host.ragged.size() > std::size_t{cuda_plan::kMostRagged}) {
      throw Unsupported("more blocks, or more ragged ones, than are planned on a device");
    }
    upload(host, record);
    params_.scale = static_cast<float>(record.info->scale);
  }

  void plan(const TensorView& q, const TensorView& k, const KeyBoxes& boxes) override {
    const DeviceGuard guard(device_);
    if (boxes.data != nullptr && key_valid_.bytes() != 0) {
      throw Error("device plan: no copy of the keys is made of records that rule keys out");
    }
    pool(q, frame_.q_blocks.blocks, q_offsets_, nullptr, q_means_, {});
    pool(k, frame_.k_blocks.blocks, k_offsets_,
         key_valid_.bytes() == 0 ? nullptr : key_valid_.as<std::uint8_t>(), k_means_, boxes);
    check_launch(cuda_plan::launch_select(params_, nullptr), "selecting blocks");
  }

  DeviceLists lists() const override {
    return {device_,
            frame_id_,
            frame_.heads,
            frame_.q_blocks.blocks,
            frame_.k_blocks.blocks,
            counts_.as<std::int32_t>(),
            lists_.as<std::int32_t>()};
  }

  const Plan& frame() const override { return frame_; }

  Plan fetch() const override {
    synchronize_device(device_);
    std::vector<std::int32_t> counts(counts_.bytes() / sizeof(std::int32_t));
    std::vector<std::int32_t> columns(lists_.bytes() / sizeof(std::int32_t));
    counts_.copy_to_host(counts.data(), counts_.bytes());
    lists_.copy_to_host(columns.data(), lists_.bytes());
    Plan plan = frame_;
    plan.lists.row_offsets.assign(1, 0);
    for (std::size_t row = 0; row < counts.size(); ++row) {
      const auto* begin = columns.data() + row * at(frame_.k_blocks.blocks);
      plan.lists.columns.insert(plan.lists.columns.end(), begin, begin + counts[row]);
      plan.lists.row_offsets.push_back(static_cast<std::int64_t>(plan.lists.columns.size()));
    }
    return plan;
  }

 private:
  void pool(const TensorView& x, std::int64_t blocks, const DeviceBuffer& offsets,
            const std::uint8_t* key_valid, DeviceBuffer& means, const KeyBoxes& boxes) {
    if (!(x.device == device_) || x.heads != frame_.heads || x.tokens != frame_.tokens ||
        x.head_dim != head_dim_) {
      throw Error("device plan: a tensor of another shape or device than the planner was made for");
    }
    const auto element =
        x.dtype == DType::bf16 ? cuda_plan::Element::bf16 : cuda_plan::Element::f16;
    const cuda_plan::PoolParams params{x.data,
                                       x.head_stride,
                                       x.token_stride,
                                       order_.bytes() == 0 ? nullptr : order_.as<std::int32_t>(),
                                       offsets.as<std::int32_t>(),
                                       key_valid,
                                       static_cast<std::int32_t>(frame_.heads),
                                       static_cast<std::int32_t>(blocks),
                                       static_cast<std::int32_t>(head_dim_),
                                       means.as<float>(),
                                       boxes.data,
                                       boxes.rows};
    check_launch(cuda_plan::launch_pool(params, element, nullptr), "block means");
  }

  template <typename T>
  const T* keep(const std::vector<T>& values) {
    static_buffers_.push_back(to_device(device_, values));
    return static_buffers_.back().as<T>();
  }

  DeviceBuffer floats(std::int64_t count) const { return {device_, at(count) * sizeof(float)}; }

  void upload(const HostFrame& host, const RecordView& record) {
    const std::int64_t heads = frame_.heads;
    const std::int64_t rows = frame_.q_blocks.blocks;
    const std::int64_t columns = frame_.k_blocks.blocks;
    order_ = to_device(device_, frame_.q_order.index);
    q_offsets_ = to_device(device_, frame_.q_blocks.offsets);
    k_offsets_ = to_device(device_, frame_.k_blocks.offsets);
    if (record.key_valid != nullptr) {
      key_valid_ = DeviceBuffer(device_, at(record.tokens()));
      key_valid_.copy_from_host(record.key_valid, at(record.tokens()));
    }
    SelectFrame& f = params_.frame;
    f.heads = static_cast<std::int32_t>(heads);
    f.rows = static_cast<std::int32_t>(rows);
    f.columns = static_cast<std::int32_t>(columns);
    f.head_dim = static_cast<std::int32_t>(head_dim_);
    f.kind = keep(host.kind);
    f.candidates = keep(host.candidates);
    f.already = keep(host.already);
    f.must = keep(host.must);
    f.row_tokens = keep(host.row_tokens);
    f.row_of_rank = keep(host.row_of_rank);
    f.ragged = keep(host.ragged);
    f.ragged_tokens = keep(host.ragged_tokens);
    f.ragged_count = static_cast<std::int32_t>(host.ragged.size());
    f.full_tokens = host.full_tokens;
    f.forced_pairs = host.forced_pairs;
    f.most_price = host.most_price;
    f.target = host.target;
    q_means_ = floats(heads * rows * head_dim_);
    k_means_ = floats(heads * columns * head_dim_);
    scores_ = floats(heads * rows * columns);
    ranks_ = floats(heads * rows * f.ragged_count);
    taken_ = floats(heads * rows);
    counts_ = floats(heads * rows);
    lists_ = floats(heads * rows * columns);
    params_.q_means = q_means_.as<float>();
    params_.k_means = k_means_.as<float>();
    params_.scores = scores_.as<float>();
    params_.ragged_rank = ranks_.as<std::int32_t>();
    params_.taken = taken_.as<std::int32_t>();
    params_.counts = counts_.as<std::int32_t>();
    params_.lists = lists_.as<std::int32_t>();
  }

  Device device_;
  std::uint64_t frame_id_ = next_device_frame();
  std::int64_t head_dim_;
  Plan frame_;
  cuda_plan::SelectParams params_{};
  DeviceBuffer order_, q_offsets_, k_offsets_, key_valid_;
  DeviceBuffer q_means_, k_means_, scores_, ranks_, taken_, counts_, lists_;
  std::vector<DeviceBuffer> static_buffers_;
};

}  // namespace

std::unique_ptr<DevicePlanner> make_device_planner(const BlockRecipe& recipe,
                                                   const RecordView& record,
                                                   const MethodOptions& options,
                                                   const Device& device) {
  const std::string reason = host_only(recipe, record);
  if (!reason.empty()) throw Unsupported(reason);
  return std::make_unique<RecipePlanner>(recipe, record, options, device);
}
#else
std::unique_ptr<DevicePlanner> make_device_planner(const BlockRecipe& /*recipe*/,
                                                   const RecordView& /*record*/,
                                                   const MethodOptions& /*options*/,
                                                   const Device& /*device*/) {
  throw Unsupported("this build has no CUDA (no CUDA compiler was found)");
}
#endif

}  // namespace raingauge
