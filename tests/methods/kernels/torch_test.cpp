// SPDX-License-Identifier: Apache-2.0
// The kernels made of libtorch's operators: what they say of themselves, and their edges. The contract
// that they share with all kernels is in registry_test.cpp.
#include <gtest/gtest.h>

#include "data/error.h"
#include "methods/kernels/conformance.h"
#include "methods/kernels/registry.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;

class TorchKernels : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const KernelEntry& entry = find_kernel(GetParam());
    if (!entry.built()) GTEST_SKIP() << "skipped: " << entry.spec.not_built;
  }
};

TEST_P(TorchKernels, DenseUnderAnyOrderAndLayout) {
  std::mt19937 engine(1);
  Tensors tensors(DType::bf16, 2, 300, 64, Tensors::Form::interleaved);
  tensors.randomise(engine);
  const Plan plan = random_plan(
      2, 300, 32, {.orders = true, .per_head = true, .ragged = true, .keep = 1.0}, engine);
  const auto kernel = find_kernel(GetParam()).make({.threads = 2, .isa = ""});
  ASSERT_FALSE(kernel->supports(plan, tensors.inputs).has_value());
  Outputs outputs(2, 300, 64);
  AttendOutputs view = outputs.view();
  if (!kernel->gives_lse()) view.lse = nullptr;
  const auto prepared = kernel->prepare(plan, tensors.inputs);
  EXPECT_EQ(prepared->density_tiles(), 1.0);
  kernel->attend(*prepared, tensors.inputs, view);
  const Conformance verdict =
      check_conformance(kernel->spec(), plan, tensors.inputs, view, {.blocks = 100});
  EXPECT_TRUE(verdict.ok) << verdict.reason;
}

TEST_P(TorchKernels, NoValidKeyAtAllGivesZeros) {
  std::mt19937 engine(2);
  Tensors tensors(DType::f32, 1, 40, 16);
  tensors.randomise(engine);
  const std::vector<std::uint8_t> none(40, 0);
  tensors.inputs.key_valid = none.data();
  const Plan plan = dense_plan(1, 40, 16);
  const auto kernel = find_kernel(GetParam()).make();
  Outputs outputs(1, 40, 16);
  kernel->attend(*kernel->prepare(plan, tensors.inputs), tensors.inputs, outputs.view());
  for (const float value : outputs.o) ASSERT_EQ(value, 0.0F);
}

TEST_P(TorchKernels, RefusesAnotherKernelsPlan) {
  Tensors tensors(DType::f32, 1, 40, 16);
  tensors.fill(0, 0.0F);
  const Plan plan = dense_plan(1, 40, 16);
  const auto reference = find_kernel("reference").make();
  const auto prepared = reference->prepare(plan, tensors.inputs);
  Outputs outputs(1, 40, 16);
  const auto kernel = find_kernel(GetParam()).make();
  EXPECT_THROW(kernel->attend(*prepared, tensors.inputs, outputs.view()), Error);
}

INSTANTIATE_TEST_SUITE_P(Registry, TorchKernels, ::testing::Values("torch_sdpa", "torch_chunked"));

TEST(TorchSdpa, NamesItsBackend) {
  const KernelEntry& entry = find_kernel("torch_sdpa");
  if (!entry.built()) GTEST_SKIP() << "skipped: " << entry.spec.not_built;
  std::mt19937 engine(3);
  Tensors tensors(DType::bf16, 2, 256, 64);
  tensors.randomise(engine);
  const Plan plan = dense_plan(2, 256, 64);
  const auto kernel = entry.make();
  Outputs outputs(2, 256, 64);
  kernel->attend(*kernel->prepare(plan, tensors.inputs), tensors.inputs,
                 {outputs.o.data(), nullptr});
  EXPECT_TRUE(kernel->detail() == "flash" || kernel->detail() == "math") << kernel->detail();
}

// What torch's bf16 scores cost: a kernel that declares them gets the wider tolerance, others do not.
TEST(TorchChunked, DeclaresThatItRoundsScores) {
  EXPECT_TRUE(find_kernel("torch_chunked").spec.rounds_scores);
  EXPECT_FALSE(find_kernel("torch_sdpa").spec.rounds_scores);
}

}  // namespace
}  // namespace raingauge
