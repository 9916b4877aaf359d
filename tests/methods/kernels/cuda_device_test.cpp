// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels on a device, beyond the contract of every kernel: what must not change when what is
// not selected changes, what may not depend on chance, what NaN may reach, sizes and strides, the exact
// oracle. All of it needs a GPU and says so elsewhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#ifdef RAINGAUGE_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

#include "data/error.h"
#include "methods/kernels/conformance.h"
#include "methods/kernels/cuda_mass.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;

class CudaDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    const KernelEntry& entry = find_kernel("cuda");
    if (!entry.built()) GTEST_SKIP() << "skipped: " << entry.spec.not_built;
    if (list_cuda_devices().empty()) GTEST_SKIP() << "skipped: no CUDA device";
    seed = std::random_device{}();
    engine.seed(seed);
    RecordProperty("seed", std::to_string(seed));
  }

  // The inputs in device memory, with the host's strides.
  AttendInputs upload(Tensors& tensors) {
    AttendInputs inputs = tensors.inputs;
    TensorView* views[] = {&inputs.q, &inputs.k, &inputs.v};
    copies.clear();
    for (int t = 0; t < 3; ++t) {
      const auto lead = static_cast<char*>(tensors.aligned(t)) - tensors.raw[t].data();
      copies.emplace_back(device, tensors.raw[t].size());
      copies.back().copy_from_host(tensors.raw[t].data() + lead, tensors.raw[t].size() - at(lead));
      const auto offset = static_cast<const char*>(views[t]->data) - tensors.raw[t].data() - lead;
      views[t]->data = copies.back().as<char>() + offset;
      views[t]->device = device;
    }
    return inputs;
  }

  // Output and LSE, with canaries behind both.
  Outputs attend(Tensors& tensors, const Plan& plan) {
    constexpr std::size_t kCanaries = 64;
    const AttendInputs inputs = upload(tensors);
    Outputs outputs(tensors.h, tensors.n, tensors.d);
    const std::size_t o_size = outputs.o.size();
    const std::size_t lse_size = outputs.lse.size();
    outputs.o.resize(o_size + kCanaries, Outputs::kUnwritten);
    outputs.lse.resize(lse_size + kCanaries, Outputs::kUnwritten);
    DeviceBuffer o = to_device(device, outputs.o);
    DeviceBuffer lse = to_device(device, outputs.lse);
    const auto kernel = find_kernel("cuda").make();
    kernel->attend(*kernel->prepare(plan, inputs), inputs, {o.as<float>(), lse.as<float>()});
    kernel->synchronize();
    o.copy_to_host(outputs.o.data(), o.bytes());
    lse.copy_to_host(outputs.lse.data(), lse.bytes());
    for (std::size_t i = 0; i < kCanaries; ++i) {
      EXPECT_EQ(outputs.o[o_size + i], Outputs::kUnwritten);
      EXPECT_EQ(outputs.lse[lse_size + i], Outputs::kUnwritten);
    }
    outputs.o.resize(o_size);
    outputs.lse.resize(lse_size);
    return outputs;
  }

  void expect_conforms(Tensors& tensors, const Plan& plan) {
    Outputs outputs = attend(tensors, plan);
    const Conformance verdict =
        check_conformance(find_kernel("cuda").spec, plan, tensors.inputs, outputs.view());
    EXPECT_TRUE(verdict.ok) << "seed " << seed << ": " << verdict.reason;
  }

  Device device{DeviceKind::cuda, 0};
  unsigned seed = 0;
  std::mt19937 engine;
  std::vector<DeviceBuffer> copies;
};

