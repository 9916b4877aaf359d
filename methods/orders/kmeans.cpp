// SPDX-License-Identifier: Apache-2.0
// Tokens of one k-means cluster become neighbours, as SVG2 (arXiv 2505.18875) sorts them: queries by
// clusters of Q, keys by clusters of K, each head its own. Here as an order under any block method,
// with blocks of equal size that may straddle clusters; method `svg2` makes each cluster a block.
#include "methods/kmeans.h"
#include "methods/orders/order.h"

namespace raingauge {
namespace {

constexpr std::int64_t kTokensPerCluster = 128;

std::vector<std::int32_t> make(const ContentRequest& request) {
  KMeansSpec spec;
  spec.clusters = request.params.at("clusters").get<std::int64_t>();
  if (spec.clusters == 0) {
    spec.clusters = (static_cast<std::int64_t>(request.tokens.size()) + kTokensPerCluster - 1) /
                    kTokensPerCluster;
  }
  spec.iterations = request.params.at("iterations").get<int>();
  spec.threads = 1;
  const std::vector<ClusterPoints> points = {
      {request.x, request.head, request.tokens, request.seed}};
  return sorted_by_label(kmeans(points, spec).at(0).labels, spec.clusters);
}

}  // namespace

OrderEntry kmeans_order() {
  return {{.name = "kmeans",
           .help = "tokens sorted by k-means cluster, queries and keys of each head apart",
           .section = "SVG2 (arXiv 2505.18875) section 4.1",
           .mixes_frames = true,
           .seeded = true,
           .params = {{.name = "clusters",
                       .type = ParamType::integer,
                       .default_value = 0,
                       .help = "clusters of the queries and of the keys; 0 = one for 128 tokens",
                       .min = 0,
                       .max = 1 << 20},
                      {.name = "iterations",
                       .type = ParamType::integer,
                       .default_value = 10,
                       .help = "Lloyd iterations at most, from tokens drawn with repetition",
                       .min = 1,
                       .max = 1000}}},
          nullptr,
          make};
}

}  // namespace raingauge
