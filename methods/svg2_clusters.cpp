// SPDX-License-Identifier: Apache-2.0
#include "methods/svg2_clusters.h"

#include <cmath>
#include <numeric>
#include <string>

#include "data/error.h"
#include "methods/pooling.h"
#include "methods/selection.h"

namespace raingauge::svg2 {
namespace {

// Blocks of one side of one head: video clusters, then text, then padding (both may be empty).
struct Side {
  SharedOrder order;
  std::vector<std::int32_t> offsets;
};

Side side_of(const Parts& parts, const Clusters& clusters) {
  Tokens order;
  for (const auto place :
       sorted_by_label(clusters.labels, static_cast<std::int64_t>(clusters.sizes.size()))) {
    order.push_back(parts.video[static_cast<std::size_t>(place)]);
  }
  order.insert(order.end(), parts.text.begin(), parts.text.end());
  order.insert(order.end(), parts.pad.begin(), parts.pad.end());
  Side side;
  side.offsets = {0};
  for (const auto size : clusters.sizes) side.offsets.push_back(side.offsets.back() + size);
  side.offsets.push_back(side.offsets.back() + static_cast<std::int32_t>(parts.text.size()));
  side.offsets.push_back(side.offsets.back() + static_cast<std::int32_t>(parts.pad.size()));
  side.order = std::make_shared<const Tokens>(std::move(order));
  return side;
}

std::vector<std::int64_t> sizes_of(const Side& side, const std::uint8_t* key_valid) {
  std::vector<std::int64_t> sizes;
  for (std::size_t b = 0; b + 1 < side.offsets.size(); ++b) {
    std::int64_t size = 0;
    for (auto p = side.offsets[b]; p < side.offsets[b + 1]; ++p) {
      const auto token = (*side.order)[static_cast<std::size_t>(p)];
      size += key_valid == nullptr || key_valid[token] != 0 ? 1 : 0;
    }
    sizes.push_back(size);
  }
  return sizes;
}

std::vector<std::uint8_t> exist(const std::vector<std::int64_t>& sizes) {
  std::vector<std::uint8_t> exists;
  for (const auto size : sizes) exists.push_back(size > 0 ? 1 : 0);
  return exists;
}

// log of m_j exp(S_ij): a softmax of it is the estimate P'. Text and padding get no part in it.
ScoreMatrix estimate(const RecordView& record, const Clusters& q, const Clusters& k,
                     const std::vector<std::int64_t>& key_sizes) {
  const auto d = record.head_dim();
  const auto nq = static_cast<std::int64_t>(q.sizes.size());
  const auto nk = static_cast<std::int64_t>(k.sizes.size());
  std::vector<float> products(static_cast<std::size_t>(nq * nk));
  pooled_scores(q.centroids.data(), nq, k.centroids.data(), nk, d,
                static_cast<float>(1.0 / std::sqrt(static_cast<double>(d))), products.data(), 1);
  ScoreMatrix scores;
  scores.rows = nq + 2;
  scores.columns = nk + 2;
  scores.values.assign(static_cast<std::size_t>(scores.rows * scores.columns), -INFINITY);
  for (std::int64_t i = 0; i < nq; ++i) {
    for (std::int64_t j = 0; j < nk; ++j) {
      const auto size = static_cast<float>(key_sizes[static_cast<std::size_t>(j)]);
      scores.values[static_cast<std::size_t>(i * scores.columns + j)] =
          products[static_cast<std::size_t>(i * nk + j)] + std::log(size);
    }
  }
  for (auto j = nq * scores.columns; j < scores.rows * scores.columns; ++j) {
    scores.values[static_cast<std::size_t>(j)] = 0.0F;  // text and padding rows choose nothing
  }
  return scores;
}

// Text is the last block but one on either side.
ForcedBlocks text_sees_all(std::int64_t rows, std::int64_t columns) {
  ForcedBlocks forced{rows, columns, {}};
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      forced.mask.push_back(i + 2 == rows || j + 2 == columns ? 1 : 0);
    }
  }
  return forced;
}

// Padding sees padding alone; where those keys are masked out, text or the first cluster there is,
// so that no row is empty.
void add_padding(const std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& columns,
                 KeptRows& kept) {
  if (rows.back() == 0) return;
  auto place = columns.size() - 1;
  if (columns[place] == 0) --place;
  for (std::size_t j = 0; columns[place] == 0 && j < columns.size(); ++j) {
    if (columns[j] > 0) place = j;
  }
  kept.back() = {static_cast<std::int32_t>(place)};
}

// `least`: what every row keeps whatever p.
void refuse_below_minimum(const KeptRows& kept, const KeptRows& least,
                          const std::vector<std::int64_t>& rows,
                          const std::vector<std::int64_t>& columns) {
  bool enough = true;
  double pairs = 0.0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    enough = enough && kept[i].size() >= least[i].size();
    for (const auto j : least[i]) {
      pairs +=
          static_cast<double>(rows[i]) * static_cast<double>(columns[static_cast<std::size_t>(j)]);
    }
  }
  if (enough) return;
  const auto sum = [](const std::vector<std::int64_t>& sizes) {
    return static_cast<double>(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}));
  };
  const double density = pairs / (sum(rows) * sum(columns));
  throw Infeasible(
      "svg2: the share of key clusters kept whatever p (min_kc_ratio) and text alone "
      "are " +
          std::to_string(density) + " of all pairs in some head",
      density);
}

KeptRows forced_rows(const ForcedBlocks& forced, const KeptRows& kept) {
  KeptRows rows(kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (const auto j : kept[i]) {
      if (forced.at(static_cast<std::int64_t>(i), j)) rows[i].push_back(j);
    }
  }
  return rows;
}

}  // namespace

HeadPlan choose_clusters(const RecordView& record, const Parts& parts, const Clusters& q,
                         const Clusters& k, const Choice& choice) {
  const Side qs = side_of(parts, q);
  const Side ks = side_of(parts, k);
  const auto rows = sizes_of(qs, nullptr);
  const auto columns = sizes_of(ks, record.key_valid);
  const ScoreMatrix scores = estimate(record, q, k, columns);
  auto row_exists = exist(rows);
  auto column_exists = exist(columns);
  row_exists.back() = column_exists.back() = 0;  // padding takes no part in the choice
  const ForcedBlocks forced = text_sees_all(scores.rows, scores.columns);
  // int(min_kc_ratio * Kk)
  const auto at_least =
      static_cast<std::int64_t>(choice.min_share * static_cast<double>(k.sizes.size()));
  const auto select = [&](double p, bool solve) {
    const nlohmann::json params = {{"p", p}, {"crossing", "in"}, {"at_least", at_least}};
    return select_blocks({scores, forced, rows, columns, row_exists, column_exists,
                          find_selector("top_p"), params, Budget::outside, choice.density, solve,
                          choice.row_seed});
  };
  HeadPlan plan;
  plan.q_order = qs.order;
  plan.k_order = ks.order;
  plan.q_offsets = qs.offsets;
  plan.k_offsets = ks.offsets;
  plan.kept = select(choice.p, choice.solve);
  if (choice.solve) refuse_below_minimum(plan.kept, select(1e-12, false), rows, columns);
  plan.forced = forced_rows(forced, plan.kept);
  add_padding(rows, columns, plan.kept);
  return plan;
}

}  // namespace raingauge::svg2
