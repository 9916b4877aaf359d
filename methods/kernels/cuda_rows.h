// SPDX-License-Identifier: Apache-2.0
// evaluate_rows() on a CUDA device: many plans of one head in one launch, compared with dense attention
// there, so that a few sums a row are all that comes back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/plan.h"
#include "data/record.h"
#include "data/row_moments.h"
#include "methods/kernels/device.h"
#include "methods/kernels/kernel.h"
#include "methods/kernels/row_evaluator.h"

namespace raingauge {

// Why the device does not judge this record; nullopt: it does. `record` holds tensors in CUDA memory; its
// key_valid and info are the host's. Covered are compute capability 8.0 and later, bf16 and f16, head_dim
// 64 and 128, rows aligned to 16 bytes.
Support device_rows_support(const RecordView& record);

// What was found of one plan in one head, a value a judged row, in the sample's order. Of the host: memory
// of the lane, valid until it is used again.
struct JudgedRows {
  const double* lse = nullptr;
  const double* mass_first_frame = nullptr;
  const double* mass_text = nullptr;
  const RowMoments* moments = nullptr;  // against dense attention
};

// A plan on the frame of another: the lists of one of its heads.
struct RowLists {
  const BlockLists* lists = nullptr;
  std::int64_t head = 0;
};

// Stream and memory of one host thread. Threads with lanes of their own may use one DeviceRows together.
class RowLane {
 public:
  explicit RowLane(const Device& device);
  ~RowLane();
  RowLane(RowLane&&) noexcept;
  RowLane& operator=(RowLane&&) noexcept;

 private:
  friend class DeviceRows;
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

// The judged rows of one record. Scores are fp32 sums of exact products, weights and their sums as good as
// fp32, P V good to 2^-16 of sum_j p_j |v_j| (kernels/cuda/row_evaluator.cu); the same bits every time.
class DeviceRows {
 public:
  // Evaluates dense attention of every head; the outputs stay on the device (rows x head_dim x 4 bytes a
  // head). Record and sample must outlive this. Throws Unsupported with the reason above, and NotFinite.
  DeviceRows(const RecordView& record, const RowSample& sample, RowLane& lane);

  // Dense results; `o` is empty.
  const RowResults& dense(std::int64_t head) const {
    return dense_[static_cast<std::size_t>(head)];
  }

  // Plans that share orders and layouts of head `frame_head` of `frame`, on head `head` of the record.
  // Throws NotFinite, naming head and token.
  std::vector<JudgedRows> judge(RowLane& lane, std::int64_t head, const Plan& frame,
                                std::int64_t frame_head, const std::vector<RowLists>& plans) const;

  // As evaluate_rows(), outputs included. `plan` null: dense.
  RowResults evaluate(RowLane& lane, std::int64_t head, const Plan* plan) const;

 private:
  struct Batch;
  void upload(RowLane& lane, Batch& batch) const;
  void launch(RowLane& lane, const Batch& batch) const;
  void compare(RowLane& lane, const Batch& batch) const;
  std::vector<JudgedRows> fetch(RowLane& lane, const Batch& batch, bool moments) const;
  RowResults results_of(RowLane& lane, const Batch& batch) const;
  std::int64_t rows() const { return static_cast<std::int64_t>(sample_.tokens.size()); }

  RecordView record_;
  const RowSample& sample_;
  DeviceBuffer sample_tokens_, key_class_;
  std::vector<DeviceBuffer> dense_o_;  // [heads] of [rows, head_dim]
  std::vector<RowResults> dense_;
};

}  // namespace raingauge
