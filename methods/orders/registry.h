// SPDX-License-Identifier: Apache-2.0
// Which token orders are there? The table behind `raingauge list orders`, the key `order` and the
// contract tests, made from orders.def.
#pragma once

#include <string_view>
#include <vector>

#include "methods/orders/order.h"

namespace raingauge {

// In the order of orders.def.
const std::vector<OrderEntry>& order_registry();

// Throws Error that lists the known names and the nearest one.
const OrderEntry& find_order(std::string_view name);

// The checked way to an order: refuses grids that are empty or beyond int32 indices, completes the
// parameters (missing ones take their defaults; throws ParamError), verifies that the result is a
// bijection (InvalidPlan) and fills in `mixes_frames`. Throws Unsupported when the order refuses or is
// made from content.
Order make_order(std::string_view name, const OrderRequest& request);

}  // namespace raingauge
