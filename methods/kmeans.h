// SPDX-License-Identifier: Apache-2.0
// k-means over the tokens of each head, as SVG2 (arXiv 2505.18875) groups queries and keys: Lloyd
// iterations by Euclidean distance in fp32, centroids rounded to the record's dtype.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/tensor_view.h"

namespace raingauge {

// The vectors of one head that are grouped: rows `tokens` of x.
struct ClusterPoints {
  const TensorView& x;
  std::int64_t head = 0;
  std::span<const std::int32_t> tokens;
  std::uint64_t seed = 0;  // of the tokens that serve as first centroids, drawn with repetition
};

struct KMeansSpec {
  std::int64_t clusters = 0;  // may exceed the number of points: some stay empty
  int iterations = 0;         // at most; at least 1
  double tolerance = 1e-4;    // the largest movement of a centroid, over all heads, that ends it
  int threads = 0;            // 0 = all; the result does not depend on it
};

// One head. `labels` and `sizes` belong to the assignment before the last update of the centroids.
struct Clusters {
  std::vector<float> centroids;      // [clusters, head_dim]
  std::vector<std::int32_t> labels;  // [points]
  std::vector<std::int32_t> sizes;   // [clusters]
  int iterations = 0;
};

// An iteration: label = nearest centroid (the squared distance clamped at 0, the first of equals);
// new centroid = mean of its points, kept where there are none. It ends when no centroid of any head
// moved by `tolerance` or more; that last update is discarded. `start`: centroids of each head to
// begin from, empty = draw them. Throws NotFinite for points that are not finite.
std::vector<Clusters> kmeans(const std::vector<ClusterPoints>& heads, const KMeansSpec& spec,
                             const std::vector<std::vector<float>>& start = {});

// Indices into `labels` sorted by label, equal labels in their order.
std::vector<std::int32_t> sorted_by_label(const std::vector<std::int32_t>& labels,
                                          std::int64_t clusters);

}  // namespace raingauge
