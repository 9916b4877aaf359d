// SPDX-License-Identifier: Apache-2.0
// Does every kernel of the registry keep the contract of methods/kernels/kernel.h?
#include "tests/methods/kernels/contract.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "data/error.h"
#include "methods/kernels/conformance.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace testing_kernels {
namespace {

using Form = Tensors::Form;

// Runs one kernel on one device; inputs and outputs are carried there and back.
class Runner {
 public:
  Runner(const KernelEntry& entry, Device device, int threads = 2)
      : kernel_(entry.make({.threads = threads, .isa = ""})), device_(device) {}

  Kernel& kernel() { return *kernel_; }

  AttendInputs inputs_of(Tensors& tensors) {
    AttendInputs inputs = tensors.inputs;
    TensorView* views[] = {&inputs.q, &inputs.k, &inputs.v};
    for (int t = 0; t < 3; ++t) {
      copies_[t] = to_device(device_, tensors.raw[t]);
      if (device_.kind == DeviceKind::cpu) continue;
      const auto offset = static_cast<const char*>(views[t]->data) - tensors.raw[t].data();
      // The allocation on the device is aligned; keep the view's distance from the aligned start.
      const auto lead = static_cast<char*>(tensors.aligned(t)) - tensors.raw[t].data();
      copies_[t].copy_from_host(tensors.raw[t].data() + lead, tensors.raw[t].size() - at(lead));
      views[t]->data = copies_[t].as<char>() + (offset - lead);
      views[t]->device = device_;
    }
    return inputs;
  }

  Support supports(Tensors& tensors, const Plan& plan) {
    return kernel_->supports(plan, inputs_of(tensors));
  }

  Outputs run(Tensors& tensors, const Plan& plan) {
    const AttendInputs inputs = inputs_of(tensors);
    const auto prepared = kernel_->prepare(plan, inputs);
    EXPECT_GT(prepared->density_tiles(), 0.0);
    Outputs host(tensors.h, tensors.n, tensors.d);
    DeviceBuffer o = to_device(device_, host.o);
    DeviceBuffer lse = to_device(device_, host.lse);
    kernel_->attend(*prepared, inputs,
                    {o.as<float>(), kernel_->gives_lse() ? lse.as<float>() : nullptr});
    kernel_->synchronize();
    o.copy_to_host(host.o.data(), o.bytes());
    lse.copy_to_host(host.lse.data(), lse.bytes());
    return host;
  }

 private:
  std::unique_ptr<Kernel> kernel_;
  Device device_;
  DeviceBuffer copies_[3];
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class Contract {
 public:
  Contract(const KernelEntry& entry, Device device) : entry_(entry), device_(device) {}

  void check() {
    shapes_and_plans();
    ragged_token_counts();
    scales_and_magnitudes();
    unselected_keys_do_not_matter();
    invalid_keys_do_not_matter();
    nan_stays_in_its_rows();
    refuses_what_it_cannot_do();
    EXPECT_GT(runs_, 10) << entry_.spec.name << ": the contract was hardly exercised";
  }

 private:
  std::string where(Tensors& t) const {
    return std::string(entry_.spec.name) + " on " + to_string(device_) + ", " +
           std::string(name_of(t.dtype)) + " [" + std::to_string(t.h) + ", " + std::to_string(t.n) +
           ", " + std::to_string(t.d) + "]";
  }

  Plan plan_for(std::int64_t heads, std::int64_t tokens, int block, const PlanForm& form) {
    if (entry_.spec.dense_only) return dense_plan(heads, tokens, block);
    return random_plan(heads, tokens, block, form, engine_);
  }

  // False when the kernel does not cover the inputs; the reason must be given then.
  bool covers(Tensors& tensors, const Plan& plan) {
    const Support reason = Runner(entry_, device_).supports(tensors, plan);
    if (!reason) return true;
    EXPECT_FALSE(reason->empty()) << where(tensors);
    EXPECT_THROW(Runner(entry_, device_).run(tensors, plan), Unsupported) << where(tensors);
    return false;
  }

  void conforms(Tensors& tensors, const Plan& plan) {
    if (!covers(tensors, plan)) return;
    Runner runner(entry_, device_);
    Outputs got = runner.run(tensors, plan);
    for (const float value : got.o) ASSERT_NE(value, Outputs::kUnwritten) << where(tensors);
    AttendOutputs view = got.view();
    if (!runner.kernel().gives_lse()) view.lse = nullptr;
    const Conformance verdict =
        check_conformance(entry_.spec, plan, tensors.inputs, view, {.blocks = 1 << 20});
    EXPECT_TRUE(verdict.ok) << where(tensors) << ", scale " << tensors.inputs.scale << ": "
                            << verdict.reason;
    EXPECT_EQ(verdict.rows, tensors.h * tensors.n);
    if (!entry_.spec.dense_only) {  // ours: neither a second run nor the threads change a bit
      const Outputs again = Runner(entry_, device_, 1).run(tensors, plan);
      EXPECT_TRUE(same_bits(got.o, again.o) && same_bits(got.lse, again.lse)) << where(tensors);
    }
    ++runs_;
  }

  void shapes_and_plans() {
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      for (const std::int64_t dim : {64, 128, 80}) {
        for (const Form form : {Form::contiguous, Form::interleaved, Form::padded}) {
          Tensors tensors(dtype, 2, 333, dim, form);
          tensors.randomise(engine_);
          conforms(tensors, plan_for(2, 333, 64, {.orders = true}));
        }
      }
      Tensors tensors(dtype, 3, 500, 64, Form::interleaved);
      tensors.randomise(engine_);
      conforms(tensors, plan_for(3, 500, 40,
                                 {.orders = true,
                                  .per_head = true,
                                  .ragged = true,
                                  .empty_blocks = true,
                                  .keep = 0.3}));
      conforms(tensors, plan_for(3, 500, 128, {.ragged = true, .keep = 0.6, .empty_lists = true}));
      conforms(tensors, plan_for(3, 500, 8, {.orders = true, .keep = 0.1}));
      conforms(tensors, dense_plan(3, 500, 128));
    }
  }

