// SPDX-License-Identifier: Apache-2.0
// The Hopper kernel as a launch, below the interface of kernels: graphs and their replay, streams side by
// side, grouped query heads, queries and keys of different number, ten thousand launches in one process.
// All of it needs a device of compute capability 9.0 and says so elsewhere.
#include <gtest/gtest.h>

#include "methods/kernels/device.h"

#ifdef RAINGAUGE_WITH_CUDA
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "data/dtype.h"
#include "methods/kernels/cuda/forward_sm90.h"

namespace raingauge {
namespace {

using cuda_walk::TileItem;

constexpr Device kGpu{DeviceKind::cuda, 0};

void check(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

struct Shape {
  int heads = 2, group = 1, q_tokens = 500, k_tokens = 500, dim = 128;
  DType dtype = DType::bf16;
  int box_keys = 128;
  double keep = 0.4;
};

// Inputs [tokens, heads, dim], lists and outputs of one attention.
class Problem {
 public:
  Problem(const Shape& shape, std::mt19937& engine) : s(shape), kv_heads(s.heads / s.group) {
    q = values(s.q_tokens * s.heads, engine);
    k = values(s.k_tokens * kv_heads, engine);
    v = values(s.k_tokens * kv_heads, engine);
    make_lists(engine);
    q_gpu = upload(q), k_gpu = upload(k), v_gpu = upload(v);
    items_gpu = to_device(kGpu, items);
    boxes_gpu = to_device(kGpu, boxes);
    counter_gpu = to_device(kGpu, std::vector<std::int32_t>{0, 0});
    o_gpu = DeviceBuffer(kGpu, q.size() * 2);
    lse_gpu = DeviceBuffer(kGpu, at(s.heads * s.q_tokens) * sizeof(float));
  }

  // NaN everywhere, so that what a launch leaves out shows.
  void poison() {
    check(cudaMemset(o_gpu.data(), 0xff, o_gpu.bytes()));
    check(cudaMemset(lse_gpu.data(), 0xff, lse_gpu.bytes()));
  }

  void launch(cudaStream_t stream) {
    cuda_walk::SparseParams p{};
    p.q = q_gpu.data();
    p.q_head_stride = p.o_head_stride = s.dim;
    p.q_token_stride = p.o_token_stride = std::int64_t{s.heads} * s.dim;
    p.o = o_gpu.data();
    p.lse = lse_gpu.as<float>();
    p.lse_head_stride = s.q_tokens;
    p.items = items_gpu.as<TileItem>();
    p.item_count = static_cast<std::int32_t>(items.size());
    p.boxes = boxes_gpu.as<std::int32_t>();
    p.table = {nullptr, 0, s.k_tokens, s.box_keys};
    p.heads = s.heads;
    p.group = s.group;
    p.scale_log2 = scale() * 1.442695F;
    p.counter = counter_gpu.as<std::int32_t>();
    const auto keys = [&](DeviceBuffer& x) {
      return cuda_walk::KeyTensor{x.data(), s.dim, std::int64_t{kv_heads} * s.dim, s.k_tokens};
    };
    const int status = cuda_walk::launch_sparse_sm90(
        p, keys(k_gpu), keys(v_gpu),
        s.dtype == DType::bf16 ? cuda_walk::Element::bf16 : cuda_walk::Element::f16, s.dim, stream);
    check(static_cast<cudaError_t>(status));
  }

  // Output and LSE as they lie in memory.
  std::vector<char> result() const {
    std::vector<char> bytes(o_gpu.bytes() + lse_gpu.bytes());
    o_gpu.copy_to_host(bytes.data(), o_gpu.bytes());
    lse_gpu.copy_to_host(bytes.data() + o_gpu.bytes(), lse_gpu.bytes());
    return bytes;
  }
  std::vector<std::int32_t> counter() const {
    std::vector<std::int32_t> values(2, -1);
    counter_gpu.copy_to_host(values.data(), counter_gpu.bytes());
    return values;
  }
  // Largest ||o - exact|| / ||exact|| of `rows` rows drawn anew; NaN counts as infinite.
  double worst_error(int rows, std::mt19937& engine) const {
    const std::vector<char> bytes = result();
    std::vector<float> o(q.size());
    convert_to_float(bytes.data(), s.dtype, o.data(), o.size());
    double worst = 0.0;
    for (int i = 0; i < rows; ++i) {
      const auto head = static_cast<int>(engine() % static_cast<unsigned>(s.heads));
      const auto row = static_cast<int>(engine() % static_cast<unsigned>(s.q_tokens));
      const std::vector<double> exact = exact_row(head, row);
      double error = 0.0;
      double norm = 0.0;
      for (int d = 0; d < s.dim; ++d) {
        error += std::pow(double{o[at((row * s.heads + head) * s.dim + d)]} - exact[at(d)], 2);
        norm += std::pow(exact[at(d)], 2);
      }
      const double relative = norm == 0.0 ? std::sqrt(error) : std::sqrt(error / norm);
      worst = relative <= worst ? worst : relative;
      if (std::isnan(relative)) return std::numeric_limits<double>::infinity();
    }
    return worst;
  }

  std::vector<TileItem> items;
  std::vector<std::int32_t> boxes;
  // After a change of `items` or `boxes`.
  void upload_lists() {
    items_gpu = to_device(kGpu, items);
    boxes_gpu = to_device(kGpu, boxes);
  }
  std::vector<float> output() const {
    const std::vector<char> bytes = result();
    std::vector<float> o(q.size());
    convert_to_float(bytes.data(), s.dtype, o.data(), o.size());
    return o;
  }

 private:
  static std::size_t at(int value) { return static_cast<std::size_t>(value); }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(s.dim)); }

