// SPDX-License-Identifier: Apache-2.0
// Points are converted to fp32 a few rows at a time, so no copy of Q or K is ever made.
#include "methods/kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "data/error.h"
#include "data/random.h"
#include "methods/kernels/cpu/buffer.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

using cpu::kUnit;

constexpr std::int64_t kRows = 24;            // points whose distances are held at once
constexpr std::int64_t kPointsPerItem = 960;  // of the queue

void read_row(const TensorView& x, std::int64_t head, std::int64_t token, float* row) {
  convert_to_float(x.row(head, token), x.dtype, row, static_cast<std::size_t>(x.head_dim));
}

float squared_norm(const float* row, std::int64_t dim) {
  float sum = 0.0F;
  for (std::int64_t c = 0; c < dim; ++c) sum += row[c] * row[c];
  return sum;
}

// Centroids packed for the product with points, and their squared norms.
struct Packed {
  cpu::Buffer<std::uint32_t> words;
  std::vector<float> norms;

  Packed(const std::vector<float>& centroids, std::int64_t clusters, std::int64_t dim) {
    const cpu::PackShape shape{DType::f32, static_cast<int>(dim), cpu::Products::floats};
    const std::int64_t units = (clusters + kUnit - 1) / kUnit;
    words = cpu::make_buffer<std::uint32_t>(static_cast<std::size_t>(units) * shape.k_unit_words());
    for (std::int64_t unit = 0; unit < units; ++unit) {
      const void* rows[kUnit];
      for (int i = 0; i < kUnit; ++i) {
        const std::int64_t cluster = unit * kUnit + i;
        rows[i] = cluster < clusters ? centroids.data() + cluster * dim : nullptr;
      }
      cpu::level_ops().pack_k(shape, rows,
                              words.get() + static_cast<std::size_t>(unit) * shape.k_unit_words());
    }
    for (std::int64_t j = 0; j < clusters; ++j) {
      norms.push_back(squared_norm(centroids.data() + j * dim, dim));
    }
  }
};

class Lloyd {
 public:
  Lloyd(const std::vector<ClusterPoints>& heads, const KMeansSpec& spec,
        const std::vector<std::vector<float>>& start)
      : heads_(heads), spec_(spec), results_(heads.size()) {
    for (std::size_t h = 0; h < heads.size(); ++h) {
      auto& result = results_[h];
      result.labels.resize(heads[h].tokens.size());
      result.sizes.resize(static_cast<std::size_t>(spec.clusters));
      result.centroids = h < start.size() && !start[h].empty() ? start[h] : drawn(heads[h]);
    }
  }

  std::vector<Clusters> run() {
    for (int iteration = 1; iteration <= spec_.iterations; ++iteration) {
      assign();
      const double moved = update();
      for (auto& result : results_) result.iterations = iteration;
      if (moved < spec_.tolerance) break;
      for (std::size_t h = 0; h < results_.size(); ++h) results_[h].centroids.swap(updated_[h]);
    }
    return std::move(results_);
  }

 private:
  std::vector<float> drawn(const ClusterPoints& points) const {
    const auto dim = points.x.head_dim;
    std::vector<float> centroids(static_cast<std::size_t>(spec_.clusters * dim));
    for (std::int64_t j = 0; j < spec_.clusters; ++j) {
      const auto pick = below(hash_seed({points.seed, static_cast<std::uint64_t>(j)}),
                              static_cast<std::uint64_t>(points.tokens.size()));
      read_row(points.x, points.head, points.tokens[pick], centroids.data() + j * dim);
    }
    return centroids;
  }

  void assign() {
    std::vector<Packed> packed;
    std::vector<std::pair<std::size_t, std::size_t>> items;  // head, first point
    for (std::size_t h = 0; h < heads_.size(); ++h) {
      packed.emplace_back(results_[h].centroids, spec_.clusters, heads_[h].x.head_dim);
      for (std::size_t first = 0; first < heads_[h].tokens.size(); first += kPointsPerItem) {
        items.emplace_back(h, first);
      }
    }
    parallel_for(spec_.threads, static_cast<std::int64_t>(items.size()),
                 [&](std::int64_t item, int) {
                   const auto [h, first] = items[static_cast<std::size_t>(item)];
                   label_points(h, first, packed[h]);
                 });
  }

  void label_points(std::size_t h, std::size_t first, const Packed& packed) {
    const ClusterPoints& points = heads_[h];
    const auto dim = points.x.head_dim;
    const auto last = std::min<std::size_t>(first + kPointsPerItem, points.tokens.size());
    std::vector<float> rows(static_cast<std::size_t>(kRows * dim));
    std::vector<float> dots(static_cast<std::size_t>(kRows * spec_.clusters));
    const auto scratch = cpu::make_buffer<float>(cpu::scratch_floats(static_cast<int>(dim)));
    for (std::size_t at = first; at < last; at += kRows) {
      const auto count = static_cast<std::int64_t>(std::min<std::size_t>(kRows, last - at));
      for (std::int64_t i = 0; i < count; ++i) {
        read_row(points.x, points.head, points.tokens[at + static_cast<std::size_t>(i)],
                 rows.data() + i * dim);
      }
      cpu::level_ops().scores(rows.data(), count, static_cast<int>(dim), packed.words.get(),
                              spec_.clusters, 1.0F, scratch.get(), dots.data(), spec_.clusters);
      for (std::int64_t i = 0; i < count; ++i) {
        results_[h].labels[at + static_cast<std::size_t>(i)] =
            nearest(squared_norm(rows.data() + i * dim, dim), dots.data() + i * spec_.clusters,
                    packed.norms, points, at + static_cast<std::size_t>(i));
      }
    }
  }

