// SPDX-License-Identifier: Apache-2.0
#include "methods/paro_calibration.h"

#include <algorithm>
#include <map>

#include "data/error.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

using nlohmann::json;

// Sums over the records of one layer.
struct LayerSums {
  std::vector<int> heads;
  std::vector<AxisTable> axes;  // [H]
  double records = 0.0;
  std::int64_t rows = 0, columns = 0;
  std::map<std::string, std::vector<double>> mass;  // group -> [H, rows, columns]
  std::map<std::string, double> mass_records;
};

class ParoCalibrator : public Calibrator {
 public:
  ParoCalibrator(json params, int threads, bool masks)
      : params_(std::move(params)), threads_(threads), masks_(masks) {}

  int passes() const override { return masks_ ? 2 : 1; }

  void add(const RecordView& record, int pass) override {
    LayerSums& layer = layers_[site_prefix(record.info->site)];
    if (layer.heads.empty()) {
      layer.heads = record.info->heads;
      layer.axes.resize(layer.heads.size());
    } else if (layer.heads != record.info->heads) {
      throw Unsupported("calibrate: the records of one layer have different heads");
    }
    if (pass == 0) {
      last_step_ = std::max(last_step_, record.info->site.step);
      add_axes(record, layer);
    } else {
      add_mass(record, layer);
    }
  }

  CalibrationFile result() const override {
    CalibrationFile file;
    file.facts["kind"] = masks_ ? "paro-plan" : "paro-order";
    if (masks_) {
      file.facts["groups"] = params_.at("step_groups").get<std::string>();
      file.facts["boundary"] = std::to_string(boundary());
    }
    for (const auto& [prefix, layer] : layers_) add_tables(file, prefix, layer);
    return file;
  }

 private:
  double alpha() const { return params_.at("alpha").get<double>(); }

  // First step of the half whose steps share one mask.
  int boundary() const {
    const auto& groups = params_.at("step_groups");
    if (groups == "shared") return 0;
    return groups == "each" ? last_step_ + 1 : (last_step_ + 2) / 2;
  }

  void add_axes(const RecordView& record, LayerSums& layer) const {
    parallel_for(threads_, record.heads(), [&](std::int64_t head, int) {
      const auto table = axis_statistics(record, head, axis_probe(params_));
      auto& sums = layer.axes[static_cast<std::size_t>(head)];
      for (std::size_t i = 0; i < kAxisOrders; ++i) {
        sums[i].near_empty += table[i].near_empty;
        sums[i].peak_over_mean += table[i].peak_over_mean;
      }
    });
    layer.records += 1.0;
  }

  AxisTable mean_axes(const LayerSums& layer, std::size_t head) const {
    AxisTable table = layer.axes[head];
    for (auto& order : table) {
      order.near_empty /= layer.records;
      order.peak_over_mean /= layer.records;
    }
    return table;
  }

  std::size_t order_of(const LayerSums& layer, std::size_t head) const {
    if (!params_.value("reorder", true)) return 0;
    return choose_axis_order(mean_axes(layer, head), alpha());
  }

  void add_mass(const RecordView& record, LayerSums& layer) const {
    const int step = record.info->site.step;
    const auto group = step >= boundary() ? std::string("all") : "step" + std::to_string(step);
    for (std::size_t h = 0; h < layer.heads.size(); ++h) {
      ArrangementSpec spec;
      spec.frame0 = Frame0::in_place;
      spec.block_q = spec.block_k = params_.at("block").get<int>();
      spec.order = {{"name", kAxisOrderNames[order_of(layer, h)]}, {"params", json::object()}};
      const auto arranged = arrange(record.info->segments, record.tokens(), spec);
      Plan plan;
      plan.heads = record.heads();
      plan.tokens = record.tokens();
      plan.q_order = plan.k_order = arranged.order;
      plan.q_blocks = arranged.q_blocks;
      plan.k_blocks = arranged.k_blocks;
      if (layer.rows == 0) {
        layer.rows = plan.q_blocks.blocks;
        layer.columns = plan.k_blocks.blocks;
      }
      if (layer.rows != plan.q_blocks.blocks || layer.columns != plan.k_blocks.blocks) {
        throw Unsupported("calibrate: records of one layer have grids or texts of different sizes");
      }
      const auto size = static_cast<std::size_t>(layer.rows * layer.columns);
      auto& sums = layer.mass[group];
      sums.resize(size * layer.heads.size(), 0.0);
      const auto mass = block_mass(record, static_cast<std::int64_t>(h), plan, threads_);
      for (std::size_t i = 0; i < size; ++i) sums[h * size + i] += mass[i];
    }
    layer.mass_records[group] += 1.0;
  }