  void ragged_token_counts() {
    for (const std::int64_t n : {1, 7, 63, 64, 65, 127, 128, 129, 255, 1000}) {
      Tensors tensors(DType::bf16, 1, n, 64);
      tensors.randomise(engine_);
      conforms(tensors, plan_for(1, n, 128, {.keep = 0.7}));
      conforms(tensors, plan_for(1, n, 64, {.orders = true, .keep = 0.4}));
    }
  }

  void scales_and_magnitudes() {
    for (const float scale : {1.0F, -0.125F, 1e-30F}) {
      Tensors tensors(DType::bf16, 1, 260, 64, Form::contiguous, scale);
      tensors.randomise(engine_);
      conforms(tensors, plan_for(1, 260, 64, {}));
    }
    Tensors sharp(DType::bf16, 1, 260, 64);
    sharp.randomise(engine_,
                    6.0F);  // scores of some hundreds: one key takes all, underflow elsewhere
    conforms(sharp, plan_for(1, 260, 64, {}));
    Tensors growing(DType::bf16, 1, 256, 64);  // the row maximum grows with every key
    growing.randomise(engine_, 0.1F);
    for (std::int64_t x = 0; x < 256; ++x) {
      growing.set(0, 0, x, std::vector<float>(64, 1.0F));
      growing.set(1, 0, x, std::vector<float>(64, static_cast<float>(x) / 64.0F));
    }
    conforms(growing, dense_plan(1, 256, 64));
  }

  // NaN in key blocks that no list names: not one bit of the output may change.
  void unselected_keys_do_not_matter() {
    if (entry_.spec.dense_only) return;
    Tensors tensors(DType::bf16, 2, 400, 64);
    tensors.randomise(engine_);
    Plan plan = plan_for(2, 400, 64, {.orders = true, .keep = 0.6});
    BlockLists thinned = plan.lists;
    thinned.columns.clear();
    thinned.row_offsets = {0};
    for (std::int64_t h = 0; h < 2; ++h) {
      for (std::int64_t b = 0; b < plan.q_blocks.blocks; ++b) {
        for (std::int64_t c = 0; c < plan.lists.count(h, b); ++c) {
          const std::int32_t column = plan.lists.begin(h, b)[c];
          if (column != 2 && column != 5) thinned.columns.push_back(column);
        }
        thinned.row_offsets.push_back(static_cast<std::int64_t>(thinned.columns.size()));
      }
    }
    plan.lists = thinned;
    if (!covers(tensors, plan)) return;
    const Outputs clean = Runner(entry_, device_).run(tensors, plan);
    poison(tensors, plan, 2, std::numeric_limits<float>::quiet_NaN());
    poison(tensors, plan, 5, std::numeric_limits<float>::infinity());
    const Outputs poisoned = Runner(entry_, device_).run(tensors, plan);
    EXPECT_TRUE(same_bits(clean.o, poisoned.o) && same_bits(clean.lse, poisoned.lse))
        << where(tensors) << ": unselected keys changed the output";
    for (const float value : clean.o) ASSERT_TRUE(std::isfinite(value)) << where(tensors);
    ++runs_;
  }

  static void poison(Tensors& tensors, const Plan& plan, std::int64_t block, float value) {
    for (std::int64_t h = 0; h < tensors.h; ++h) {
      for (auto x = plan.k_blocks.begin(h, block); x < plan.k_blocks.end(h, block); ++x) {
        const std::int32_t token = plan.k_order.token(h, x);
        tensors.set(1, h, token, std::vector<float>(at(tensors.d), value));
        tensors.set(2, h, token, std::vector<float>(at(tensors.d), value));
      }
    }
  }

