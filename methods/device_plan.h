// SPDX-License-Identifier: Apache-2.0
// Plans made where the tensors are: no list crosses the bus. A device's plan is the host's (same order
// of operations), and can be fetched to check that.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "data/plan.h"
#include "data/tensor_view.h"

namespace raingauge {

// Block lists in device memory: row (head, query block) holds counts[row] key blocks, ascending, from
// columns[row * stride] on.
struct DeviceLists {
  Device device;
  std::uint64_t frame = 0;  // names the orders and layouts: equal numbers, equal frames
  std::int64_t heads = 0, query_blocks = 0, stride = 0;
  const std::int32_t* counts = nullptr;
  const std::int32_t* columns = nullptr;
  bool every_pair = false;  // the lists name every key block of every query block that has rows
};

// A number for DeviceLists::frame that no other planner has.
inline std::uint64_t next_device_frame() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

// Where a planner leaves a copy of the keys in block order while it reads them for their means: [heads,
// key blocks, rows, head_dim] of the keys' type, zeros after a block's last key.
struct KeyBoxes {
  void* data = nullptr;   // device memory; null: no copy is wanted
  std::int32_t rows = 0;  // of every block; at least as many as its tokens
};

// A method's decision for records of one shape: orders, layouts and forced blocks are made once on the
// host; what depends on Q and K is decided on the device at every call.
class DevicePlanner {
 public:
  virtual ~DevicePlanner() = default;
  // False: the lists depend on nothing and are there from the start; plan() does nothing.
  virtual bool decides() const { return true; }
  // Launches on the default stream and returns before the work is done. q, k: the record's heads, in
  // its token order, on the planner's device. No copy can be had of records that rule keys out.
  virtual void plan(const TensorView& q, const TensorView& k, const KeyBoxes& boxes = {}) = 0;
  // Of the last plan(); valid until the next one.
  virtual DeviceLists lists() const = 0;
  // Orders and layouts, with empty lists.
  virtual const Plan& frame() const = 0;
  // The last plan in host memory.
  virtual Plan fetch() const = 0;
};

// A plan that is made already, with one row of orders and layouts or one a head: its lists are copied to
// the device once. Throws Error where the device has no room for heads x query blocks x key blocks.
std::unique_ptr<DevicePlanner> make_fixed_planner(const Plan& plan, const Device& device);

}  // namespace raingauge