  // Rounded to the dtype.
  std::vector<float> values(int rows, std::mt19937& engine) const {
    std::normal_distribution<float> normal;
    std::vector<float> x(at(rows * s.dim));
    for (float& value : x) value = normal(engine);
    std::vector<char> bytes(x.size() * 2);
    convert_from_float(x.data(), bytes.data(), s.dtype, x.size());
    convert_to_float(bytes.data(), s.dtype, x.data(), x.size());
    return x;
  }
  DeviceBuffer upload(const std::vector<float>& x) const {
    std::vector<char> bytes(x.size() * 2);
    convert_from_float(x.data(), bytes.data(), s.dtype, x.size());
    return to_device(kGpu, bytes);
  }
  void make_lists(std::mt19937& engine) {
    const int all = (s.k_tokens + s.box_keys - 1) / s.box_keys;
    for (int h = 0; h < s.heads; ++h) {
      for (int first = 0; first < s.q_tokens; first += 128) {
        std::vector<std::int32_t> list;
        for (int b = 0; b < all; ++b) {
          if (std::uniform_real_distribution<>()(engine) < s.keep) list.push_back(b);
        }
        items.push_back({static_cast<std::int64_t>(boxes.size()), h, first,
                         std::min(128, s.q_tokens - first),
                         static_cast<std::int32_t>(list.size())});
        boxes.insert(boxes.end(), list.begin(), list.end());
      }
    }
    std::stable_sort(items.begin(), items.end(),
                     [](const TileItem& a, const TileItem& b) { return a.count > b.count; });
    boxes.push_back(0);  // never empty
  }
  std::vector<double> exact_row(int head, int row) const {
    const auto item = std::find_if(items.begin(), items.end(), [&](const TileItem& x) {
      return x.head == head && x.q_first <= row && row < x.q_first + x.q_rows;
    });
    std::vector<double> sum(at(s.dim), 0.0);
    std::vector<std::pair<double, int>> scores;
    double top = -std::numeric_limits<double>::infinity();
    for (int i = 0; i < item->count; ++i) {
      const int begin = boxes[static_cast<std::size_t>(item->first) + at(i)] * s.box_keys;
      for (int key = begin; key < std::min(begin + s.box_keys, s.k_tokens); ++key) {
        double dot = 0.0;
        for (int d = 0; d < s.dim; ++d) {
          dot += double{q[at((row * s.heads + head) * s.dim + d)]} *
                 double{k[at((key * kv_heads + head / s.group) * s.dim + d)]};
        }
        scores.emplace_back(dot * double{scale()}, key);
        top = std::max(top, scores.back().first);
      }
    }
    double total = 0.0;
    for (const auto& [score, key] : scores) {
      const double weight = std::exp(score - top);
      total += weight;
      for (int d = 0; d < s.dim; ++d) {
        sum[at(d)] += weight * double{v[at((key * kv_heads + head / s.group) * s.dim + d)]};
      }
    }
    for (double& value : sum) value = total == 0.0 ? 0.0 : value / total;
    return sum;
  }

