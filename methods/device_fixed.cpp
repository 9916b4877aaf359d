// SPDX-License-Identifier: Apache-2.0
// Lists that do not change, kept on a device.
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "data/error.h"
#include "methods/device_plan.h"
#include "methods/kernels/device.h"

namespace raingauge {
namespace {

class FixedPlanner final : public DevicePlanner {
 public:
  FixedPlanner(Plan plan, const Device& device)
      : device_(device), plan_(std::move(plan)), frame_(plan_) {
    frame_.lists.row_offsets.clear();
    frame_.lists.columns.clear();
    const BlockLists& lists = plan_.lists;
    const auto stride = static_cast<std::size_t>(plan_.k_blocks.blocks);
    std::vector<std::int32_t> counts;
    std::vector<std::int32_t> columns(
        static_cast<std::size_t>(lists.heads * lists.query_blocks) * stride, 0);
    for (std::int64_t head = 0; head < lists.heads; ++head) {
      for (std::int64_t row = 0; row < lists.query_blocks; ++row) {
        std::copy_n(lists.begin(head, row), lists.count(head, row),
                    columns.data() + counts.size() * stride);
        counts.push_back(static_cast<std::int32_t>(lists.count(head, row)));
      }
    }
    every_pair_ = keeps_every_pair(plan_);
    counts_ = to_device(device, counts);
    columns_ = to_device(device, columns);
  }

  bool decides() const override { return false; }
  void plan(const TensorView& /*q*/, const TensorView& /*k*/, const KeyBoxes& boxes) override {
    if (boxes.data != nullptr) throw Error("device plan: fixed lists read no keys and copy none");
  }
  DeviceLists lists() const override {
    return {device_,
            frame_id_,
            plan_.lists.heads,
            plan_.lists.query_blocks,
            plan_.k_blocks.blocks,
            counts_.as<std::int32_t>(),
            columns_.as<std::int32_t>(),
            every_pair_};
  }
  const Plan& frame() const override { return frame_; }
  Plan fetch() const override { return plan_; }

 private:
  Device device_;
  std::uint64_t frame_id_ = next_device_frame();
  Plan plan_, frame_;
  bool every_pair_ = false;
  DeviceBuffer counts_, columns_;
};

}  // namespace

std::unique_ptr<DevicePlanner> make_fixed_planner(const Plan& plan, const Device& device) {
  return std::make_unique<FixedPlanner>(plan, device);
}

}  // namespace raingauge
