// SPDX-License-Identifier: Apache-2.0
// The index logic of the CUDA kernel, driven on the host exactly as the device drives it, and, where
// there is a GPU, the kernel itself at sizes and strides beyond the contract's.
#include <gtest/gtest.h>

#include <set>

#include "data/error.h"
#include "methods/kernels/conformance.h"
#include "methods/kernels/cuda/work.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;
using cuda_walk::KeyCursor;
using cuda_walk::kKeyTile;
using cuda_walk::WorkItem;

// Tokens that row `row` of the item's tiles names, tile by tile, as one device thread would.
std::vector<std::int32_t> walk_row(const CudaWork& work, const Plan& plan, const WorkItem& item,
                                   int row) {
  KeyCursor cursor;
  cursor.start(work.runs.data(), item);
  const std::int64_t order_row = plan.k_order.rows == 1 ? 0 : item.head;
  std::vector<std::int32_t> tokens;
  for (int tile = 0; tile < cuda_walk::tile_count(item); ++tile) {
    const std::int32_t key = cursor.valid_key(tile * kKeyTile + row);
    EXPECT_EQ(key >= 0, row < cuda_walk::keys_in_tile(item, tile));
    tokens.push_back(key < 0 ? -1 : work.key_tokens[at(order_row * work.valid_keys + key)]);
  }
  return tokens;
}

struct Case {
  std::int64_t heads, tokens;
  int block;
  PlanForm form;
  bool mask;
};

class CudaWalk : public ::testing::TestWithParam<Case> {};

// Every query row is in exactly one item, and the tiles of its item name exactly the keys it sees.
TEST_P(CudaWalk, NamesExactlyTheVisibleKeys) {
  const Case& c = GetParam();
  std::mt19937 engine(31);
  const Plan plan = random_plan(c.heads, c.tokens, c.block, c.form, engine);
  std::vector<std::uint8_t> valid(at(c.tokens), 1);
  if (c.mask) {
    for (auto& flag : valid) flag = engine() % 4 != 0;
  }
  const std::uint8_t* key_valid = c.mask ? valid.data() : nullptr;
  const CudaWork work = make_cuda_work(plan, key_valid, 2);
  const std::vector<char> sees = visibility(plan, key_valid);
  std::vector<int> covered(at(c.heads * c.tokens), 0);
  int former_tiles = std::numeric_limits<int>::max();
  for (const WorkItem& item : work.items) {
    EXPECT_LE(cuda_walk::tile_count(item), former_tiles);
    former_tiles = cuda_walk::tile_count(item);
    ASSERT_LE(item.q_rows, work.row_tile);
    std::set<std::int32_t> named;
    for (int row = 0; row < kKeyTile; ++row) {
      for (const std::int32_t token : walk_row(work, plan, item, row)) {
        if (token < 0) continue;
        ASSERT_TRUE(named.insert(token).second) << "token " << token << " is named twice";
      }
    }
    ASSERT_EQ(static_cast<std::int32_t>(named.size()), item.keys);
    for (std::int32_t r = 0; r < item.q_rows; ++r) {
      const std::int64_t q = item.head * c.tokens + plan.q_order.token(item.head, item.q_first + r);
      ++covered[at(q)];
      for (std::int32_t k = 0; k < c.tokens; ++k) {
        ASSERT_EQ(named.contains(k), sees[at(q * c.tokens + k)] != 0);
      }
    }
  }
  for (const int times : covered) ASSERT_EQ(times, 1);
}

INSTANTIATE_TEST_SUITE_P(
    Forms, CudaWalk,
    ::testing::Values(
        Case{2, 300, 64, {}, false}, Case{1, 513, 128, {.orders = true}, true},
        Case{3,
             200,
             16,
             {.orders = true, .per_head = true, .ragged = true, .empty_blocks = true, .keep = 0.3},
             true},
        Case{2, 257, 40, {.ragged = true, .keep = 0.2, .empty_lists = true}, false},
        Case{1, 1, 128, {}, false}, Case{1, 400, 300, {.keep = 1.0}, false},
        Case{2, 130, 1, {.orders = true, .keep = 0.3}, true}));

TEST(CudaWork, NeighbouringBlocksBecomeOneRun) {
  const CudaWork dense = make_cuda_work(dense_plan(1, 1000, 128), nullptr);
  EXPECT_EQ(dense.runs.size(), 8 + 1U);  // one run a query block, and the one that is never used
  EXPECT_EQ(dense.row_tile, 128);
  EXPECT_DOUBLE_EQ(dense.density_tiles, 1.0);
  EXPECT_EQ(make_cuda_work(dense_plan(1, 1000, 64), nullptr).row_tile, 64);
}

