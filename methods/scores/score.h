// SPDX-License-Identifier: Apache-2.0
// A score says what a block pair is worth. Scores and selectors are combined freely.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "methods/params.h"

namespace raingauge {

enum class Arithmetic {
  fp32,      // ours, native; the one that is timed
  faithful,  // the authors' operations and dtypes (libtorch on the CPU): its rounding makes ties
};

struct ScoreRequest {
  const RecordView& record;
  std::int64_t head = 0;
  const Orders& q_order;  // differ only under orders made from content (k-means)
  const Orders& k_order;
  const Layout& q_blocks;
  const Layout& k_blocks;
  double scale = 1.0;
  Arithmetic arithmetic = Arithmetic::fp32;
  std::uint64_t seed = 0;
  nlohmann::json params = nlohmann::json::object();
  int threads = 1;  // that may work on this head
};

// [rows, columns]; higher is better. NaN ranks lowest.
struct ScoreMatrix {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<float> values;
  // Shares (not negative, a row's sum is its whole) rather than logits.
  bool probabilities = false;
  std::string computed_on;  // "cpu", "cuda:0" of scores that may come from a device; else empty

  const float* row(std::int64_t i) const { return values.data() + i * columns; }
};

struct ScoreEntry {
  std::string_view name;
  std::string_view help;
  std::string_view section;
  std::vector<ParamSpec> params;
  ScoreMatrix (*score)(const ScoreRequest&);  // thread safe; one head
};

const std::vector<ScoreEntry>& score_registry();
const ScoreEntry& find_score(const std::string& name);

// softmax(scale * mean(Q block) . mean(K block)) with every operation rounded to the record's dtype,
// by libtorch's CPU operators. Throws Unsupported in builds without libtorch.
ScoreMatrix faithful_pooled_scores(const ScoreRequest& request);

}  // namespace raingauge
