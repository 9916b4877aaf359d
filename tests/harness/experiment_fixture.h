// SPDX-License-Identifier: Apache-2.0
// What the tests of experiments share: texts whose lines are counted, and errors without the folder.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "harness/experiment.h"
#include "harness/yaml_document.h"
#include "tests/harness/temporary_folder.h"

namespace raingauge::testing_support {

// Errors name lines: these are lines 1-2 and 3-5, so what a test adds starts on line 6.
inline constexpr const char* kHead = "schema: raingauge/1\nname: test\n";
inline constexpr const char* kBody = "captures: [demo]\narms:\n  rf2: {method: rainfusion2}\n";

inline const KnownNames& known() {
  static const KnownNames names = {{"recall", "rel_l1", "rel_l2", "cosine", "oracle_gap"},
                                   {"psnr", "ssim_gauss11", "ms_ssim"},
                                   {"reference", "cpu", "cuda", "torch_sdpa"}};
  return names;
}

inline constexpr const char* kAblation = R"(schema: raingauge/1
name: ablation_sink_permutation
captures: [demo]
select:  {layers: all, steps: [2, 5, 7], heads: all, branches: [cond]}
arms:
  rf2: {method: rainfusion2, block: 128, order: frame_window, frame0: segregated, sink: both, text: both, budget: inside, density: 0.2}
matrix:
  rf2.order:   [raster, frame_window, {window3d: {window: [4, 4, 8]}}]
  rf2.sink:    [none, both]
  rf2.density: [0.2, 0.35]
match: density
controls: {arms: [random, oracle_row], heads: all}
rows: {sample: 512, seed: 0}
metrics: [recall, oracle_gap, rel_l1, rel_l2, cosine]
latency: {kernels: [cpu, cuda, torch_sdpa], warmup: 3, min_samples: 10, max_noise: 0.02, max_seconds: 60, interleave: true}
generate: {arms: [rf2.raster.none, rf2.frame_window.both], clips: 8, density: 0.2, dense_steps: 1, dense_layers: [0],
           references: [dense, truth], metrics: [psnr, ssim_gauss11, ms_ssim]}
report: {formats: [html, md, csv, tex], baseline: {order: raster, sink: none}, ablate: [order, sink], contrasts: primary}
)";

class ExperimentTest : public testing::Test {
 protected:
  Experiment load(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    return load_experiment(folder_.write("x.yaml", text), overrides, known());
  }
  Experiment load_with(const std::string& text,
                       const std::vector<std::string>& overrides = {}) const {
    return load(std::string(kHead) + kBody + text, overrides);
  }
  // The message without the folder; "no error" when the text is accepted.
  std::string error_of(const std::string& text,
                       const std::vector<std::string>& overrides = {}) const {
    try {
      load(text, overrides);
    } catch (const ConfigError& error) {
      std::string message = error.what();
      for (const std::string prefix = folder_.path().string() + "/";;) {
        const std::size_t at = message.find(prefix);
        if (at == std::string::npos) return message;
        message.erase(at, prefix.size());
      }
    }
    return "no error";
  }
  // An error of text that starts on line 6.
  std::string error_with(const std::string& text,
                         const std::vector<std::string>& overrides = {}) const {
    return error_of(std::string(kHead) + kBody + text, overrides);
  }
  // An error of the arm on line 5.
  std::string error_of_arm(const std::string& arm) const {
    return error_of(std::string(kHead) + "captures: [demo]\narms:\n  a: " + arm + "\n");
  }
  static std::vector<std::string> names(const Experiment& experiment) {
    std::vector<std::string> names;
    for (const auto& arm : experiment.arms) names.push_back(arm.name);
    return names;
  }
  static std::vector<std::string> stems(const Experiment& experiment) {
    std::vector<std::string> stems;
    for (const auto& arm : experiment.arms) stems.push_back(arm.stem);
    return stems;
  }

  TemporaryFolder folder_;
};

}  // namespace raingauge::testing_support