TEST(CudaWork, EmptyStreamsStayReadable) {
  const std::vector<std::uint8_t> none(100, 0);
  const CudaWork work = make_cuda_work(dense_plan(1, 100, 32), none.data());
  EXPECT_EQ(work.valid_keys, 0);
  for (const WorkItem& item : work.items) {
    EXPECT_EQ(item.keys, 0);
    EXPECT_EQ(cuda_walk::tile_count(item), 0);
    ASSERT_LT(at(item.first_run), work.runs.size());
  }
}

TEST(CudaWalkSwizzle, IsABijectionWithoutBankConflicts) {
  for (const int chunks : {8, 16}) {
    std::set<int> places;
    for (int row = 0; row < 64; ++row) {
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const int place = cuda_walk::swizzled_chunk(row, chunk, chunks);
        EXPECT_TRUE(place >= 0 && place < 64 * chunks);
        EXPECT_TRUE(places.insert(place).second);
      }
    }
    for (int chunk = 0; chunk < chunks; ++chunk) {
      std::set<int> groups;  // of 16 bytes among the 128 bytes of all banks
      for (int row = 0; row < 8; ++row)
        groups.insert(cuda_walk::swizzled_chunk(row, chunk, chunks) % 8);
      EXPECT_EQ(groups.size(), 8U);
    }
  }
}

TEST(CudaKernel, SaysWhatItDoesNotCover) {
  const KernelEntry& entry = find_kernel("cuda");
  if (!entry.built()) GTEST_SKIP() << "skipped: " << entry.spec.not_built;
  const auto kernel = entry.make();
  Tensors host(DType::bf16, 1, 64, 64);
  const Plan plan = dense_plan(1, 64, 64);
  const auto reason_for = [&](DType dtype, std::int64_t dim, std::int64_t stride) {
    AttendInputs inputs = host.inputs;
    for (TensorView* view : {&inputs.q, &inputs.k, &inputs.v}) {
      view->device = {DeviceKind::cuda, 0};
      view->dtype = dtype;
      view->head_dim = dim;
      view->token_stride = stride;
      view->data = nullptr;
    }
    return kernel->supports(plan, inputs).value_or("");
  };
  EXPECT_NE(kernel->supports(plan, host.inputs).value_or("").find("CUDA memory"),
            std::string::npos);
  EXPECT_NE(reason_for(DType::f32, 64, 64).find("f32"), std::string::npos);
  EXPECT_NE(reason_for(DType::bf16, 84, 84).find("head_dim 84"), std::string::npos);
  EXPECT_NE(reason_for(DType::bf16, 136, 136).find("head_dim 136"), std::string::npos);
  host.inputs.scale = -0.1F;  // such scales are not covered at 80 on any device
  EXPECT_NE(reason_for(DType::bf16, 80, 80).find("head_dim 80"), std::string::npos);
  EXPECT_NE(reason_for(DType::bf16, 64, 65).find("multiples of 8"), std::string::npos);
}

TEST(CudaKernel, ConformsAtALargerSize) {
  const KernelEntry& entry = find_kernel("cuda");
  if (!entry.built()) GTEST_SKIP() << "skipped: " << entry.spec.not_built;
  if (list_cuda_devices().empty()) GTEST_SKIP() << "skipped: no CUDA device";
  const Device device{DeviceKind::cuda, 0};
  for (const std::int64_t dim : {64, 128}) {
    for (const int block : {48, 128}) {
      std::mt19937 engine(41);
      Tensors tensors(DType::bf16, 2, 5000, dim, Tensors::Form::interleaved);
      tensors.randomise(engine);
      const Plan plan = random_plan(
          2, 5000, block, {.orders = true, .per_head = true, .ragged = true, .keep = 0.2}, engine);
      AttendInputs inputs = tensors.inputs;
      TensorView* views[] = {&inputs.q, &inputs.k, &inputs.v};
      std::vector<DeviceBuffer> copies;
      for (int t = 0; t < 3; ++t) {
        const auto lead = static_cast<char*>(tensors.aligned(t)) - tensors.raw[t].data();
        copies.emplace_back(device, tensors.raw[t].size());
        copies.back().copy_from_host(tensors.raw[t].data() + lead,
                                     tensors.raw[t].size() - at(lead));
        const auto offset = static_cast<const char*>(views[t]->data) - tensors.raw[t].data() - lead;
        views[t]->data = copies.back().as<char>() + offset;
        views[t]->device = device;
      }
      Outputs outputs(2, 5000, dim);
      DeviceBuffer o = to_device(device, outputs.o);
      DeviceBuffer lse = to_device(device, outputs.lse);
      const auto kernel = entry.make();
      kernel->attend(*kernel->prepare(plan, inputs), inputs, {o.as<float>(), lse.as<float>()});
      kernel->synchronize();
      o.copy_to_host(outputs.o.data(), o.bytes());
      lse.copy_to_host(outputs.lse.data(), lse.bytes());
      const Conformance verdict =
          check_conformance(kernel->spec(), plan, tensors.inputs, outputs.view());
      EXPECT_TRUE(verdict.ok) << verdict.reason;
    }
  }
}

}  // namespace
}  // namespace raingauge
