// SPDX-License-Identifier: Apache-2.0
#include "methods/block_similarity.h"

#include <cmath>
#include <limits>
#include <vector>

namespace raingauge {
namespace {

// Adds one token's unit vector, false when it has none; `token` is scratch of head_dim floats.
bool add_unit(const TensorView& tensor, std::int64_t head, std::int64_t index,
              std::vector<float>& token, std::vector<double>& sum) {
  const auto width = static_cast<std::size_t>(tensor.head_dim);
  convert_to_float(tensor.row(head, index), tensor.dtype, token.data(), width);
  double squares = 0.0;
  for (const float x : token) squares += double(x) * double(x);
  if (squares == 0.0) return false;
  const double scale = 1.0 / std::sqrt(squares);
  for (std::size_t d = 0; d < width; ++d) sum[d] += scale * double(token[d]);
  return true;
}

}  // namespace

double block_similarity(const TensorView& tensor, std::int64_t head, const Orders& orders,
                        const Layout& layout) {
  std::vector<float> token(static_cast<std::size_t>(tensor.head_dim));
  std::vector<double> sum(token.size());
  double total = 0.0;
  std::int64_t blocks = 0;
  for (std::int64_t block = 0; block < layout.blocks; ++block) {
    const auto tokens = static_cast<double>(layout.size(head, block));
    if (tokens < 2.0) continue;
    sum.assign(sum.size(), 0.0);
    double units = 0.0;
    for (auto p = layout.begin(head, block); p < layout.end(head, block); ++p)
      units += add_unit(tensor, head, orders.token(head, p), token, sum) ? 1.0 : 0.0;
    double squares = 0.0;
    for (const double s : sum) squares += s * s;
    total += (squares - units) / (tokens * (tokens - 1.0));
    ++blocks;
  }
  return blocks == 0 ? std::numeric_limits<double>::quiet_NaN()
                     : total / static_cast<double>(blocks);
}

}  // namespace raingauge