  Shape s;
  int kv_heads;
  std::vector<float> q, k, v;
  DeviceBuffer q_gpu, k_gpu, v_gpu, o_gpu, lse_gpu, items_gpu, boxes_gpu, counter_gpu;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void wait() const { check(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

constexpr double kTolerance = 6e-3;  // of a row: weights and outputs rounded to bf16

class CudaLaunch : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto devices = list_cuda_devices();
    if (devices.empty()) GTEST_SKIP() << "skipped: no CUDA device";
    if (devices[0].major != 9 || devices[0].minor != 0) {
      GTEST_SKIP() << "skipped: " << devices[0].name << " is not of compute capability 9.0";
    }
    seed = std::random_device{}();
    engine.seed(seed);
    RecordProperty("seed", std::to_string(seed));
  }
  Shape random_shape() {
    Shape shape;
    shape.heads = 1 << engine() % 3;
    shape.group = 1 << engine() % 2;
    shape.group = std::min(shape.group, shape.heads);
    shape.q_tokens = static_cast<int>(1 + engine() % 700);
    shape.k_tokens = static_cast<int>(1 + engine() % 700);
    shape.dim = static_cast<int>(8 * (1 + engine() % 16));
    shape.dtype = engine() % 2 == 0 ? DType::bf16 : DType::f16;
    shape.box_keys = engine() % 2 == 0 ? 64 : 128;
    shape.keep = std::uniform_real_distribution<>(0.1, 1.0)(engine);
    return shape;
  }
  unsigned seed = 0;
  std::mt19937 engine;
};

TEST_F(CudaLaunch, GraphReplays) {
  for (const int dim : {64, 128}) {
    Problem problem({.heads = 5, .q_tokens = 3000, .k_tokens = 3000, .dim = dim}, engine);
    const Stream stream;
    problem.poison();
    problem.launch(stream);
    stream.wait();
    const std::vector<char> first = problem.result();
    ASSERT_LE(problem.worst_error(20, engine), kTolerance) << "seed " << seed;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    problem.launch(stream);
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&replay, graph, 0));
    for (int i = 0; i < 20; ++i) {
      problem.poison();
      check(cudaDeviceSynchronize());
      check(cudaGraphLaunch(replay, stream));
      stream.wait();
      ASSERT_EQ(first, problem.result()) << "seed " << seed << " replay " << i;
      ASSERT_EQ(problem.counter(), std::vector<std::int32_t>({0, 0}));
    }
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
  }
}

TEST_F(CudaLaunch, TwoStreamsAtOnce) {
  for (const int dim : {64, 128}) {
    const Stream streams[2];
    std::unique_ptr<Problem> problems[2];
    std::vector<char> alone[2];
    for (int i = 0; i < 2; ++i) {
      problems[i] = std::make_unique<Problem>(
          Shape{.heads = 3, .q_tokens = 900 + 300 * i, .k_tokens = 1500, .dim = dim}, engine);
      problems[i]->launch(streams[i]);
      streams[i].wait();
      alone[i] = problems[i]->result();
      ASSERT_LE(problems[i]->worst_error(20, engine), kTolerance) << "seed " << seed;
    }
    for (int round = 0; round < 20; ++round) {
      for (const auto& problem : problems) problem->poison();
      check(cudaDeviceSynchronize());
      for (int i = 0; i < 20; ++i) problems[i % 2]->launch(streams[i % 2]);
      for (const Stream& stream : streams) stream.wait();
      ASSERT_EQ(alone[0], problems[0]->result()) << "seed " << seed << " round " << round;
      ASSERT_EQ(alone[1], problems[1]->result()) << "seed " << seed << " round " << round;
    }
  }
}

