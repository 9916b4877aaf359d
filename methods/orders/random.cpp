// SPDX-License-Identifier: Apache-2.0
// A seeded shuffle of the whole grid: the floor under every order, where a block means nothing.
#include <numeric>

#include "data/random.h"
#include "methods/orders/order.h"

namespace raingauge {
namespace {

Order make(const OrderRequest& request) {
  Order order;
  order.index.resize(static_cast<std::size_t>(request.frames) *
                     static_cast<std::size_t>(request.height) *
                     static_cast<std::size_t>(request.width));
  std::iota(order.index.begin(), order.index.end(), 0);
  seeded_shuffle(order.index, hash_seed({request.seed}));
  return order;
}

}  // namespace

OrderEntry random_order() {
  return {{.name = "random",
           .help = "a seeded shuffle of the whole grid: the floor of all orders",
           .section = "control of our own",
           .mixes_frames = true,
           .seeded = true},
          make};
}

}  // namespace raingauge
