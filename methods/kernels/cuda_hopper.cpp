// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/cuda_hopper.h"

#ifdef RAINGAUGE_WITH_CUDA
#include <cuda_runtime_api.h>

#include <algorithm>
#include <string>
#include <vector>

#include "data/error.h"
#include "methods/kernels/cuda/forward_sm90.h"
#include "methods/kernels/cuda/gather.h"

namespace raingauge {
namespace {

using cuda_walk::Element;
using cuda_walk::TileItem;

std::size_t bytes_of(std::int64_t count, std::size_t size) {
  return static_cast<std::size_t>(count) * size;
}

void check(int status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(std::string("cuda: ") + what +
              " failed: " + cudaGetErrorString(static_cast<cudaError_t>(status)));
}

Element element_of(DType dtype) { return dtype == DType::bf16 ? Element::bf16 : Element::f16; }

void grow(DeviceBuffer& buffer, const Device& device, std::size_t bytes) {
  if (buffer.bytes() < bytes || !(buffer.device() == device)) buffer = DeviceBuffer(device, bytes);
}

}  // namespace

struct HopperForward::HopperPrepared final : Prepared {
  double density_tiles() const override { return tiles; }
  std::shared_ptr<Frame> frame;
  std::shared_ptr<DeviceBuffer> items;
  DeviceBuffer own_boxes;               // lists made on the host
  const std::int32_t* boxes = nullptr;  // those, or a planner's
  Device device;
  std::int64_t head_dim = 0;
  std::int32_t item_count = 0;
  std::int32_t every_box = 0;  // as SparseParams has it
  double tiles = std::numeric_limits<double>::quiet_NaN();
};

// Work beside the default stream, between two points of it.
class HopperForward::SideStream {
 public:
  explicit SideStream(const Device& device) : device_(device) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    for (cudaEvent_t* event : {&begin_, &end_}) {
      check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "creating an event");
    }
  }
  ~SideStream() {
    const DeviceGuard guard(device_);
    cudaStreamSynchronize(stream_);
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  bool is_on(const Device& device) const { return device_ == device; }
  // What is launched on the stream returned comes after all that the default stream has been given.
  cudaStream_t fork() {
    check(cudaEventRecord(begin_, nullptr), "recording an event");
    check(cudaStreamWaitEvent(stream_, begin_, 0), "waiting for an event");
    return stream_;
  }
  void mark() {
    check(cudaEventRecord(end_, stream_), "recording an event");
    under_way_ = true;
  }
  // What the default stream is given from now on comes after mark().
  void join() {
    if (!under_way_) return;
    check(cudaStreamWaitEvent(nullptr, end_, 0), "waiting for an event");
    under_way_ = false;
  }

 private:
  Device device_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  bool under_way_ = false;
};

HopperForward::HopperForward() = default;
HopperForward::~HopperForward() = default;

bool HopperForward::covers(const AttendInputs& inputs) const {
  static const std::vector<CudaInfo> kDevices = list_cuda_devices();
  const Device& device = inputs.q.device;
  if (device.kind != DeviceKind::cuda || !(inputs.scale > 0.0F)) return false;
  const auto index = static_cast<std::size_t>(device.index);
  return index < kDevices.size() && kDevices[index].major == 9 && kDevices[index].minor == 0;
}

std::shared_ptr<HopperForward::Frame> HopperForward::upload(const Plan& plan,
                                                            const AttendInputs& inputs) {
  const Device& device = inputs.q.device;
  auto frame = std::make_shared<Frame>();
  frame->boxes = make_box_frame(plan, inputs.key_valid);
  frame->heads = plan.heads;
  frame->tokens = plan.tokens;
  frame->shared_q_order = plan.q_order.rows == 1;
  frame->q_tokens = to_device(device, plan.q_order.index);
  frame->slots = to_device(device, frame->boxes.slots);
  frame->valid = to_device(device, frame->boxes.valid);
  return frame;
}

std::shared_ptr<HopperForward::Frame> HopperForward::upload_for_lists(const Plan& plan,
                                                                      const AttendInputs& inputs) {
  const Device& device = inputs.q.device;
  auto frame = upload(plan, inputs);
  std::vector<std::int32_t> live;
  for (std::int64_t b = 0; b < plan.q_blocks.blocks; ++b) {
    if (plan.q_blocks.size(0, b) > 0) live.push_back(static_cast<std::int32_t>(b));
  }
  frame->q_offsets = to_device(device, plan.q_blocks.offsets);
  frame->live_rows = to_device(device, live);
  frame->live_count = static_cast<std::int32_t>(live.size());
  frame->items = std::make_shared<DeviceBuffer>(
      device, bytes_of(plan.heads * frame->live_count, sizeof(TileItem)));
  return frame;
}

