// SPDX-License-Identifier: Apache-2.0
// Running the `cpu` kernel at a forced level, and comparing its output with float64.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "methods/kernels/kernel.h"
#include "tests/methods/kernels/cpu_test_support.h"

namespace raingauge {

KernelSpec cpu_kernel_spec();
std::unique_ptr<Kernel> make_cpu_kernel(const KernelOptions& options);

namespace test {

inline AttendInputs inputs_of(const Problem& problem) {
  AttendInputs inputs;
  inputs.q = problem.q.view;
  inputs.k = problem.k.view;
  inputs.v = problem.v.view;
  inputs.key_valid = problem.key_valid();
  inputs.scale = static_cast<float>(problem.scale);
  return inputs;
}

struct Output {
  std::vector<float> o, lse;

  bool same_bits(const Output& other) const {
    return o.size() == other.o.size() && lse.size() == other.lse.size() &&
           std::memcmp(o.data(), other.o.data(), o.size() * sizeof(float)) == 0 &&
           std::memcmp(lse.data(), other.lse.data(), lse.size() * sizeof(float)) == 0;
  }
  bool same_row(const Output& other, std::size_t row, std::size_t dim) const {
    return std::memcmp(&o[row * dim], &other.o[row * dim], dim * sizeof(float)) == 0 &&
           std::memcmp(&lse[row], &other.lse[row], sizeof(float)) == 0;
  }
};

inline Output attend(const Problem& problem, const std::string& isa, int threads = 1) {
  KernelOptions options;
  options.isa = isa;
  options.threads = threads;
  const auto kernel = make_cpu_kernel(options);
  const AttendInputs inputs = inputs_of(problem);
  const auto rows = static_cast<std::size_t>(problem.plan.heads * problem.plan.tokens);
  Output output;  // NaN where the kernel writes nothing
  output.o.assign(rows * static_cast<std::size_t>(problem.q.view.head_dim), std::nanf(""));
  output.lse.assign(rows, std::nanf(""));
  const auto prepared = kernel->prepare(problem.plan, inputs);
  kernel->attend(*prepared, inputs, {output.o.data(), output.lse.data()});
  return output;
}

// Weights of bf16 products are rounded to bf16; those of tiles come from a shorter exponential.
inline Bound kernel_bound(const Exact& exact, std::int64_t dim, cpu::Products products) {
  return error_bound(exact, dim, products != cpu::Products::floats,
                     products == cpu::Products::tiles ? 3e-6 : 2e-7);
}

inline void expect_exact(const Problem& problem, const Output& output, cpu::Products products) {
  const Kept kept(problem.plan);
  const std::int64_t dim = problem.q.view.head_dim;
  for (std::int64_t h = 0; h < problem.plan.heads; ++h) {
    const ExactHead head(problem, h);
    for (std::int64_t i = 0; i < problem.plan.tokens; ++i) {
      const Exact exact = head.row(i, [&](std::int64_t j) { return kept(h, i, j); });
      const Bound bound = kernel_bound(exact, dim, products);
      const auto row = static_cast<std::size_t>(h * problem.plan.tokens + i);
      const auto lse = static_cast<double>(output.lse[row]);
      if (exact.keys == 0) {
        ASSERT_EQ(lse, -kInfinity) << "head " << h << " row " << i;
      } else {
        ASSERT_TRUE(std::abs(lse - exact.lse) <= bound.lse)
            << "head " << h << " row " << i << ": lse " << lse << ", exact " << exact.lse
            << ", allowed " << bound.lse;
      }
      for (std::int64_t c = 0; c < dim; ++c) {
        const auto at = static_cast<std::size_t>(c);
        const auto o = static_cast<double>(output.o[row * static_cast<std::size_t>(dim) + at]);
        const double allowed = bound.p * exact.o_abs[at] + 1e-30;
        ASSERT_TRUE(std::abs(o - exact.o[at]) <= allowed)
            << "head " << h << " row " << i << " column " << c << ": " << o << ", exact "
            << exact.o[at] << ", allowed " << allowed;
      }
    }
  }
}

class CpuKernelTest : public LevelTest {
 protected:
  const std::string& isa() const { return GetParam(); }
  cpu::Products products(DType dtype) const {
    return dtype == DType::bf16 ? cpu::level_ops(isa()).bf16 : cpu::Products::floats;
  }
  void expect_right(const Problem& problem) const {
    expect_exact(problem, attend(problem, isa()), products(problem.q.view.dtype));
  }
};

}  // namespace test
}  // namespace raingauge
