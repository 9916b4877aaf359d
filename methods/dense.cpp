// SPDX-License-Identifier: Apache-2.0
// Every query sees every key: what all others are compared with.
#include "methods/method.h"

namespace raingauge {
namespace {

class Dense : public Method {
 public:
  explicit Dense(int block) : block_(block) {}
  Plan plan(const RecordView& record, State& /*state*/) const override {
    Plan plan = dense_plan(record.heads(), record.tokens(), block_);
    return plan;
  }
  std::unique_ptr<DevicePlanner> device_planner(const RecordView& record,
                                                const Device& device) const override {
    return make_fixed_planner(dense_plan(record.heads(), record.tokens(), block_), device);
  }

 private:
  int block_;
};

}  // namespace

MethodEntry dense_method() {
  return {{"dense",
           "every query sees every key",
           "",
           {{.name = "block",
             .type = ParamType::integer,
             .default_value = 128,
             .help = "tokens per block of the plan handed to kernels",
             .min = 1,
             .max = 65536}}},
          [](const nlohmann::json& params, const MethodOptions&) -> std::unique_ptr<Method> {
            return std::make_unique<Dense>(params.at("block").get<int>());
          }};
}

}  // namespace raingauge