void HopperForward::reserve(const Frame& frame, const AttendInputs& inputs) {
  const TensorView& q = inputs.q;
  const Device& device = q.device;
  if (counter_.bytes() == 0 || !(counter_.device() == device)) {
    counter_ = to_device(device, std::vector<std::int32_t>{0, 0});
  }
  grow(o_, device, bytes_of(q.heads * q.tokens * q.head_dim, size_of(q.dtype)));
  if (frame.boxes.in_place) return;
  const std::int64_t keys = frame.heads * frame.boxes.boxes * frame.boxes.box_keys;
  grow(k_, device, bytes_of(keys * q.head_dim, size_of(q.dtype)));
  grow(v_, device, bytes_of(keys * q.head_dim, size_of(q.dtype)));
}

std::unique_ptr<Prepared> HopperForward::prepare(const Plan& plan, const AttendInputs& inputs,
                                                 int threads) {
  const DeviceGuard guard(inputs.q.device);
  permuted_ = planned_keys_ = nullptr;
  auto prepared = std::make_unique<HopperPrepared>();
  prepared->device = inputs.q.device;
  prepared->head_dim = inputs.q.head_dim;
  prepared->frame = upload(plan, inputs);
  const BoxWork work = make_box_work(plan, prepared->frame->boxes, threads,
                                     cuda_walk::dense_rows(static_cast<int>(inputs.q.head_dim)));
  prepared->items = std::make_shared<DeviceBuffer>(to_device(inputs.q.device, work.items));
  prepared->own_boxes = to_device(inputs.q.device, work.boxes);
  prepared->boxes = prepared->own_boxes.as<std::int32_t>();
  prepared->item_count = static_cast<std::int32_t>(work.items.size());
  prepared->every_box = work.every_box;
  prepared->tiles = work.density_tiles;
  reserve(*prepared->frame, inputs);
  return prepared;
}

bool HopperForward::takes_lists(const Plan& frame) const {
  if (frame.q_blocks.rows != 1 || frame.k_blocks.rows != 1 || frame.k_order.rows != 1) return false;
  if (frame.k_blocks.blocks > 4096) return false;
  const auto fits = [](const Layout& layout) {
    for (std::int64_t b = 0; b < layout.blocks; ++b) {
      if (layout.size(0, b) > cuda_walk::kTileRows) return false;
    }
    return true;
  };
  return fits(frame.q_blocks) && fits(frame.k_blocks);
}

std::shared_ptr<HopperForward::Frame> HopperForward::frame_for_lists(const Plan& frame,
                                                                     const DeviceLists& lists,
                                                                     const AttendInputs& inputs) {
  std::shared_ptr<Frame>& known = planned_[lists.frame];
  if (known == nullptr) known = upload_for_lists(frame, inputs);
  reserve(*known, inputs);
  return known;
}

KeyBoxes HopperForward::key_boxes(const Plan& frame, const DeviceLists& lists,
                                  const AttendInputs& inputs) {
  const DeviceGuard guard(inputs.q.device);
  permuted_ = planned_keys_ = nullptr;
  keys_for_ = 0;
  const std::shared_ptr<Frame> known = frame_for_lists(frame, lists, inputs);
  const BoxFrame& boxes = known->boxes;
  if (boxes.in_place || !boxes.block_is_box || boxes.rows != 1 || inputs.key_valid != nullptr) {
    return {};
  }
  if (side_ == nullptr || !side_->is_on(inputs.q.device)) {
    side_ = std::make_unique<SideStream>(inputs.q.device);
  }
  gather(*known, inputs, false, side_->fork());
  side_->mark();
  keys_for_ = lists.frame;
  return {k_.data(), boxes.box_keys};
}

void HopperForward::use_every_box(const std::shared_ptr<Frame>& frame, const Plan& plan, int rows,
                                  HopperPrepared& prepared) {
  if (frame->dense_items == nullptr) {
    const BoxWork work = make_every_box_work(plan, frame->boxes, rows);
    frame->dense_items =
        std::make_shared<DeviceBuffer>(to_device(frame->q_offsets.device(), work.items));
    frame->dense_count = static_cast<std::int32_t>(work.items.size());
  }
  prepared.items = frame->dense_items;
  prepared.item_count = frame->dense_count;
  prepared.every_box = static_cast<std::int32_t>(frame->boxes.boxes);
}

std::unique_ptr<Prepared> HopperForward::prepare_on_device(const Plan& frame,
                                                           const DeviceLists& lists,
                                                           const AttendInputs& inputs) {
  const Device& device = inputs.q.device;
  const DeviceGuard guard(device);
  permuted_ = planned_keys_ = nullptr;
  const std::shared_ptr<Frame> known = frame_for_lists(frame, lists, inputs);
  auto prepared = std::make_unique<HopperPrepared>();
  prepared->device = device;
  prepared->head_dim = inputs.q.head_dim;
  prepared->frame = known;
  const int dense_rows = cuda_walk::dense_rows(static_cast<int>(inputs.q.head_dim));
  if (lists.every_pair && dense_rows > 0) {
    use_every_box(known, frame, dense_rows, *prepared);
    return prepared;
  }
  const cuda_walk::ItemParams params{lists.counts,
                                     known->q_offsets.as<std::int32_t>(),
                                     known->live_rows.as<std::int32_t>(),
                                     static_cast<std::int32_t>(lists.heads),
                                     static_cast<std::int32_t>(lists.query_blocks),
                                     known->live_count,
                                     lists.stride,
                                     known->items->as<TileItem>()};
  check(cuda_walk::launch_items(params, nullptr), "sorting work items");
  prepared->items = known->items;
  prepared->boxes = lists.columns;
  prepared->item_count = static_cast<std::int32_t>(lists.heads * known->live_count);
  if (keys_for_ == lists.frame) planned_keys_ = prepared.get();
  keys_for_ = 0;
  return prepared;
}

