// SPDX-License-Identifier: Apache-2.0
// SVG2 (arXiv 2505.18875) after its k-means, for one head: clusters as blocks, the estimate of their
// attention, and the choice of key clusters.
#pragma once

#include <cstdint>
#include <vector>

#include "data/record.h"
#include "methods/head_plans.h"
#include "methods/kmeans.h"

namespace raingauge::svg2 {

using Tokens = std::vector<std::int32_t>;

// Tokens of a record that make clusters, and those that do not.
struct Parts {
  Tokens video, text, pad;
};

struct Choice {
  double p = 0.9;          // estimated mass to pass, the crossing cluster included
  double min_share = 0.1;  // of the key clusters, kept whatever p
  bool solve = false;      // for `density` in token pairs, instead of p
  double density = 0.3;
  std::uint64_t row_seed = 0;
};

// Blocks are the clusters, then text (sees all, seen by all), then padding (sees itself alone); empty
// ones stay in place. Throws Infeasible when `min_share` and text alone exceed the density.
HeadPlan choose_clusters(const RecordView& record, const Parts& parts, const Clusters& q,
                         const Clusters& k, const Choice& choice);

}  // namespace raingauge::svg2
