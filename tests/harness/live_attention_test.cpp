// SPDX-License-Identifier: Apache-2.0
// Live attention on a GPU against the same arm on the host: calls whose segments change back and forth,
// calls with keys ruled out between them. Needs a GPU and says so elsewhere.
#include "harness/live_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "data/dtype.h"
#include "data/synthetic.h"
#include "methods/kernels/device.h"

namespace raingauge {
namespace {

constexpr Device kGpu{DeviceKind::cuda, 0};

SyntheticSpec clip(int text_tokens, int frames, int head_dim = 64) {
  SyntheticSpec spec;
  spec.frames = frames;
  spec.height = 18;
  spec.width = 22;
  spec.text_tokens = text_tokens;
  spec.text_first = 0;
  spec.heads = 3;
  spec.head_dim = head_dim;
  spec.dtype = "bf16";
  spec.seed = 5;
  return spec;
}

std::size_t elements(const TensorView& x) {
  return static_cast<std::size_t>(x.heads * x.tokens * x.head_dim);
}

struct Arms {
  Arms(const std::string& text)
      : host(parse_arm(text), "reference", {}, "clip", {}, 2),
        device(parse_arm(text), "cuda", {}, "clip", kGpu, 2) {}
  LiveAttention host, device;
};

// One call on both sides; outputs must agree as far as bf16 weights allow.
void expect_same(Arms& arms, const SyntheticSpec& spec, int layer,
                 const std::vector<std::uint8_t>* valid) {
  const auto record = make_synthetic_record(spec, 0, 0, 0, {}, 2);
  const RecordView view = record->view();
  LiveCall call;
  call.site.layer = layer;
  call.scale = view.info->scale;
  call.key_valid = valid == nullptr ? nullptr : valid->data();
  std::vector<float> expected(elements(view.q), std::numeric_limits<float>::quiet_NaN());
  call.q = view.q, call.k = view.k, call.v = view.v;
  call.o = expected.data();
  arms.host.attend(call, view.info->segments);

  std::vector<DeviceBuffer> buffers;
  const auto upload = [&](const TensorView& x) {
    buffers.emplace_back(kGpu, elements(x) * size_of(x.dtype));
    buffers.back().copy_from_host(x.data, buffers.back().bytes());
    return contiguous_view(buffers.back().data(), x.dtype, x.heads, x.tokens, x.head_dim, kGpu);
  };
  call.q = upload(view.q), call.k = upload(view.k), call.v = upload(view.v);
  std::vector<float> got(expected.size(), std::numeric_limits<float>::quiet_NaN());
  DeviceBuffer o = to_device(kGpu, got);
  call.o = o.as<float>();
  arms.device.attend(call, view.info->segments);
  o.copy_to_host(got.data(), o.bytes());
  double error = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += std::pow(double{got[i]} - double{expected[i]}, 2);
    norm += std::pow(double{expected[i]}, 2);
  }
  ASSERT_LE(std::sqrt(error / norm), 6e-3);
  ASSERT_DOUBLE_EQ(arms.host.density(), arms.device.density());
}

class LiveAttentionOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (list_cuda_devices().empty()) GTEST_SKIP() << "skipped: no CUDA device";
  }
};

TEST_F(LiveAttentionOnGpu, SegmentsChangeBackAndForth) {
  Arms arms("{method: rainfusion2, density: 0.5, sink: cols}");
  const SyntheticSpec specs[] = {clip(37, 4), clip(20, 4), clip(37, 4), clip(0, 5), clip(20, 4)};
  for (int i = 0; i < 5; ++i) {
    SCOPED_TRACE(i);
    expect_same(arms, specs[i], i, nullptr);
  }
  EXPECT_EQ(arms.device.calls_planned_on_device(), 5);
  EXPECT_EQ(arms.host.calls_planned_on_device(), 0);
}

// The kernel's own sizes are 64 and 128; plan, moved keys and attention of the sizes beside them.
TEST_F(LiveAttentionOnGpu, HeadDimsBetweenTheKernelsOwn) {
  for (const int head_dim : {40, 80, 112}) {
    SCOPED_TRACE(head_dim);
    Arms arms("{method: rainfusion2, density: 0.5, sink: cols}");
    expect_same(arms, clip(37, 4, head_dim), 0, nullptr);
    expect_same(arms, clip(20, 4, head_dim), 1, nullptr);
  }
}

// A mask sends the call to the host's planner and leaves the device's plans as they were.
TEST_F(LiveAttentionOnGpu, KeysRuledOutBetweenPlansOfTheDevice) {
  Arms arms("{method: rainfusion2, density: 0.5, sink: none}");
  const SyntheticSpec spec = clip(37, 4);
  std::vector<std::uint8_t> valid(18 * 22 * 4 + 37, 1);
  for (std::size_t i = valid.size() - 20; i < valid.size(); ++i) valid[i] = 0;
  expect_same(arms, spec, 0, nullptr);
  expect_same(arms, spec, 1, &valid);
  expect_same(arms, spec, 2, nullptr);
  valid[3] = 0;
  expect_same(arms, spec, 3, &valid);
  expect_same(arms, spec, 4, nullptr);
  EXPECT_EQ(arms.device.calls_planned_on_device(), 3);
}

}  // namespace
}  // namespace raingauge