bool HopperForward::owns(const Prepared& prepared) const {
  return dynamic_cast<const HopperPrepared*>(&prepared) != nullptr;
}

bool HopperForward::permutes(const Prepared& prepared) const {
  return !dynamic_cast<const HopperPrepared&>(prepared).frame->boxes.in_place;
}

void HopperForward::gather(const Frame& frame, const AttendInputs& inputs, bool keys,
                           void* stream) {
  const std::int64_t length = frame.boxes.boxes * frame.boxes.box_keys;
  const cuda_walk::GatherParams params{keys ? inputs.k.data : nullptr,
                                       inputs.v.data,
                                       inputs.k.head_stride,
                                       inputs.k.token_stride,
                                       inputs.v.head_stride,
                                       inputs.v.token_stride,
                                       frame.slots.as<std::int32_t>(),
                                       frame.boxes.rows == 1 ? 0 : length,
                                       k_.data(),
                                       v_.data(),
                                       length,
                                       static_cast<std::int32_t>(frame.heads),
                                       static_cast<std::int32_t>(inputs.k.head_dim)};
  check(cuda_walk::launch_gather(params, stream), "moving keys and values into boxes");
}

void HopperForward::permute(const Prepared& prepared, const AttendInputs& inputs) {
  const Frame& frame = *dynamic_cast<const HopperPrepared&>(prepared).frame;
  if (frame.boxes.in_place) return;
  const DeviceGuard guard(inputs.q.device);
  if (side_ != nullptr) side_->join();
  if (planned_keys_ != &prepared) gather(frame, inputs, true, nullptr);
  permuted_ = &prepared;
  planned_keys_ = nullptr;  // good for one attend(): the inputs may have changed before the next
}

void HopperForward::attend(const Prepared& prepared, const AttendInputs& inputs,
                           const AttendOutputs& outputs) {
  const auto& mine = dynamic_cast<const HopperPrepared&>(prepared);
  const Frame& frame = *mine.frame;
  const TensorView& q = inputs.q;
  if (q.heads != frame.heads || q.tokens != frame.tokens || q.head_dim != mine.head_dim ||
      !(q.device == mine.device)) {
    throw Error("cuda: attend() got inputs of another shape or device than prepare()");
  }
  const DeviceGuard guard(q.device);
  if (permuted_ != &prepared) permute(prepared, inputs);
  permuted_ = nullptr;
  const std::int64_t length = frame.boxes.boxes * frame.boxes.box_keys;
  cuda_walk::SparseParams params{};
  params.q = q.data;
  params.q_head_stride = q.head_stride;
  params.q_token_stride = q.token_stride;
  params.q_tokens = frame.q_tokens.bytes() == 0 ? nullptr : frame.q_tokens.as<std::int32_t>();
  params.q_tokens_stride = frame.shared_q_order ? 0 : frame.tokens;
  params.o = o_.data();
  params.o_is_float = false;
  params.o_head_stride = q.tokens * q.head_dim;
  params.o_token_stride = q.head_dim;
  params.lse = outputs.lse;
  params.lse_head_stride = q.tokens;
  params.items = mine.items->as<TileItem>();
  params.item_count = mine.item_count;
  params.boxes = mine.boxes;
  params.table.valid = frame.boxes.in_place ? nullptr : frame.valid.as<std::int32_t>();
  params.table.valid_stride = frame.boxes.rows == 1 ? 0 : frame.boxes.boxes;
  params.table.keys = static_cast<std::int32_t>(frame.tokens);
  params.table.box_keys = frame.boxes.box_keys;
  params.heads = static_cast<std::int32_t>(frame.heads);
  params.group = 1;
  params.scale_log2 = static_cast<float>(double{inputs.scale} * 1.4426950408889634);
  params.counter = counter_.as<std::int32_t>();
  params.every_box = mine.every_box;
  const auto keys = [&](const TensorView& x, DeviceBuffer& boxes) {
    if (frame.boxes.in_place) {
      return cuda_walk::KeyTensor{x.data, x.head_stride, x.token_stride, x.tokens};
    }
    return cuda_walk::KeyTensor{boxes.data(), length * x.head_dim, x.head_dim, length};
  };
  check(cuda_walk::launch_sparse_sm90(params, keys(inputs.k, k_), keys(inputs.v, v_),
                                      element_of(q.dtype), static_cast<int>(q.head_dim), nullptr),
        "the launch");
  if (outputs.o == nullptr) return;
  check(cuda_walk::launch_to_float(o_.data(), element_of(q.dtype), q.heads * q.tokens * q.head_dim,
                                   outputs.o, nullptr),
        "converting the output");
}

}  // namespace raingauge
#endif
