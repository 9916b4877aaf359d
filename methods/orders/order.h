// SPDX-License-Identifier: Apache-2.0
// A token order permutes the tokens of one visual grid. Attention itself does not change: only
// which tokens share a block does.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "data/tensor_view.h"
#include "methods/params.h"

namespace raingauge {

class Calibrator;
struct MethodOptions;

// One grid of frames x height x width tokens, raster index t*h*w + y*w + x.
struct OrderRequest {
  int frames = 0;
  int height = 0;
  int width = 0;
  std::uint64_t seed = 0;  // read by seeded orders only
  // False when frame 0 was taken out of the grid, or for an image: then no frame is special.
  bool has_frame0 = true;
  nlohmann::json params = nlohmann::json::object();
};

struct Order {
  std::vector<std::int32_t> index;  // position -> raster index, a bijection
  // Set when the order visits whole boxes of this size only: boxes in raster order of boxes, raster
  // inside a box, and the grid divides into them.
  std::optional<Windows> windows;
  // True when some frame's tokens do not fill the positions [t*h*w, (t+1)*h*w) of their own frame.
  // Filled by make_order().
  bool mixes_frames = false;
};

// What an order made from content sees: the tokens of one grid, and their rows of Q or of K.
struct ContentRequest {
  const TensorView& x;
  std::int64_t head = 0;
  std::span<const std::int32_t> tokens;
  std::uint64_t seed = 0;
  nlohmann::json params = nlohmann::json::object();
};

// What an order that chooses among the others sees: one head of a record.
struct ChoiceRequest {
  const RecordView& record;
  std::int64_t head = 0;
  const nlohmann::json& params;
  const std::string& base_folder;  // paths in `params` are relative to it
};

struct OrderSpec {
  std::string_view name;
  std::string_view help;     // one line for `raingauge list orders`
  std::string_view section;  // where its definition stands
  // With its default parameters, on a grid of several frames, several rows and several columns.
  bool mixes_frames = false;
  bool seeded = false;
  std::vector<ParamSpec> params = {};
};

// What an order's file defines; `make` sees a checked grid and completed parameters, and may throw
// Unsupported with the reason.
struct OrderEntry {
  OrderSpec spec;
  Order (*make)(const OrderRequest& request);
  // Orders made from content, one for the queries and one for the keys of every head: position ->
  // index into request.tokens. Such orders have no `make`.
  std::vector<std::int32_t> (*make_from_content)(const ContentRequest& request) = nullptr;

  // Orders that choose one of the others for each head, queries and keys alike: its name. No `make`.
  std::string (*choose)(const ChoiceRequest& request) = nullptr;
  // What such an order learns from captures for `raingauge calibrate`; null: nothing.
  std::unique_ptr<Calibrator> (*calibrator)(const nlohmann::json& params,
                                            const MethodOptions& options) = nullptr;

  bool from_content() const { return make_from_content != nullptr || choose != nullptr; }
};

}  // namespace raingauge