int current_device() {
  int index = -1;
#ifdef RAINGAUGE_WITH_CUDA
  cudaGetDevice(&index);
#endif
  return index;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_F(CudaDevice, EveryRaggedLength) {
  for (const std::int64_t tokens : {1, 7, 63, 64, 65, 127, 128, 129, 255, 1000}) {
    for (const int block : {64, 128}) {
      SCOPED_TRACE(std::to_string(tokens) + " tokens, blocks of " + std::to_string(block));
      Tensors tensors(DType::bf16, 3, tokens, 128, Tensors::Form::interleaved);
      tensors.randomise(engine);
      expect_conforms(tensors, dense_plan(3, tokens, block));
      expect_conforms(tensors, random_plan(3, tokens, block, {.keep = 0.4}, engine));
    }
  }
}

// They take a kernel of their own: no lists, 192 query rows an item.
TEST_F(CudaDevice, DensePlansOfHeadDim64) {
  for (const std::int64_t tokens : {1, 63, 65, 128, 191, 192, 193, 400, 1000}) {
    for (const int block : {48, 64, 128, 300}) {
      SCOPED_TRACE(std::to_string(tokens) + " tokens, blocks of " + std::to_string(block));
      Tensors tensors(block == 128 ? DType::f16 : DType::bf16, 3, tokens, 64,
                      Tensors::Form::interleaved);
      tensors.randomise(engine);
      expect_conforms(tensors, dense_plan(3, tokens, block));
      const PlanForm form{.orders = true, .per_head = tokens % 2 == 0, .ragged = true, .keep = 1.0};
      expect_conforms(tensors, random_plan(3, tokens, block, form, engine));
      std::vector<std::uint8_t> valid(at(tokens), 1);
      for (std::size_t i = 0; i < valid.size(); ++i) valid[i] = i > 140 && engine() % 3 != 0;
      tensors.inputs.key_valid = valid.data();
      expect_conforms(tensors, dense_plan(3, tokens, block));
    }
  }
}

// sm_90: head_dims between the kernels' own, with whatever stands behind a row left alone.
TEST_F(CudaDevice, EveryHeadDim) {
  for (std::int64_t dim = 8; dim <= 128; dim += 8) {
    SCOPED_TRACE("head_dim " + std::to_string(dim));
    for (const Tensors::Form form : {Tensors::Form::contiguous, Tensors::Form::interleaved}) {
      Tensors tensors(dim % 16 == 0 ? DType::bf16 : DType::f16, 2, 333, dim, form);
      tensors.randomise(engine);
      const auto kernel = find_kernel("cuda").make();
      const Plan dense = dense_plan(2, 333, 128);
      if (const Support reason = kernel->supports(dense, upload(tensors))) {
        EXPECT_NE(list_cuda_devices()[0].major, 9) << *reason;
        EXPECT_NE(reason->find("head_dim"), std::string::npos) << *reason;
        EXPECT_THROW(kernel->prepare(dense, upload(tensors)), Unsupported);
        continue;
      }
      expect_conforms(tensors, dense);
      expect_conforms(tensors, random_plan(2, 333, 64, {.keep = 0.4, .empty_lists = true}, engine));
      const PlanForm orders{.orders = true, .per_head = true, .ragged = true, .keep = 0.4};
      expect_conforms(tensors, random_plan(2, 333, 100, orders, engine));
    }
  }
}

TEST_F(CudaDevice, ScaleZeroAndNegative) {
  for (const std::int64_t dim : {64, 128}) {
    for (const float scale : {0.0F, -0.02F, -1.0F}) {
      SCOPED_TRACE("head_dim " + std::to_string(dim) + " scale " + std::to_string(scale));
      Tensors tensors(DType::bf16, 2, 517, dim);
      tensors.randomise(engine);
      tensors.inputs.scale = scale;
      expect_conforms(tensors, dense_plan(2, 517, 128));
      expect_conforms(tensors, random_plan(2, 517, 64, {.orders = true, .keep = 0.4}, engine));
    }
  }
}

// Host memory, a device that is not there, inputs of another shape: an error, and the kernel goes on.
TEST_F(CudaDevice, WrongMemoryIsRefused) {
  Tensors tensors(DType::bf16, 2, 300, 64);
  tensors.randomise(engine);
  const Plan plan = dense_plan(2, 300, 128);
  const auto kernel = find_kernel("cuda").make();
  EXPECT_THROW(kernel->prepare(plan, tensors.inputs), Unsupported);
  const AttendInputs right = upload(tensors);
  AttendInputs absent = right;
  AttendInputs mixed = right;
  for (TensorView* view : {&absent.q, &absent.k, &absent.v}) view->device.index = 99;
  EXPECT_THROW(kernel->prepare(plan, absent), Unsupported);
  mixed.k = tensors.inputs.k;
  EXPECT_THROW(kernel->prepare(plan, mixed), Error);
  const auto prepared = kernel->prepare(plan, right);
  DeviceBuffer o(device, at(2 * 300 * 64) * sizeof(float));
  AttendInputs shorter = right;
  for (TensorView* view : {&shorter.q, &shorter.k, &shorter.v}) view->tokens = 299;
  EXPECT_THROW(kernel->attend(*prepared, shorter, {o.as<float>(), nullptr}), Error);
  EXPECT_THROW(kernel->attend(*prepared, tensors.inputs, {o.as<float>(), nullptr}), Error);
  expect_conforms(tensors, plan);
}

// Whatever device is the current one, a kernel works on that of its inputs and leaves the choice as it was.
TEST_F(CudaDevice, AnotherCurrentDevice) {
  if (list_cuda_devices().size() < 2) GTEST_SKIP() << "skipped: one CUDA device only";
  for (const int mine : {0, 1}) {
    device = {DeviceKind::cuda, mine};
    const DeviceGuard other(Device{DeviceKind::cuda, 1 - mine});
    Tensors tensors(DType::bf16, 2, 700, mine == 0 ? 64 : 128);
    tensors.randomise(engine);
    expect_conforms(tensors, dense_plan(2, 700, 128));
    expect_conforms(tensors, random_plan(2, 700, 100, {.orders = true, .keep = 0.4}, engine));
    EXPECT_EQ(current_device(), 1 - mine);
  }
}

TEST_F(CudaDevice, RandomShapesOneAfterAnother) {
  for (int trial = 0; trial < 60; ++trial) {
    const auto tokens = static_cast<std::int64_t>(1 + engine() % 900);
    const auto heads = static_cast<std::int64_t>(1 + engine() % 4);
    const std::int64_t dim = engine() % 2 == 0 ? 64 : 128;
    const int block = static_cast<int>(1 + engine() % 160);
    SCOPED_TRACE("seed " + std::to_string(seed) + " trial " + std::to_string(trial));
    Tensors tensors(engine() % 2 == 0 ? DType::bf16 : DType::f16, heads, tokens, dim,
                    static_cast<Tensors::Form>(engine() % 3));
    tensors.randomise(engine);
    const PlanForm form{.orders = engine() % 2 == 0,
                        .per_head = engine() % 3 == 0,
                        .ragged = engine() % 2 == 0,
                        .empty_blocks = engine() % 3 == 0,
                        .keep = 0.3};
    expect_conforms(tensors, random_plan(heads, tokens, block, form, engine));
  }
}

// Rows whose maximum grows in every block, and rows with one outlier.
TEST_F(CudaDevice, GrowingAndPeakedRows) {
  for (const std::int64_t dim : {64, 128}) {
    Tensors tensors(DType::bf16, 2, 1500, dim);
    tensors.randomise(engine);
    for (std::int64_t k = 0; k < tensors.n; ++k) {
      std::vector<float> row = tensors.get(1, 0, k);
      for (float& value : row) value *= 0.02F + 10.0F * static_cast<float>(k) / 1500.0F;
      tensors.set(1, 0, k, row);
    }
    for (const std::int64_t k : {3, 700, 1499}) {
      std::vector<float> row = tensors.get(1, 1, k);
      for (float& value : row) value *= 60.0F;
      tensors.set(1, 1, k, row);
    }
    expect_conforms(tensors, random_plan(2, 1500, 128, {.keep = 0.6}, engine));
    expect_conforms(tensors, dense_plan(2, 1500, 128));
  }
}

// All values equal, tails heavier than any activation's, logits of ten thousand.
TEST_F(CudaDevice, ConstantHeavyTailedAndLargeInputs) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int64_t dim : {64, 128}) {
      Tensors tensors(dtype, 2, 900, dim);
      const auto fill = [&](const auto& value) {
        for (int t = 0; t < 3; ++t) {
          for (std::int64_t h = 0; h < 2; ++h) {
            for (std::int64_t n = 0; n < tensors.n; ++n) {
              std::vector<float> row(at(dim));
              for (float& x : row) x = value(t);
              tensors.set(t, h, n, row);
            }
          }
        }
        expect_conforms(tensors, random_plan(2, 900, 128, {.keep = 0.5}, engine));
      };
      std::normal_distribution<float> normal;
      fill([](int) { return 0.5F; });
      fill([&](int) {
        return std::clamp(normal(engine) / std::max(std::abs(normal(engine)), 1e-3F), -40.0F,
                          40.0F);
      });
      fill([&](int t) { return t == 2 ? normal(engine) : 60.0F * normal(engine); });
    }
  }
}

