// SPDX-License-Identifier: Apache-2.0
#include "methods/self_similarity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "methods/pooling.h"

namespace raingauge {
namespace {

double squared_norm(const float* x, std::size_t count) {
  double sum = 0.0;
  for (std::size_t c = 0; c < count; ++c) sum += double{x[c]} * double{x[c]};
  return sum;
}

class BlockSum {
 public:
  BlockSum(std::size_t dim, SimilarityMeasure measure) : sum_(dim, 0.0), measure_(measure) {}

  void add(const std::vector<float>& token) {
    const double norm2 = squared_norm(token.data(), token.size());
    const double factor = measure_ == SimilarityMeasure::cosine ? 1.0 / std::sqrt(norm2) : 1.0;
    for (std::size_t c = 0; c < sum_.size(); ++c) sum_[c] += factor * double{token[c]};
    largest_ = std::max(largest_, norm2);
    ++count_;
  }

  double similarity() const {
    if (count_ == 0) return std::numeric_limits<double>::quiet_NaN();
    double pairs = 0.0;
    for (const double s : sum_) pairs += s * s;
    const double mean = pairs / (static_cast<double>(count_) * static_cast<double>(count_));
    return measure_ == SimilarityMeasure::cosine ? mean : mean / largest_;
  }

 private:
  std::vector<double> sum_;
  SimilarityMeasure measure_;
  double largest_ = 0.0;
  std::int64_t count_ = 0;
};

}  // namespace

std::vector<double> self_similarity(const TensorView& x, std::int64_t head, const Orders& order,
                                    const Layout& layout, SimilarityMeasure measure,
                                    const float* centre, const std::uint8_t* key_valid) {
  const auto dim = static_cast<std::size_t>(x.head_dim);
  std::vector<double> similarity;
  std::vector<float> token(dim);
  for (std::int64_t block = 0; block < layout.blocks; ++block) {
    BlockSum sum(dim, measure);
    for (auto p = layout.begin(0, block); p < layout.end(0, block); ++p) {
      const auto index = order.token(head, p);
      if (key_valid != nullptr && key_valid[index] == 0) continue;
      convert_to_float(x.row(head, index), x.dtype, token.data(), dim);
      for (std::size_t c = 0; centre != nullptr && c < dim; ++c) token[c] -= centre[c];
      sum.add(token);
    }
    similarity.push_back(sum.similarity());
  }
  return similarity;
}

std::vector<float> token_mean(const TensorView& x, std::int64_t head,
                              const std::uint8_t* key_valid) {
  Orders order;
  order.tokens = x.tokens;
  Layout all;
  all.blocks = 1;
  all.offsets = {0, static_cast<std::int32_t>(x.tokens)};
  std::vector<float> mean(static_cast<std::size_t>(x.head_dim));
  pool_blocks(x, head, order, all, mean.data(), key_valid, 1);
  return mean;
}

}  // namespace raingauge
