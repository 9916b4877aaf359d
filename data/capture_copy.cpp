// SPDX-License-Identifier: Apache-2.0
// Copies chosen records and heads of a capture into a new one.
#include "data/capture_copy.h"

#include <algorithm>
#include <filesystem>

#include "data/error.h"

namespace raingauge {
namespace {

template <typename T>
bool passes(const std::vector<T>& wanted, const T& value) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}

void copy_record(const Capture& capture, const RecordInfo& source, const std::vector<int>& heads,
                 bool outputs, std::optional<DType> dtype, CaptureWriter& writer) {
  RecordInfo info = source;
  if (!heads.empty()) info.heads = heads;
  info.has_output = source.has_output && outputs;
  info.dtype = dtype.value_or(source.dtype);
  const std::vector<int> first{info.heads.front()};
  const auto probe = capture.load(source, first);
  const std::uint8_t* valid = probe->view().key_valid;
  const std::span<const std::uint8_t> key_valid =
      valid != nullptr ? std::span(valid, static_cast<std::size_t>(info.tokens))
                       : std::span<const std::uint8_t>();
  const auto output_dtype =
      info.has_output ? capture.storage_of(source).output_dtype : std::nullopt;
  writer.begin_record(info, key_valid, output_dtype);
  for (const int head : info.heads) {
    const std::vector<int> one{head};
    const auto record = capture.load(source, one);
    const RecordView view = record->view();
    std::vector<float> values;
    if (info.has_output) values = capture.load_output(source, one);
    const TensorView output =
        contiguous_view(values.data(), DType::f32, 1, info.tokens, info.head_dim);
    writer.write_head(view.q, view.k, view.v, info.has_output ? &output : nullptr);
  }
  writer.end_record();
}

}  // namespace

std::vector<RecordInfo> select_records(const Capture& capture, const CaptureSelection& selection) {
  for (const int number : selection.records) capture.record(number);  // throws when missing
  std::vector<RecordInfo> chosen;
  for (const RecordInfo& info : capture.records()) {
    if (passes(selection.records, info.number) && passes(selection.layers, info.site.layer) &&
        passes(selection.steps, info.site.step) && passes(selection.branches, info.site.branch)) {
      chosen.push_back(info);
    }
  }
  return chosen;
}

int copy_capture(const std::string& source, const std::string& target,
                 const CaptureSelection& selection, const CaptureWriteOptions& options,
                 std::optional<DType> dtype) {
  std::error_code error;
  if (std::filesystem::equivalent(source, target, error)) {
    throw Error(target + ": source and target are the same file; choose another target");
  }
  const Capture capture =
      Capture::open(source, {.allow_nonfinite = options.allow_nonfinite, .map = true});
  const auto chosen = select_records(capture, selection);
  if (chosen.empty()) {
    throw Error(source + ": none of its " + std::to_string(capture.records().size()) +
                " records matches the selection; nothing is copied");
  }
  CaptureWriter writer(target, capture.info(), options);
  writer.set_schedule(capture.info().timesteps, capture.info().sigmas);
  for (const RecordInfo& info : chosen) {
    copy_record(capture, info, selection.heads, selection.outputs, dtype, writer);
  }
  for (const std::string& arm : capture.frame_arms()) {
    if (selection.frames) writer.write_frames(arm, capture.read_frames(arm));
  }
  writer.finish();
  return static_cast<int>(chosen.size());
}

}  // namespace raingauge
