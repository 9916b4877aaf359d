// SPDX-License-Identifier: Apache-2.0
// Is a plan decided on a device the host's plan? Same inputs, same lists, and refusals where the device
// does not decide.
#include "methods/device_recipe.h"

#include <gtest/gtest.h>

#include <cstring>

#include "data/dtype.h"
#include "data/error.h"
#include "data/synthetic.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "methods/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

SyntheticSpec spec(const std::string& dtype = "bf16", int head_dim = 64) {
  SyntheticSpec spec;
  spec.frames = 7;
  spec.height = 18;
  spec.width = 22;
  spec.text_tokens = 37;
  spec.text_first = 0;
  spec.heads = 5;
  spec.head_dim = head_dim;
  spec.dtype = dtype;
  spec.seed = 11;
  return spec;
}

std::unique_ptr<Method> method(const json& params, DensityMatch match = DensityMatch::measured) {
  MethodOptions options;
  options.match = match;
  options.row_seed = 3;
  options.threads = 2;
  return make_method("rainfusion2", params, options);
}

std::string why_host_only(const json& params, const RecordView& record) {
  try {
    method(params)->device_planner(record, Device{DeviceKind::cuda, 0});
    return "";
  } catch (const Unsupported& reason) {
    return reason.what();
  }
}

TEST(DeviceRecipe, SaysWhatTheHostDecides) {
  const KernelEntry& entry = find_kernel("cuda");
  if (!entry.built()) GTEST_SKIP() << "skipped: " << entry.spec.not_built;
  const auto record = make_synthetic_record(spec(), 0, 0, 0, {}, 2);
  const auto reason = [&](const json& params) { return why_host_only(params, record->view()); };
  EXPECT_NE(reason({{"score", "faithful"}}).find("faithful"), std::string::npos);
  EXPECT_NE(reason({{"preset", "mindie-v2"}, {"score", "fp32"}}).find("ties"), std::string::npos);
  EXPECT_NE(reason({{"budget", "outside"}}).find("outside"), std::string::npos);
  EXPECT_NE(reason({{"selector", "top_p"}}).find("top_p"), std::string::npos);
  const auto f32 = make_synthetic_record(spec("f32"), 0, 0, 0, {}, 2);
  EXPECT_NE(why_host_only(json::object(), f32->view()).find("f32"), std::string::npos);
  EXPECT_THROW(make_method("random", json::object(), {})
                   ->device_planner(record->view(), Device{DeviceKind::cuda, 0}),
               Unsupported);
}

// A record's tensors on the device.
struct OnDevice {
  Device device{DeviceKind::cuda, 0};
  DeviceBuffer q, k;
  TensorView q_view, k_view;

  explicit OnDevice(const RecordView& record)
      : q(copy(record.q)),
        k(copy(record.k)),
        q_view(view(record.q, q)),
        k_view(view(record.k, k)) {}

  DeviceBuffer copy(const TensorView& x) const {
    std::vector<char> bytes(static_cast<std::size_t>(x.heads * x.tokens * x.head_dim) *
                            size_of(x.dtype));
    const auto row = static_cast<std::size_t>(x.head_dim) * size_of(x.dtype);
    for (std::int64_t h = 0; h < x.heads; ++h) {
      for (std::int64_t n = 0; n < x.tokens; ++n) {
        std::memcpy(bytes.data() + static_cast<std::size_t>(h * x.tokens + n) * row, x.row(h, n),
                    row);
      }
    }
    return to_device(device, bytes);
  }
  TensorView view(const TensorView& x, const DeviceBuffer& buffer) const {
    return contiguous_view(buffer.data(), x.dtype, x.heads, x.tokens, x.head_dim, device);
  }
};

class DeviceRecipeOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (list_cuda_devices(&why).empty()) GTEST_SKIP() << "skipped: no CUDA device (" << why << ")";
  }
  static void expect_same(const json& params, const RecordView& record) {
    const auto decides = method(params);
    State state;
    const Plan host = decides->plan(record, state);
    const OnDevice tensors(record);
    const auto planner = decides->device_planner(record, tensors.device);
    for (int i = 0; i < 2; ++i) {
      planner->plan(tensors.q_view, tensors.k_view);
      const Plan device = planner->fetch();
      check_plan(device, record.key_valid);
      ASSERT_EQ(host.lists.row_offsets, device.lists.row_offsets) << params;
      ASSERT_EQ(host.lists.columns, device.lists.columns) << params;
      ASSERT_EQ(host.q_blocks.offsets, device.q_blocks.offsets);
      ASSERT_EQ(host.q_order.index, device.q_order.index);
    }
  }
};

TEST_F(DeviceRecipeOnGpu, EqualsTheHostsPlan) {
  for (const char* dtype : {"bf16", "f16"}) {
    for (const int head_dim : {64, 80, 128}) {
      const auto record = make_synthetic_record(spec(dtype, head_dim), 0, 0, 0, {}, 2);
      for (const char* order : {"raster", "frame_window", "gilbert"}) {
        for (const char* sink : {"none", "cols", "both"}) {
          for (const double density : {0.45, 0.6, 1.0}) {
            for (const int block : {64, 128}) {
              expect_same(
                  {{"order", order}, {"sink", sink}, {"density", density}, {"block", block}},
                  record->view());
            }
          }
        }
      }
    }
  }
}

TEST_F(DeviceRecipeOnGpu, WithKeysRuledOut) {
  const auto record = make_synthetic_record(spec(), 0, 0, 0, {}, 2);
  RecordView view = record->view();
  std::vector<std::uint8_t> valid(static_cast<std::size_t>(view.tokens()), 1);
  for (std::size_t i = 400; i < 470; ++i) valid[i] = 0;
  view.key_valid = valid.data();
  expect_same({{"sink", "cols"}, {"density", 0.5}}, view);
}

// All scores equal: the lowest indices win; NaN ranks last.
TEST_F(DeviceRecipeOnGpu, TiesAndNaN) {
  auto record = make_synthetic_record(spec(), 0, 0, 0, {}, 2);
  RecordView view = record->view();
  const auto elements = static_cast<std::size_t>(view.heads() * view.tokens() * view.head_dim());
  std::vector<std::uint16_t> ones(elements, 0x3f80);
  std::vector<std::uint16_t> keys = ones;
  const auto head = static_cast<std::size_t>(view.tokens() * view.head_dim());
  for (std::size_t i = 0; i < 64 * 300; ++i) keys[head + i] = 0x7fc0;  // NaN at the start of head 1
  for (std::size_t i = 0; i < head; ++i) keys[2 * head + i] = 0x8000;  // -0
  view.q = contiguous_view(ones.data(), DType::bf16, view.heads(), view.tokens(), view.head_dim());
  view.k = contiguous_view(keys.data(), DType::bf16, view.heads(), view.tokens(), view.head_dim());
  expect_same({{"sink", "none"}, {"order", "raster"}, {"density", 0.3}}, view);
}

TEST_F(DeviceRecipeOnGpu, RefusesOtherShapes) {
  const auto record = make_synthetic_record(spec(), 0, 0, 0, {}, 2);
  const OnDevice tensors(record->view());
  const auto planner =
      method({{"density", 0.5}, {"sink", "none"}})->device_planner(record->view(), tensors.device);
  TensorView fewer = tensors.q_view.slice_heads(0, 2);
  EXPECT_THROW(planner->plan(fewer, tensors.k_view), Error);
}

}  // namespace
}  // namespace raingauge
