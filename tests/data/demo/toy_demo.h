// SPDX-License-Identifier: Apache-2.0
// What the tests of the demo DiT share: a folder that goes away, and a small model whose every
// parameter matters (a freshly initialised one predicts zero everywhere).
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "data/demo/random.h"
#include "data/demo/weights.h"

namespace raingauge::demo {

// Tests run beside each other; and sums in one order are the same sums in every run.
inline const bool kOneThread = (at::set_num_threads(1), true);

class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() /
            ("raingauge-demo-" + std::to_string(getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline const ModelConfig kToyConfig{.width = 128, .layers = 2};

inline Weights toy_weights(const ModelConfig& config = kToyConfig) {
  Weights weights;
  weights.config = config;
  weights.parameters = draw_parameters(config, 5);
  std::uint64_t stream = 1000;
  for (auto& [name, value] : weights.parameters) {
    RandomStream random(5, stream++);
    auto* data = value.mutable_data_ptr<float>();
    for (int64_t i = 0; i < value.numel(); ++i) {
      data[i] += static_cast<float>(0.05 * random.gaussian());
    }
  }
  weights.codec_mean = at::zeros({kLatentChannels});
  weights.codec_deviation = at::full({kLatentChannels}, 0.5);
  weights.training = {{"steps", "0"}};
  return weights;
}

// The largest absolute difference; NaN where there is a NaN, so compare with `!(… <= tolerance)`.
inline double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace raingauge::demo
