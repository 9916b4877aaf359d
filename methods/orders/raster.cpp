// SPDX-License-Identifier: Apache-2.0
// The order in which the model lists its tokens: frame by frame, row by row. What every other order
// is compared with.
#include <numeric>

#include "methods/orders/order.h"

namespace raingauge {
namespace {

Order make(const OrderRequest& request) {
  Order order;
  order.index.resize(static_cast<std::size_t>(request.frames) *
                     static_cast<std::size_t>(request.height) *
                     static_cast<std::size_t>(request.width));
  std::iota(order.index.begin(), order.index.end(), 0);
  return order;
}

}  // namespace

OrderEntry raster_order() {
  return {{.name = "raster",
           .help = "frame by frame, row by row: no permutation",
           .section = "the models' own token order"},
          make};
}

}  // namespace raingauge