TEST_F(CudaDevice, WhatIsNotSelectedIsNotRead) {
  for (const int block : {64, 128}) {
    Tensors tensors(DType::bf16, 2, 1111, 128, Tensors::Form::interleaved);
    tensors.randomise(engine);
    const Plan plan = random_plan(2, 1111, block, {.keep = 0.25}, engine);
    const Outputs before = attend(tensors, plan);
    const std::vector<char> sees = visibility(plan, nullptr);
    const std::vector<float> nans(at(tensors.d), std::numeric_limits<float>::quiet_NaN());
    // In turn, what one query block of a head does not see is poisoned.
    const std::int64_t q = 300;
    for (std::int64_t h = 0; h < 2; ++h) {
      for (std::int64_t k = 0; k < tensors.n; ++k) {
        if (sees[at((h * tensors.n + q) * tensors.n + k)] != 0) continue;
        tensors.set(1, h, k, nans);
        tensors.set(2, h, k, nans);
      }
    }
    const Outputs after = attend(tensors, plan);
    const std::int64_t first = q / block * block;
    for (std::int64_t h = 0; h < 2; ++h) {
      for (std::int64_t row = first; row < first + block; ++row) {
        const auto offset = at((h * tensors.n + row) * tensors.d);
        ASSERT_EQ(0, std::memcmp(before.o.data() + offset, after.o.data() + offset,
                                 at(tensors.d) * sizeof(float)))
            << "head " << h << " row " << row;
        ASSERT_EQ(before.lse[at(h * tensors.n + row)], after.lse[at(h * tensors.n + row)]);
      }
    }
  }
}

