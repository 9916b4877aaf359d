// SPDX-License-Identifier: Apache-2.0
// The table of orders, one entry for every line of orders.def, and the checks shared by all of
// them.
#include "methods/orders/registry.h"

#include <cstddef>
#include <limits>
#include <string>

#include "data/error.h"

namespace raingauge {

#define RAINGAUGE_ORDER(name, ...) OrderEntry name##_order();
#include "methods/orders/orders.def"
#undef RAINGAUGE_ORDER

namespace {

std::string grid_text(const OrderRequest& request) {
  return std::to_string(request.frames) + "x" + std::to_string(request.height) + "x" +
         std::to_string(request.width);
}

std::size_t checked_tokens(std::string_view name, const OrderRequest& request) {
  const std::string where = "order '" + std::string(name) + "', grid " + grid_text(request) +
                            " (frames x height x width): ";
  if (request.frames < 1 || request.height < 1 || request.width < 1) {
    throw Error(where + "every side must be at least 1");
  }
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  const std::int64_t frame = std::int64_t{request.height} * request.width;
  if (frame > kMost || frame * request.frames > kMost) {
    throw Error(where + "more than 2147483647 tokens, the most an order can index");
  }
  return static_cast<std::size_t>(frame * request.frames);
}

void check_bijection(std::string_view name, const OrderRequest& request,
                     const std::vector<std::int32_t>& index, std::size_t tokens) {
  const std::string where = "order '" + std::string(name) + "', grid " + grid_text(request) + ": ";
  if (index.size() != tokens) {
    throw InvalidPlan(where + "gave " + std::to_string(index.size()) + " positions for " +
                      std::to_string(tokens) + " tokens");
  }
  std::vector<bool> seen(tokens, false);
  for (std::size_t position = 0; position < tokens; ++position) {
    const auto token = static_cast<std::size_t>(index[position]);  // a negative one becomes huge
    if (token >= tokens || seen[token]) {
      throw InvalidPlan(where + "position " + std::to_string(position) + " holds token " +
                        std::to_string(index[position]) +
                        (token >= tokens ? ", out of range" : ", which an earlier position holds"));
    }
    seen[token] = true;
  }
}

bool moves_across_frames(const std::vector<std::int32_t>& index, std::size_t frame_size) {
  for (std::size_t position = 0; position < index.size(); ++position) {
    if (static_cast<std::size_t>(index[position]) / frame_size != position / frame_size)
      return true;
  }
  return false;
}

}  // namespace

const std::vector<OrderEntry>& order_registry() {
  static const std::vector<OrderEntry> kEntries = {
#define RAINGAUGE_ORDER(name, ...) name##_order(),
#include "methods/orders/orders.def"
#undef RAINGAUGE_ORDER
  };
  return kEntries;
}

const OrderEntry& find_order(std::string_view name) {
  std::vector<std::string> known;
  for (const OrderEntry& entry : order_registry()) {
    if (entry.spec.name == name) return entry;
    known.emplace_back(entry.spec.name);
  }
  throw Error("unknown order '" + std::string(name) + "'" + known_names_hint(name, known));
}

Order make_order(std::string_view name, const OrderRequest& request) {
  const OrderEntry& entry = find_order(name);
  const std::size_t tokens = checked_tokens(name, request);
  if (entry.from_content()) {
    throw Unsupported("order '" + std::string(name) +
                      "' is made from the queries and keys of a head; a grid alone has none");
  }
  OrderRequest complete = request;
  const auto given = request.params.is_null() ? nlohmann::json::object() : request.params;
  complete.params = complete_params(entry.spec.params, given, nullptr, "/" + std::string(name));
  Order order = entry.make(complete);
  check_bijection(name, request, order.index, tokens);
  order.mixes_frames =
      moves_across_frames(order.index, static_cast<std::size_t>(request.height) *
                                           static_cast<std::size_t>(request.width));
  return order;
}

}  // namespace raingauge