  void invalid_keys_do_not_matter() {
    Tensors tensors(DType::bf16, 2, 300, 64);
    tensors.randomise(engine_);
    std::vector<std::uint8_t> valid(300, 1);
    for (std::size_t x = 0; x < 300; ++x) valid[x] = x % 7 != 0 && x < 280;
    tensors.inputs.key_valid = valid.data();
    const Plan plan = plan_for(2, 300, 64, {.orders = true, .keep = 0.7});
    if (!covers(tensors, plan)) return;
    conforms(tensors, plan);
    const Outputs clean = Runner(entry_, device_).run(tensors, plan);
    const std::vector<float> nan(64, std::numeric_limits<float>::quiet_NaN());
    for (std::int64_t h = 0; h < 2; ++h) {
      for (std::int64_t x = 0; x < 300; ++x) {
        if (valid[at(x)] != 0) continue;
        tensors.set(1, h, x, nan);
        tensors.set(2, h, x, nan);
      }
    }
    const Outputs poisoned = Runner(entry_, device_).run(tensors, plan);
    EXPECT_TRUE(same_bits(clean.o, poisoned.o) && same_bits(clean.lse, poisoned.lse))
        << where(tensors) << ": invalid keys changed the output";
  }

  // NaN in one query: that row alone. NaN in one value: the rows that see it, no other. Not asked of
  // dense library kernels: some matrix products spread a NaN to the neighbouring rows of a tile.
  void nan_stays_in_its_rows() {
    if (entry_.spec.dense_only) return;
    Tensors tensors(DType::bf16, 1, 300, 64);
    tensors.randomise(engine_);
    const Plan plan = plan_for(1, 300, 64, {.orders = true, .keep = 0.5});
    if (!covers(tensors, plan)) return;
    const Outputs clean = Runner(entry_, device_).run(tensors, plan);
    const std::vector<float> nan(64, std::numeric_limits<float>::quiet_NaN());
    const std::vector<float> query = tensors.get(0, 0, 77);
    tensors.set(0, 0, 77, nan);
    expect_nan_rows(
        tensors, clean, plan, [](std::int64_t row) { return row == 77; }, "one query");
    tensors.set(0, 0, 77, query);
    tensors.set(2, 0, 123, nan);
    const std::vector<char> sees = visibility(plan, nullptr);
    expect_nan_rows(
        tensors, clean, plan, [&](std::int64_t row) { return sees[at(row * 300 + 123)] != 0; },
        "one value");
  }

  void expect_nan_rows(Tensors& tensors, const Outputs& clean, const Plan& plan,
                       const std::function<bool(std::int64_t)>& affected, const char* what) {
    const Outputs got = Runner(entry_, device_).run(tensors, plan);
    for (std::int64_t row = 0; row < tensors.n; ++row) {
      for (std::size_t x = at(row * 64); x < at(row * 64 + 64); ++x) {
        if (affected(row)) {
          ASSERT_TRUE(std::isnan(got.o[x]))
              << where(tensors) << ", NaN in " << what << ", row " << row;
        } else {
          ASSERT_EQ(got.o[x], clean.o[x])
              << where(tensors) << ", NaN in " << what << ", row " << row;
        }
      }
    }
    ++runs_;
  }

  void refuses_what_it_cannot_do() {
    Tensors tensors(DType::bf16, 1, 200, 64);
    tensors.randomise(engine_);
    Plan plan = dense_plan(1, 200, 64);
    plan.terms.push_back({"coarse"});
    EXPECT_TRUE(Runner(entry_, device_).supports(tensors, plan).has_value())
        << where(tensors) << ": a plan with an output term must be refused";
    if (!entry_.spec.dense_only) return;
    Plan sparse = dense_plan(1, 200, 64);
    sparse.lists.columns.pop_back();
    sparse.lists.row_offsets.back() -= 1;
    EXPECT_TRUE(Runner(entry_, device_).supports(tensors, sparse).has_value())
        << where(tensors) << ": a dense kernel must refuse a sparse plan";
    EXPECT_THROW(Runner(entry_, device_).run(tensors, sparse), Unsupported);
  }

  const KernelEntry& entry_;
  Device device_;
  std::mt19937 engine_{20240607};
  int runs_ = 0;
};

}  // namespace

void check_kernel_contract(const KernelEntry& entry) {
  if (!entry.built()) {
    EXPECT_THROW(entry.make(), Unsupported);
    GTEST_SKIP() << "skipped: " << entry.spec.name << ": " << entry.spec.not_built;
  }
  ASSERT_TRUE(entry.spec.cpu || entry.spec.cuda);
  if (entry.spec.cpu) Contract(entry, {}).check();
  if (!entry.spec.cuda) return;
  if (list_cuda_devices().empty()) {
    if (!entry.spec.cpu) GTEST_SKIP() << "skipped: no CUDA device";
    return;
  }
  Contract(entry, {DeviceKind::cuda, 0}).check();
}

}  // namespace testing_kernels

namespace {

class KernelContract : public ::testing::TestWithParam<std::size_t> {};

TEST_P(KernelContract, Holds) {
  testing_kernels::check_kernel_contract(kernel_registry()[GetParam()]);
}

INSTANTIATE_TEST_SUITE_P(Registry, KernelContract,
                         ::testing::Range(std::size_t{0}, kernel_registry().size()),
                         [](const ::testing::TestParamInfo<std::size_t>& tested) {
                           return std::string(kernel_registry()[tested.param].spec.name);
                         });

}  // namespace
}  // namespace raingauge
