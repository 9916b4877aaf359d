// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/cuda_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "data/error.h"
#include "methods/kernels/cpu/judge.h"
#include "methods/kernels/cpu/packed_head.h"
#include "methods/kernels/cuda/row_work.h"

#ifdef RAINGAUGE_WITH_CUDA
#include <cuda_runtime_api.h>

#include "methods/kernels/cuda/row_evaluator.h"
#endif

namespace raingauge {

#ifdef RAINGAUGE_WITH_CUDA
namespace {

using cuda_walk::KeyRun;
using cuda_walk::RowItem;

constexpr std::size_t kMomentBytes = sizeof(RowMoments);
constexpr std::size_t kRowBytes = 3 * sizeof(double) + kMomentBytes;  // of results, one place
static_assert(kMomentBytes == 7 * sizeof(double));

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

void check(int status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(std::string("the row evaluator on a device: ") + what +
              " failed: " + cudaGetErrorString(static_cast<cudaError_t>(status)));
}

// Page-locked host memory, so that copies run beside the host.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t bytes) : bytes_(bytes) {
    check(cudaMallocHost(&data_, bytes), "allocating page-locked memory");
  }
  ~PinnedBuffer() {
    if (data_ != nullptr) (void)cudaFreeHost(data_);
  }
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  char* data() const { return static_cast<char*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Grows by half at least, so that a lane soon stops allocating.
template <typename Buffer, typename Make>
void reserve(Buffer& buffer, std::size_t bytes, Make make) {
  if (buffer.bytes() >= bytes) return;
  const std::size_t room = std::max(bytes, buffer.bytes() + buffer.bytes() / 2);
  buffer = Buffer();
  buffer = make(room);
}

Support check_capability(const Device& device) {
  static const std::vector<CudaInfo> kDevices = list_cuda_devices();
  if (device.index < 0 || index_of(device.index) >= kDevices.size()) {
    return "rows on a device: there is no " + to_string(device);
  }
  const CudaInfo& info = kDevices[index_of(device.index)];
  if (info.major >= 8) return std::nullopt;
  return "rows on a device: " + info.name + " is sm_" + std::to_string(info.major) +
         std::to_string(info.minor) + "; sm_80 or later is needed";
}

void check_sample(const RecordView& record, const RowSample& sample) {
  if (sample.tokens.empty()) throw Error("rows on a device: no query token is to be judged");
  for (const std::int32_t token : sample.tokens) {
    if (token >= 0 && token < record.tokens()) continue;
    throw Error("rows on a device: query token " + std::to_string(token) +
                " is not in the record; allowed are 0 to " + std::to_string(record.tokens() - 1));
  }
}

// Places of the parts of one upload, each aligned to 16 bytes.
struct Places {
  std::size_t row_slots = 0, key_tokens = 0, runs = 0, items = 0, end = 0;
};

template <typename T>
std::size_t end_of(std::size_t begin, const std::vector<T>& values) {
  return (begin + values.size() * sizeof(T) + 15) / 16 * 16;
}

template <typename T>
void place(const std::vector<T>& values, char* target) {
  if (!values.empty()) std::memcpy(target, values.data(), values.size() * sizeof(T));
}

}  // namespace

struct RowLane::Memory {
  explicit Memory(const Device& on) : device(on) {
    const DeviceGuard guard(device);
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
    check(cudaEventCreateWithFlags(&done, cudaEventBlockingSync | cudaEventDisableTiming),
          "creating an event");
  }
  ~Memory() {
    if (done != nullptr) (void)cudaEventDestroy(done);
    if (stream != nullptr) (void)cudaStreamDestroy(stream);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void reserve_device(DeviceBuffer& buffer, std::size_t bytes) const {
    reserve(buffer, bytes, [&](std::size_t room) { return DeviceBuffer(device, room); });
  }
  static void reserve_pinned(PinnedBuffer& buffer, std::size_t bytes) {
    reserve(buffer, bytes, [](std::size_t room) { return PinnedBuffer(room); });
  }
  // Sleeps rather than spins: other lanes use the processor meanwhile.
  void wait() const {
    check(cudaEventRecord(done, stream), "recording an event");
    check(cudaEventSynchronize(done), "judging rows");
  }

  Device device;
  cudaStream_t stream = nullptr;
  cudaEvent_t done = nullptr;
  DeviceBuffer work, o, results;
  PinnedBuffer work_host, results_host;
};

// One launch: plans of one frame on one head.
struct DeviceRows::Batch {
  std::int64_t head = 0;
  std::int64_t plans = 0;
  RowFrame frame;
  RowWork work;
  Places places;
};

RowLane::RowLane(const Device& device) : memory_(std::make_unique<Memory>(device)) {}
RowLane::~RowLane() = default;
RowLane::RowLane(RowLane&&) noexcept = default;
RowLane& RowLane::operator=(RowLane&&) noexcept = default;

Support device_rows_support(const RecordView& record) {
  for (const TensorView* view : {&record.q, &record.k, &record.v}) {
    if (view->device.kind != DeviceKind::cuda || !(view->device == record.q.device)) {
      return "rows on a device: q, k and v must be in one CUDA device's memory";
    }
    if (view->dtype == DType::f32 || view->dtype != record.q.dtype) {
      return "rows on a device: bf16 or f16 only, one type for q, k and v";
    }
    if (view->head_dim != 64 && view->head_dim != 128) {
      return "rows on a device: head_dim 64 or 128 only, not " + std::to_string(view->head_dim);
    }
    if (view->head_stride % 8 != 0 || view->token_stride % 8 != 0 ||
        reinterpret_cast<std::uintptr_t>(view->data) % 16 != 0) {
      return "rows on a device: rows must be 16-byte aligned";
    }
  }
  return check_capability(record.q.device);
}

DeviceRows::DeviceRows(const RecordView& record, const RowSample& sample, RowLane& lane)
    : record_(record), sample_(sample) {
  if (const Support reason = device_rows_support(record)) throw Unsupported(*reason);
  check_sample(record, sample);
  const DeviceGuard guard(record.q.device);
  sample_tokens_ = to_device(record.q.device, sample.tokens);
  key_class_ = to_device(record.q.device, classify_key_tokens(*record.info, record.tokens()));
  synchronize_device(record.q.device);  // lanes do not wait for the default stream
  const std::size_t bytes = index_of(rows() * record.head_dim()) * sizeof(float);
  for (std::int64_t head = 0; head < record.heads(); ++head) {
    dense_o_.emplace_back(record.q.device, bytes);
    Batch batch;
    batch.head = head;
    batch.plans = 1;
    batch.frame = make_row_frame(nullptr, 0, sample, record.tokens(), record.key_valid);
    append_row_work(batch.frame, nullptr, 0, head, 0, batch.work);
    upload(lane, batch);
    launch(lane, batch);
    check(cudaMemcpyAsync(dense_o_.back().data(), lane.memory_->o.data(), bytes,
                          cudaMemcpyDeviceToDevice, lane.memory_->stream),
          "keeping dense outputs");
    compare(lane, batch);  // with themselves: sparse_l2 tells whether they are finite
    const JudgedRows found = fetch(lane, batch, true).front();
    RowResults dense;
    dense.rows = rows();
    dense.head_dim = record.head_dim();
    dense.lse.assign(found.lse, found.lse + rows());
    dense.mass_first_frame.assign(found.mass_first_frame, found.mass_first_frame + rows());
    dense.mass_text.assign(found.mass_text, found.mass_text + rows());
    dense_.push_back(std::move(dense));
  }
}

std::vector<JudgedRows> DeviceRows::judge(RowLane& lane, std::int64_t head, const Plan& frame,
                                          std::int64_t frame_head,
                                          const std::vector<RowLists>& plans) const {
  const DeviceGuard guard(record_.q.device);
  Batch batch;
  batch.head = head;
  batch.plans = static_cast<std::int64_t>(plans.size());
  batch.frame = make_row_frame(&frame, frame_head, sample_, record_.tokens(), record_.key_valid);
  std::int64_t out = 0;
  for (const RowLists& plan : plans) {
    append_row_work(batch.frame, plan.lists, plan.head, head, out, batch.work);
    out += rows();
  }
  upload(lane, batch);
  launch(lane, batch);
  compare(lane, batch);
  return fetch(lane, batch, true);
}

RowResults DeviceRows::evaluate(RowLane& lane, std::int64_t head, const Plan* plan) const {
  const DeviceGuard guard(record_.q.device);
  Batch batch;
  batch.head = head;
  batch.plans = 1;
  batch.frame = make_row_frame(plan, head, sample_, record_.tokens(), record_.key_valid);
  append_row_work(batch.frame, plan == nullptr ? nullptr : &plan->lists, head, head, 0, batch.work);
  upload(lane, batch);
  launch(lane, batch);
  return results_of(lane, batch);
}

void DeviceRows::upload(RowLane& lane, Batch& batch) const {
  finish_row_work(batch.work);
  Places& places = batch.places;
  places.key_tokens = end_of(places.row_slots, batch.frame.row_slots);
  places.runs = end_of(places.key_tokens, batch.frame.key_tokens);
  places.items = end_of(places.runs, batch.work.runs);
  places.end = end_of(places.items, batch.work.items);
  RowLane::Memory& memory = *lane.memory_;
  RowLane::Memory::reserve_pinned(memory.work_host, places.end);
  memory.reserve_device(memory.work, places.end);
  char* host = memory.work_host.data();
  place(batch.frame.row_slots, host + places.row_slots);
  place(batch.frame.key_tokens, host + places.key_tokens);
  place(batch.work.runs, host + places.runs);
  place(batch.work.items, host + places.items);
  check(
      cudaMemcpyAsync(memory.work.data(), host, places.end, cudaMemcpyHostToDevice, memory.stream),
      "copying work");
}

void DeviceRows::launch(RowLane& lane, const Batch& batch) const {
  RowLane::Memory& memory = *lane.memory_;
  const std::size_t places = index_of(batch.plans * rows());
  memory.reserve_device(memory.o, places * index_of(record_.head_dim()) * sizeof(float));
  memory.reserve_device(memory.results, places * kRowBytes);
  const auto* work = memory.work.as<char>();
  auto* results = memory.results.as<double>();
  const cpu::ScaleParts scale = cpu::split_scale(record_.info->scale);
  cuda_walk::RowParams params{};
  params.q = record_.q.data;
  params.k = record_.k.data;
  params.v = record_.v.data;
  params.q_head_stride = record_.q.head_stride;
  params.q_token_stride = record_.q.token_stride;
  params.k_head_stride = record_.k.head_stride;
  params.k_token_stride = record_.k.token_stride;
  params.v_head_stride = record_.v.head_stride;
  params.v_token_stride = record_.v.token_stride;
  params.sample = sample_tokens_.as<std::int32_t>();
  params.row_slots = reinterpret_cast<const std::int32_t*>(work + batch.places.row_slots);
  params.key_tokens = reinterpret_cast<const std::int32_t*>(work + batch.places.key_tokens);
  params.key_class = key_class_.as<std::uint8_t>();
  params.runs = reinterpret_cast<const KeyRun*>(work + batch.places.runs);
  params.items = reinterpret_cast<const RowItem*>(work + batch.places.items);
  params.item_count = static_cast<std::int32_t>(batch.work.items.size());
  params.sign = scale.factor;
  params.scale_log2 = scale.log2_scale();
  params.o = memory.o.as<float>();
  params.lse = results;
  params.mass_first_frame = results + places;
  params.mass_text = results + 2 * places;
  const auto element =
      record_.q.dtype == DType::bf16 ? cuda_walk::Element::bf16 : cuda_walk::Element::f16;
  check(
      cuda_walk::launch_rows(params, element, static_cast<int>(record_.head_dim()), memory.stream),
      "the launch");
}

void DeviceRows::compare(RowLane& lane, const Batch& batch) const {
  RowLane::Memory& memory = *lane.memory_;
  const std::int64_t places = batch.plans * rows();
  const cuda_walk::MomentParams params{memory.o.as<float>(),
                                       dense_o_[index_of(batch.head)].as<float>(),
                                       places,
                                       rows(),
                                       static_cast<std::int32_t>(record_.head_dim()),
                                       memory.results.as<double>() + 3 * places};
  check(cuda_walk::launch_moments(params, memory.stream), "comparing outputs");
}

std::vector<JudgedRows> DeviceRows::fetch(RowLane& lane, const Batch& batch, bool moments) const {
  RowLane::Memory& memory = *lane.memory_;
  const std::size_t places = index_of(batch.plans * rows());
  const std::size_t bytes = places * (moments ? kRowBytes : 3 * sizeof(double));
  RowLane::Memory::reserve_pinned(memory.results_host, places * kRowBytes);
  check(cudaMemcpyAsync(memory.results_host.data(), memory.results.data(), bytes,
                        cudaMemcpyDeviceToHost, memory.stream),
        "copying results");
  memory.wait();
  const auto* values = reinterpret_cast<const double*>(memory.results_host.data());
  const auto* compared = reinterpret_cast<const RowMoments*>(values + 3 * places);
  std::vector<JudgedRows> judged;
  for (std::size_t first = 0; first < places; first += index_of(rows())) {
    judged.push_back({values + first, values + places + first, values + 2 * places + first,
                      moments ? compared + first : nullptr});
    for (std::size_t row = 0; row < index_of(rows()); ++row) {
      const JudgedRows& found = judged.back();
      // A row without keys has -inf and mass 0; one whose weights are all lost has a mass of NaN.
      const bool fine = found.lse[row] < HUGE_VAL && std::isfinite(found.mass_first_frame[row]) &&
                        std::isfinite(found.mass_text[row]) &&
                        (!moments || std::isfinite(found.moments[row].sparse_l2));
      if (fine) continue;
      throw NotFinite("attention of head " + std::to_string(batch.head) + ", query token " +
                      std::to_string(sample_.tokens[row]) +
                      " is not finite: Q, K or V of this head holds NaN, Inf or values whose "
                      "product overflows");
    }
  }
  return judged;
}

RowResults DeviceRows::results_of(RowLane& lane, const Batch& batch) const {
  RowResults results;
  results.rows = rows();
  results.head_dim = record_.head_dim();
  const JudgedRows found = fetch(lane, batch, false).front();
  results.lse.assign(found.lse, found.lse + rows());
  results.mass_first_frame.assign(found.mass_first_frame, found.mass_first_frame + rows());
  results.mass_text.assign(found.mass_text, found.mass_text + rows());
  results.o.resize(index_of(rows() * record_.head_dim()));
  lane.memory_->o.copy_to_host(results.o.data(), results.o.size() * sizeof(float));
  return results;
}
#else
struct RowLane::Memory {};
struct DeviceRows::Batch {};

RowLane::RowLane(const Device& device) {
  throw Unsupported("rows on " + to_string(device) + ": not built (no CUDA compiler was found)");
}
RowLane::~RowLane() = default;
RowLane::RowLane(RowLane&&) noexcept = default;
RowLane& RowLane::operator=(RowLane&&) noexcept = default;

Support device_rows_support(const RecordView& /*record*/) {
  return "rows on a device: not built (no CUDA compiler was found)";
}

DeviceRows::DeviceRows(const RecordView& record, const RowSample& sample, RowLane& /*lane*/)
    : record_(record), sample_(sample) {
  throw Unsupported(*device_rows_support(record));
}
std::vector<JudgedRows> DeviceRows::judge(RowLane& /*lane*/, std::int64_t /*head*/,
                                          const Plan& /*frame*/, std::int64_t /*frame_head*/,
                                          const std::vector<RowLists>& /*plans*/) const {
  throw Unsupported(*device_rows_support(record_));
}
RowResults DeviceRows::evaluate(RowLane& /*lane*/, std::int64_t /*head*/,
                                const Plan* /*plan*/) const {
  throw Unsupported(*device_rows_support(record_));
}
#endif

}  // namespace raingauge