TEST_F(CudaLaunch, GroupedQueryHeads) {
  for (const int dim : {64, 128}) {
    for (const int group : {1, 2, 4, 8}) {
      Problem problem({.heads = 8, .group = group, .q_tokens = 400, .k_tokens = 400, .dim = dim},
                      engine);
      problem.poison();
      problem.launch(nullptr);
      check(cudaDeviceSynchronize());
      EXPECT_LE(problem.worst_error(60, engine), kTolerance)
          << "seed " << seed << " head_dim " << dim << " group " << group;
    }
  }
}

TEST_F(CudaLaunch, QueriesAndKeysOfDifferentNumber) {
  for (const int dim : {64, 128}) {
    for (const auto& [queries, keys] : {std::pair{1, 1000}, {300, 1000}, {1000, 1}, {777, 130}}) {
      Problem problem({.q_tokens = queries, .k_tokens = keys, .dim = dim, .keep = 0.8}, engine);
      problem.poison();
      problem.launch(nullptr);
      check(cudaDeviceSynchronize());
      EXPECT_LE(problem.worst_error(40, engine), kTolerance)
          << "seed " << seed << ' ' << queries << " queries, " << keys << " keys";
    }
  }
}

// Items in another order: the same bits. Lists in another order: the same up to rounding.
TEST_F(CudaLaunch, OrderOfItemsAndOfLists) {
  for (const int dim : {64, 128}) {
    Problem problem({.heads = 4, .q_tokens = 2000, .k_tokens = 2000, .dim = dim}, engine);
    problem.launch(nullptr);
    check(cudaDeviceSynchronize());
    const std::vector<char> first = problem.result();
    const std::vector<float> o = problem.output();
    std::shuffle(problem.items.begin(), problem.items.end(), engine);
    problem.upload_lists();
    problem.poison();
    problem.launch(nullptr);
    check(cudaDeviceSynchronize());
    ASSERT_EQ(first, problem.result()) << "seed " << seed;
    for (const TileItem& item : problem.items) {
      const auto begin = problem.boxes.begin() + item.first;
      std::shuffle(begin, begin + item.count, engine);
    }
    problem.upload_lists();
    problem.poison();
    problem.launch(nullptr);
    check(cudaDeviceSynchronize());
    const std::vector<float> other = problem.output();
    double error = 0.0;
    double norm = 0.0;
    for (std::size_t i = 0; i < o.size(); ++i) {
      error += std::pow(double{o[i]} - double{other[i]}, 2);
      norm += std::pow(double{o[i]}, 2);
    }
    ASSERT_LE(std::sqrt(error / norm), kTolerance) << "seed " << seed;
  }
}

TEST_F(CudaLaunch, TenThousandLaunchesOfRandomShapes) {
  constexpr int kProblems = 40;
  std::vector<std::unique_ptr<Problem>> problems;
  std::vector<std::vector<char>> first;
  for (int i = 0; i < kProblems; ++i) {
    problems.push_back(std::make_unique<Problem>(random_shape(), engine));
    problems.back()->poison();
    problems.back()->launch(nullptr);
    check(cudaDeviceSynchronize());
    ASSERT_LE(problems.back()->worst_error(10, engine), kTolerance)
        << "seed " << seed << " problem " << i;
    first.push_back(problems.back()->result());
  }
  for (int launch = 0; launch < 10000; ++launch) {
    const std::size_t i = engine() % kProblems;
    problems[i]->poison();
    problems[i]->launch(nullptr);
    ASSERT_EQ(first[i], problems[i]->result()) << "seed " << seed << " launch " << launch;
  }
}

}  // namespace
}  // namespace raingauge
#else
TEST(CudaLaunch, NeedsCuda) {
  GTEST_SKIP() << "skipped: "
               << "this build has no CUDA (no CUDA compiler was found)";
}
#endif