  void add_tables(CalibrationFile& file, const std::string& prefix, const LayerSums& layer) const {
    const auto h = static_cast<std::int64_t>(layer.heads.size());
    CalibrationTable heads{{h}, {}}, order{{h}, {}};
    CalibrationTable near_empty{{h, kAxisOrders}, {}}, peak{{h, kAxisOrders}, {}};
    for (std::size_t i = 0; i < layer.heads.size(); ++i) {
      heads.values.push_back(static_cast<float>(layer.heads[i]));
      order.values.push_back(static_cast<float>(order_of(layer, i)));
      for (const auto& axes : mean_axes(layer, i)) {
        near_empty.values.push_back(static_cast<float>(axes.near_empty));
        peak.values.push_back(static_cast<float>(axes.peak_over_mean));
      }
    }
    file.tables[prefix + "heads"] = std::move(heads);
    file.tables[prefix + "order"] = std::move(order);
    file.tables[prefix + "near_empty"] = std::move(near_empty);
    file.tables[prefix + "peak_over_mean"] = std::move(peak);
    for (const auto& [group, sums] : layer.mass) {
      CalibrationTable mass{{h, layer.rows, layer.columns}, {}};
      for (const double sum : sums) {
        mass.values.push_back(static_cast<float>(sum / layer.mass_records.at(group)));
      }
      file.tables[prefix + group + ".mass"] = std::move(mass);
    }
  }

  json params_;
  int threads_;
  bool masks_;
  int last_step_ = 0;
  std::map<std::string, LayerSums> layers_;
};

}  // namespace

std::vector<ParamSpec> axis_params() {
  return {
      {.name = "calibration",
       .type = ParamType::path,
       .default_value = nullptr,
       .help = "file of `raingauge calibrate` to take decisions from; not given: an oracle, which "
               "decides on the record itself"},
      {.name = "alpha",
       .type = ParamType::real,
       .default_value = 0.5,
       .help = "weight of sparsity against quantisation in the choice of an order (unpublished)",
       .min = 0.0,
       .max = 1.0},
      {.name = "probe_stride",
       .type = ParamType::integer,
       .default_value = 8,
       .help = "every n-th query block is looked at",
       .min = 1},
      {.name = "probe_block",
       .type = ParamType::integer,
       .default_value = 64,
       .help = "block of the two statistics",
       .min = 1,
       .max = 1024},
      {.name = "empty_share",
       .type = ParamType::real,
       .default_value = 0.9,
       .help = "a block is near-empty when this share of its entries is below `empty_below`",
       .min = 0.0,
       .max = 1.0},
      {.name = "empty_below",
       .type = ParamType::real,
       .default_value = 1e-3,
       .help = "probability",
       .min = 0.0,
       .max = 1.0}};
}

AxisProbe axis_probe(const json& params) {
  AxisProbe probe;
  probe.block = params.at("probe_block").get<int>();
  probe.stride = params.at("probe_stride").get<int>();
  probe.share = params.at("empty_share").get<double>();
  probe.epsilon = params.at("empty_below").get<double>();
  return probe;
}

std::unique_ptr<Calibrator> make_paro_calibrator(const json& params, const MethodOptions& options,
                                                 bool masks) {
  return std::make_unique<ParoCalibrator>(params, options.threads, masks);
}

std::string calibrated_axis_order(const std::string& path, const RecordInfo& info,
                                  std::int64_t head) {
  const auto file = shared_calibration(path);
  const auto prefix = site_prefix(info.site);
  const auto row =
      calibrated_row(*file, path, prefix, info.heads.at(static_cast<std::size_t>(head)));
  const auto& orders = find_table(*file, path, prefix + "order").values;
  const float order = row < static_cast<std::int64_t>(orders.size())
                          ? orders[static_cast<std::size_t>(row)]
                          : -1.0F;
  if (!(order >= 0.0F) || !(order < static_cast<float>(kAxisOrders))) {
    throw Error(path + ": table '" + prefix + "order' holds no number of an axis order (0 to 5)");
  }
  return kAxisOrderNames[static_cast<std::size_t>(order)];
}

std::vector<float> calibrated_mass(const std::string& path, const RecordInfo& info,
                                   std::int64_t head, std::int64_t rows, std::int64_t columns) {
  const auto file = shared_calibration(path);
  const auto prefix = site_prefix(info.site);
  const auto row =
      calibrated_row(*file, path, prefix, info.heads.at(static_cast<std::size_t>(head)));
  const auto boundary = file->facts.find("boundary");
  if (boundary == file->facts.end()) {
    throw Unsupported(path +
                      ": a calibration of orders alone; calibrate method paro for its masks");
  }
  const bool shared = info.site.step >= std::stoi(boundary->second);
  const auto group = shared ? std::string("all") : "step" + std::to_string(info.site.step);
  const auto& table = find_table(*file, path, prefix + group + ".mass");
  if (table.shape.size() != 3 || table.shape[0] <= row || table.shape[1] != rows ||
      table.shape[2] != columns) {
    throw Unsupported(path +
                      ": calibrated for another number of blocks (another grid, text or block)");
  }
  const auto first = table.values.begin() + row * rows * columns;
  return {first, first + rows * columns};
}

}  // namespace raingauge
