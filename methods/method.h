// SPDX-License-Identifier: Apache-2.0
// A method decides: which tokens share a block, and which block pairs are attended. It knows nothing
// of kernels.
#pragma once

#include <any>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/error.h"
#include "data/plan.h"
#include "data/record.h"
#include "methods/device_plan.h"
#include "methods/params.h"

namespace raingauge {

struct MethodSpec {
  std::string_view name;
  std::string_view help;     // one line for `raingauge list methods`
  std::string_view section;  // where its definition stands (paper section, released file)
  std::vector<ParamSpec> params;
  // Named settings: preset -> values of other keys. A method with presets has the key `preset`.
  std::vector<std::pair<std::string, nlohmann::json>> presets = {};
  // What `raingauge explain` adds: where paper and released code differ, and what is ours.
  std::string_view details = {};
};

// How the arms of one experiment are brought to the same cost.
enum class DensityMatch {
  nominal,   // the knob as its authors round it
  measured,  // the knob solved per head until kept pairs / valid pairs equals `density`
};

struct MethodOptions {
  DensityMatch match = DensityMatch::nominal;
  std::uint64_t row_seed = 0;  // which query blocks get k+1 instead of k: the same for all arms
  int threads = 0;             // 0 = all
  std::string base_folder;     // paths in the parameters are relative to it
};

// What a method carries along a sequence (steps ascending). Owned by the runner, one per arm.
struct State {
  std::any memory;
  int last_step = -1;
};

class Method {
 public:
  virtual ~Method() = default;
  // Decides for one record. Deterministic: equal inputs, equal plan, for any thread count.
  // Throws Unsupported, Infeasible, NotFinite.
  virtual Plan plan(const RecordView& record, State& state) const = 0;
  virtual bool stateful() const { return false; }
  // The same decisions, made on a CUDA device for records of this one's shape (`record` is in host
  // memory). Throws Unsupported with the reason where this method, or this setting of it, decides on
  // the host only.
  virtual std::unique_ptr<DevicePlanner> device_planner(const RecordView& /*record*/,
                                                        const Device& /*device*/) const {
    throw Unsupported("this method decides on the host");
  }
  // False for methods whose full budget is not dense (their authors say so).
  virtual bool dense_at_full_budget() const { return true; }
};

// `params` has been completed by complete_method_params().
using MakeMethod = std::unique_ptr<Method> (*)(const nlohmann::json& params,
                                               const MethodOptions& options);

class Calibrator;

struct MethodEntry {
  MethodSpec spec;
  MakeMethod make;
  // What the method learns from captures for `raingauge calibrate`; null: nothing.
  std::unique_ptr<Calibrator> (*calibrator)(const nlohmann::json& params,
                                            const MethodOptions& options) = nullptr;
};

}  // namespace raingauge
