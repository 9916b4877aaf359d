// SPDX-License-Identifier: Apache-2.0
// Host side of the sm_90a kernel: boxes, lists and buffers on the device. Part of the kernel `cuda`;
// in builds with CUDA only.
#pragma once

#include <map>
#include <memory>

#include "methods/device_plan.h"
#include "methods/kernels/cuda/boxes.h"
#include "methods/kernels/device.h"
#include "methods/kernels/kernel.h"

namespace raingauge {

class HopperForward {
 public:
  // sm_90, a positive scale; the kernel `cuda` has checked the rest.
  bool covers(const AttendInputs& inputs) const;
  std::unique_ptr<Prepared> prepare(const Plan& plan, const AttendInputs& inputs, int threads);

  // Whether lists of a device's planner on this frame are lists of boxes as they stand.
  bool takes_lists(const Plan& frame) const;
  HopperForward();
  ~HopperForward();

  // The place of the keys where blocks are boxes, for the next prepare_on_device() of these lists. The
  // values set out for theirs at once, beside what the default stream does next.
  KeyBoxes key_boxes(const Plan& frame, const DeviceLists& lists, const AttendInputs& inputs);
  // The first call for a frame uploads what the frame is; later ones launch one kernel.
  std::unique_ptr<Prepared> prepare_on_device(const Plan& frame, const DeviceLists& lists,
                                              const AttendInputs& inputs);

  bool owns(const Prepared& prepared) const;
  bool permutes(const Prepared& prepared) const;
  void permute(const Prepared& prepared, const AttendInputs& inputs);
  // Without outputs.o the output stays in the inputs' type in a buffer of this object.
  void attend(const Prepared& prepared, const AttendInputs& inputs, const AttendOutputs& outputs);

 private:
  // What all plans on one frame share, in device memory.
  struct Frame {
    BoxFrame boxes;
    std::int64_t heads = 0, tokens = 0;
    bool shared_q_order = true;
    DeviceBuffer q_tokens, slots, valid;
    // For a device's lists alone.
    DeviceBuffer q_offsets, live_rows;
    std::shared_ptr<DeviceBuffer> items;
    std::int32_t live_count = 0;
    // For lists of every pair, where the kernel reads none: made when they first come.
    std::shared_ptr<DeviceBuffer> dense_items;
    std::int32_t dense_count = 0;
  };
  struct HopperPrepared;
  class SideStream;
  static std::shared_ptr<Frame> upload(const Plan& plan, const AttendInputs& inputs);
  static std::shared_ptr<Frame> upload_for_lists(const Plan& plan, const AttendInputs& inputs);
  std::shared_ptr<Frame> frame_for_lists(const Plan& frame, const DeviceLists& lists,
                                         const AttendInputs& inputs);
  // Items that read no lists, of plans that keep every pair.
  static void use_every_box(const std::shared_ptr<Frame>& frame, const Plan& plan, int rows,
                            HopperPrepared& prepared);
  void reserve(const Frame& frame, const AttendInputs& inputs);
  // Moves values into boxes, and keys unless `keys` is false.
  void gather(const Frame& frame, const AttendInputs& inputs, bool keys, void* stream);

  // By DeviceLists::frame; arms take turns.
  std::map<std::uint64_t, std::shared_ptr<Frame>> planned_;
  // Boxes of K and V, the output in the inputs' type, and the work counter: used again by every call.
  DeviceBuffer k_, v_, o_, counter_;
  const Prepared* permuted_ = nullptr;      // whose keys lie in k_ and v_, until attend() used them
  const Prepared* planned_keys_ = nullptr;  // whose keys and values need no more than side_'s end
  std::uint64_t keys_for_ = 0;              // DeviceLists::frame of the last key_boxes()
  std::unique_ptr<SideStream> side_;
};

}  // namespace raingauge