TEST_F(CudaDevice, SameInputsSameBits) {
  Tensors tensors(DType::bf16, 5, 3000, 64);
  tensors.randomise(engine);
  const Plan plan = random_plan(5, 3000, 128, {.orders = true, .keep = 0.3}, engine);
  const Outputs first = attend(tensors, plan);
  for (int i = 0; i < 10; ++i) {
    const Outputs again = attend(tensors, plan);
    ASSERT_TRUE(same_bits(first.o, again.o) && same_bits(first.lse, again.lse));
  }
}

TEST_F(CudaDevice, NaNReachesTheRowsThatMeetIt) {
  Tensors tensors(DType::bf16, 1, 600, 128);
  tensors.randomise(engine);
  const Plan plan = random_plan(1, 600, 128, {.keep = 0.5}, engine);
  const std::vector<char> sees = visibility(plan, nullptr);
  const std::vector<float> nans(at(tensors.d), std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> q_row = tensors.get(0, 0, 77);
  tensors.set(0, 0, 77, nans);
  const Outputs by_q = attend(tensors, plan);
  tensors.set(0, 0, 77, q_row);
  tensors.set(1, 0, 300, nans);
  const Outputs by_k = attend(tensors, plan);
  for (std::int64_t q = 0; q < tensors.n; ++q) {
    const bool meets = sees[at(q * tensors.n + 300)] != 0;
    bool q_finite = true;
    bool k_finite = true;
    for (std::int64_t d = 0; d < tensors.d; ++d) {
      q_finite = q_finite && std::isfinite(by_q.o[at(q * tensors.d + d)]);
      k_finite = k_finite && std::isfinite(by_k.o[at(q * tensors.d + d)]);
    }
    ASSERT_EQ(q_finite, q != 77) << q;
    ASSERT_EQ(k_finite, !meets) << q;
  }
}

TEST_F(CudaDevice, InfInAValueReachesTheRowsThatMeetIt) {
  for (const std::int64_t dim : {64, 128}) {
    Tensors tensors(DType::bf16, 1, 600, dim);
    tensors.randomise(engine);
    const Plan plan = random_plan(1, 600, 128, {.keep = 0.5}, engine);
    const std::vector<char> sees = visibility(plan, nullptr);
    std::vector<float> row = tensors.get(2, 0, 300);
    row[5] = std::numeric_limits<float>::infinity();
    tensors.set(2, 0, 300, row);
    const Outputs outputs = attend(tensors, plan);
    for (std::int64_t q = 0; q < tensors.n; ++q) {
      for (std::int64_t d = 0; d < dim; ++d) {
        const bool meets = d == 5 && sees[at(q * tensors.n + 300)] != 0;
        ASSERT_EQ(std::isfinite(outputs.o[at(q * dim + d)]), !meets) << q << ' ' << d;
      }
    }
  }
}

// The oracle against float64 softmax, block by block.
TEST_F(CudaDevice, BlockMassIsTheSoftmaxMass) {
  for (const int block : {64, 128, 200}) {
    for (const bool masked : {false, true}) {
      const std::int64_t dim = block == 128 ? 128 : (block == 64 ? 64 : 80);
      Tensors tensors(block == 200 ? DType::f16 : DType::bf16, 2, 777, dim);
      tensors.randomise(engine, 1.5F);
      const Plan plan = random_plan(2, 777, block, {.orders = masked}, engine);
      std::vector<std::uint8_t> valid(777, 1);
      for (std::size_t i = 0; masked && i < valid.size(); i += 5) valid[i] = 0;
      const AttendInputs inputs = upload(tensors);
      const std::uint8_t* key_valid = masked ? valid.data() : nullptr;
      if (const Support reason = device_mass_supports(inputs.q, inputs.k, plan, inputs.scale)) {
        GTEST_SKIP() << "skipped: " << *reason;
      }
      // One head at a time, and all at once.
      const DeviceMass mass = device_block_mass(inputs.q, inputs.k, plan, key_valid, inputs.scale,
                                                masked ? 1 : std::int64_t{1} << 30);
      tensors.inputs.key_valid = key_valid;
      const Exact exact = exact_attention(tensors, dense_plan(2, 777, 128));
      for (std::int64_t h = 0; h < 2; ++h) {
        for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
          std::vector<double> expected(at(plan.k_blocks.blocks), 0.0);
          double rows = 0.0;
          for (auto x = plan.q_blocks.begin(h, i); x < plan.q_blocks.end(h, i); ++x) {
            const std::int64_t q = plan.q_order.token(h, x);
            ASSERT_NEAR(mass.lse[at(h * 777 + q)], exact.lse[at(h * 777 + q)], 1e-4);
            if (valid[at(q)] == 0) continue;
            rows += 1.0;
            const std::vector<float> query = tensors.get(0, h, q);
            for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
              for (auto y = plan.k_blocks.begin(h, j); y < plan.k_blocks.end(h, j); ++y) {
                const std::int64_t k = plan.k_order.token(h, y);
                if (valid[at(k)] == 0) continue;
                const std::vector<float> key = tensors.get(1, h, k);
                double score = 0.0;
                for (std::int64_t d = 0; d < dim; ++d) {
                  score += double{query[at(d)]} * double{key[at(d)]};
                }
                expected[at(j)] +=
                    std::exp(score * double{inputs.scale} - exact.lse[at(h * 777 + q)]);
              }
            }
          }
          for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
            const float got =
                mass.mass[at((h * plan.q_blocks.blocks + i) * plan.k_blocks.blocks + j)];
            ASSERT_NEAR(got, rows == 0.0 ? 0.0 : expected[at(j)] / rows, 1e-5)
                << "seed " << seed << " head " << h << " blocks " << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST_F(CudaDevice, BlockMassRefusesWhatIsNotFinite) {
  Tensors tensors(DType::bf16, 1, 300, 64);
  tensors.randomise(engine);
  std::vector<float> row = tensors.get(1, 0, 40);
  row[3] = std::numeric_limits<float>::quiet_NaN();
  tensors.set(1, 0, 40, row);
  const AttendInputs inputs = upload(tensors);
  const Plan plan = dense_plan(1, 300, 128);
  if (const Support reason = device_mass_supports(inputs.q, inputs.k, plan, inputs.scale)) {
    GTEST_SKIP() << "skipped: " << *reason;
  }
  EXPECT_THROW(device_block_mass(inputs.q, inputs.k, plan, nullptr, inputs.scale), NotFinite);
}

// Time that the host needs between launches is no time of the device, as long as the device is kept busy.
TEST_F(CudaDevice, ATimerSeesWhetherLaunchesAreHidden) {
  DeviceTimer timer(device);
  const auto slow_launch = [&](int milliseconds) {
    timer.start();
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    timer.mark();
    return timer.finish().at(0);
  };
  timer.start();
  timer.mark();
  EXPECT_LT(timer.finish().at(0), 1.0);
  EXPECT_TRUE(timer.launch_hidden());
  double last = slow_launch(6);
  EXPECT_FALSE(timer.launch_hidden());
  EXPECT_GT(last, 1.0);  // the sleep, less the first flush
  for (int i = 0; i < 5 && !timer.launch_hidden(); ++i) last = slow_launch(6);
  EXPECT_TRUE(timer.launch_hidden());
  EXPECT_LT(last, 1.0);
}

// What the kernel does not cover it does not take from a device's lists either.
TEST_F(CudaDevice, TakesNoListsForInputsItDoesNotCover) {
  for (const auto& [dtype, dim] : {std::pair{DType::f32, 64}, {DType::bf16, 136}}) {
    Tensors tensors(dtype, 2, 300, dim);
    tensors.randomise(engine);
    const AttendInputs inputs = upload(tensors);
    const auto planner = make_fixed_planner(dense_plan(2, 300, 128), device);
    EXPECT_FALSE(find_kernel("cuda").make()->takes_device_lists(planner->frame(), inputs));
  }
}

// Lists of a plan, kept on the device, give what the host's lists give.
TEST_F(CudaDevice, KeptListsGiveTheSameBits) {
  for (const std::int64_t dim : {std::int64_t{128}, std::int64_t{80}}) {
    Tensors tensors(DType::bf16, 3, 1000, dim);
    tensors.randomise(engine);
    const AttendInputs inputs = upload(tensors);
    const auto kernel = find_kernel("cuda").make();
    for (const Plan& plan : {dense_plan(3, 1000, 128),
                             random_plan(3, 1000, 128, {.orders = true, .keep = 0.4}, engine)}) {
      const auto planner = make_fixed_planner(plan, device);
      if (!kernel->takes_device_lists(planner->frame(), inputs)) {
        GTEST_SKIP() << "skipped: the kernel of this device takes no lists on the device";
      }
      DeviceBuffer o(device, at(3 * 1000 * dim) * sizeof(float));
      const auto run = [&](const Prepared& prepared) {
        kernel->attend(prepared, inputs, {o.as<float>(), nullptr});
        kernel->synchronize();
        std::vector<float> host(at(3 * 1000 * dim));
        o.copy_to_host(host.data(), o.bytes());
        return host;
      };
      const auto kept = run(*kernel->prepare_on_device(planner->frame(), planner->lists(), inputs));
      EXPECT_EQ(kept, run(*kernel->prepare(plan, inputs)));
      const auto timed = kernel->open_run(plan, inputs, {o.as<float>(), nullptr}, planner.get());
      const PhaseSample sample = timed->sample();
      EXPECT_TRUE(std::isnan(sample.plan));
      EXPECT_GT(sample.attend, 0.0);
      EXPECT_EQ(timed->plans_on(), "");
    }
  }
}

}  // namespace
}  // namespace raingauge
