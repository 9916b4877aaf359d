// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/array_file.h"
#include "data/capture_detail.h"
#include "data/capture_exchange.h"
#include "data/capture_json.h"
#include "data/error.h"

namespace raingauge {
namespace {

using nlohmann::json;

// A record as it is written out: with the heads of the selection.
struct Chosen {
  RecordInfo source;
  RecordInfo info;
  std::vector<std::string> tensors;  // q k v [o]
};

std::vector<Chosen> choose(const Capture& capture, const CaptureSelection& selection) {
  std::vector<Chosen> chosen;
  for (const RecordInfo& record : select_records(capture, selection)) {
    Chosen next{record, record, {"q", "k", "v"}};
    if (!selection.heads.empty()) next.info.heads = selection.heads;
    if (record.has_output && selection.outputs) next.tensors.emplace_back("o");
    chosen.push_back(std::move(next));
  }
  return chosen;
}

json document_of(const Capture& capture, const std::vector<Chosen>& chosen) {
  json records = json::array();
  for (const Chosen& next : chosen) {
    records.push_back(record_to_json(next.info));
    const auto first = capture.load(next.source, std::vector<int>{next.info.heads.front()});
    const std::uint8_t* valid = first->view().key_valid;
    if (valid != nullptr) {
      records.back()["key_valid"] = std::vector<int>(valid, valid + next.info.tokens);
    }
  }
  return {{"format", "raingauge-capture"},
          {"version", kCaptureVersion},
          {"capture", capture_to_json(capture.info())},
          {"records", records}};
}

// Calls body(tensor, data, bytes) for every tensor and head in order; `o` as float32.
template <typename Body>
void each_head(const Capture& capture, const Chosen& next, const std::string& tensor, Body body) {
  for (const int head : next.info.heads) {
    const std::vector<int> one{head};
    if (tensor == "o") {
      const std::vector<float> output = capture.load_output(next.source, one);
      body(output.data(), static_cast<std::int64_t>(output.size() * sizeof(float)));
      continue;
    }
    const auto record = capture.load(next.source, one);
    const RecordView view = record->view();
    const TensorView& data = tensor == "q" ? view.q : tensor == "k" ? view.k : view.v;
    body(data.data, data.tokens * data.head_dim * static_cast<std::int64_t>(size_of(data.dtype)));
  }
}

std::string type_of(const Chosen& next, const std::string& tensor) {
  if (tensor == "o") return "F32";
  return next.info.dtype == DType::f32 ? "F32" : next.info.dtype == DType::f16 ? "F16" : "BF16";
}

std::vector<std::int64_t> shape_of(const RecordInfo& info) {
  return {info.head_count(), info.tokens, info.head_dim};
}

void write_safetensors(const Capture& capture, const std::vector<Chosen>& chosen,
                       const std::string& target) {
  std::vector<StoredArray> arrays;
  for (const Chosen& next : chosen) {
    for (const std::string& tensor : next.tensors) {
      arrays.push_back({"records/" + hdf5::record_name(next.info.number) + "/" + tensor,
                        type_of(next, tensor), shape_of(next.info)});
    }
  }
  SafetensorsWriter writer(target, arrays, {{"raingauge", document_of(capture, chosen).dump()}});
  for (const Chosen& next : chosen) {
    for (const std::string& tensor : next.tensors) {
      each_head(capture, next, tensor,
                [&](const void* data, std::int64_t bytes) { writer.write(data, bytes); });
    }
  }
  writer.finish();
}

void write_npy_folder(const Capture& capture, const std::vector<Chosen>& chosen,
                      const std::filesystem::path& target) {
  std::filesystem::create_directories(target);
  for (const Chosen& next : chosen) {
    for (const std::string& tensor : next.tensors) {
      const std::string type = type_of(next, tensor);
      const auto path = target / (hdf5::record_name(next.info.number) + "_" + tensor + ".npy");
      std::ofstream file(path, std::ios::binary);
      file << npy_header(type == "F32"   ? "<f4"
                         : type == "F16" ? "<f2"
                                         : "<u2",
                         shape_of(next.info));
      each_head(capture, next, tensor, [&](const void* data, std::int64_t bytes) {
        file.write(static_cast<const char*>(data), bytes);
      });
      file.close();
      if (!file) throw Error(path.string() + ": cannot be written; is there space left?");
    }
  }
  std::ofstream json_file(target / "capture.json");
  json_file << document_of(capture, chosen).dump(1) << '\n';
  json_file.close();
  if (!json_file) throw Error((target / "capture.json").string() + ": cannot be written");
}

}  // namespace

int export_capture(const std::string& source, const std::string& target,
                   const CaptureSelection& selection, bool overwrite) {
  if (std::filesystem::exists(target) && !overwrite) {
    throw Error(target + ": exists already; choose another name or ask to overwrite it");
  }
  const Capture capture = Capture::open(source);
  const std::vector<Chosen> chosen = choose(capture, selection);
  if (chosen.empty()) {
    throw Error(source + ": none of its " + std::to_string(capture.records().size()) +
                " records matches the selection; nothing is written");
  }
  if (target.ends_with(".safetensors")) {
    write_safetensors(capture, chosen, target);
  } else {
    write_npy_folder(capture, chosen, target);
  }
  return static_cast<int>(chosen.size());
}

}  // namespace raingauge
