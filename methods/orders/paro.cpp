// SPDX-License-Identifier: Apache-2.0
// PAROAttention's reordering (arXiv 2506.16054, section 3) under any block method: of the six axis
// orders, each head takes the one that makes its attention most block-like. Without `calibration` the
// choice looks at the record itself (an oracle: 6 / stride of a dense Q K^T); with it, the choice that
// `raingauge calibrate` made on other captures is used.
#include "data/calibration_file.h"
#include "data/error.h"
#include "methods/calibration.h"
#include "methods/orders/order.h"
#include "methods/paro_calibration.h"

namespace raingauge {
namespace {

std::string choose(const ChoiceRequest& request) {
  if (!request.params.contains("calibration")) {
    const auto table = axis_statistics(request.record, request.head, axis_probe(request.params));
    return kAxisOrderNames.at(choose_axis_order(table, request.params.at("alpha").get<double>()));
  }
  const auto path =
      calibration_path(request.params.at("calibration").get<std::string>(), request.base_folder);
  return calibrated_axis_order(path, *request.record.info, request.head);
}

}  // namespace

OrderEntry paro_order() {
  return {{.name = "paro",
           .help = "for each head the axis order that makes its attention most block-like",
           .section = "PAROAttention (arXiv 2506.16054) section 3; weights and sign as noted in "
                      "methods/paro_axes.h",
           .mixes_frames = true,
           .params = axis_params()},
          nullptr,
          nullptr,
          choose,
          [](const nlohmann::json& params, const MethodOptions& options) {
            return make_paro_calibrator(params, options, false);
          }};
}

}  // namespace raingauge