  std::int32_t nearest(float norm, const float* dots, const std::vector<float>& norms,
                       const ClusterPoints& points, std::size_t point) const {
    float best = std::numeric_limits<float>::infinity();
    std::int32_t label = -1;
    for (std::size_t j = 0; j < norms.size(); ++j) {
      const float distance = std::max(norm + norms[j] - 2.0F * dots[j], 0.0F);
      if (distance < best) {
        best = distance;
        label = static_cast<std::int32_t>(j);
      }
    }
    if (label < 0) {
      throw NotFinite("k-means: token " + std::to_string(points.tokens[point]) + " of head " +
                      std::to_string(points.head) + " has no finite distance to any centroid");
    }
    return label;
  }

  // Fills updated_; the largest movement of a centroid over all heads.
  double update() {
    updated_.resize(heads_.size());
    std::vector<double> moved(heads_.size(), 0.0);
    parallel_for(
        spec_.threads, static_cast<std::int64_t>(heads_.size()), [&](std::int64_t head, int) {
          moved[static_cast<std::size_t>(head)] = update_head(static_cast<std::size_t>(head));
        });
    return moved.empty() ? 0.0 : *std::max_element(moved.begin(), moved.end());
  }

  double update_head(std::size_t h) {
    const ClusterPoints& points = heads_[h];
    auto& result = results_[h];
    const auto dim = static_cast<std::size_t>(points.x.head_dim);
    std::vector<double> sums(result.centroids.size(), 0.0);
    std::vector<float> row(dim);
    std::fill(result.sizes.begin(), result.sizes.end(), 0);
    for (std::size_t i = 0; i < points.tokens.size(); ++i) {
      const auto label = static_cast<std::size_t>(result.labels[i]);
      read_row(points.x, points.head, points.tokens[i], row.data());
      ++result.sizes[label];
      for (std::size_t c = 0; c < dim; ++c) sums[label * dim + c] += double{row[c]};
    }
    auto& next = updated_[h];
    next = result.centroids;
    double largest = 0.0;
    for (std::size_t j = 0; j < result.sizes.size(); ++j) {
      if (result.sizes[j] == 0) continue;
      double square = 0.0;
      for (std::size_t c = 0; c < dim; ++c) {
        row[c] = static_cast<float>(sums[j * dim + c] / result.sizes[j]);
      }
      round_to(points.x.dtype, row);
      for (std::size_t c = 0; c < dim; ++c) {
        const double step = double{row[c]} - double{next[j * dim + c]};
        square += step * step;
        next[j * dim + c] = row[c];
      }
      largest = std::max(largest, std::sqrt(square));
    }
    return largest;
  }

  static void round_to(DType dtype, std::vector<float>& row) {
    if (dtype == DType::f32) return;
    std::vector<std::uint16_t> stored(row.size());
    convert_from_float(row.data(), stored.data(), dtype, row.size());
    convert_to_float(stored.data(), dtype, row.data(), row.size());
  }

  const std::vector<ClusterPoints>& heads_;
  const KMeansSpec& spec_;
  std::vector<Clusters> results_;
  std::vector<std::vector<float>> updated_;
};

}  // namespace

std::vector<Clusters> kmeans(const std::vector<ClusterPoints>& heads, const KMeansSpec& spec,
                             const std::vector<std::vector<float>>& start) {
  if (spec.clusters < 1 || spec.iterations < 1) {
    throw Error("k-means: " + std::to_string(spec.clusters) + " clusters, " +
                std::to_string(spec.iterations) + " iterations; at least one of each is needed");
  }
  for (const auto& points : heads) {
    if (points.tokens.empty()) throw Error("k-means: a head without points");
  }
  return Lloyd(heads, spec, start).run();
}

std::vector<std::int32_t> sorted_by_label(const std::vector<std::int32_t>& labels,
                                          std::int64_t clusters) {
  std::vector<std::int32_t> next(static_cast<std::size_t>(clusters) + 1, 0);
  for (const auto label : labels) ++next[static_cast<std::size_t>(label) + 1];
  for (std::size_t j = 1; j < next.size(); ++j) next[j] += next[j - 1];
  std::vector<std::int32_t> order(labels.size());
  for (std::size_t i = 0; i < labels.size(); ++i) {
    order[static_cast<std::size_t>(next[static_cast<std::size_t>(labels[i])]++)] =
        static_cast<std::int32_t>(i);
  }
  return order;
}

}  // namespace raingauge
