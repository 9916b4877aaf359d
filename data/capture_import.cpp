// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/array_file.h"
#include "data/capture_detail.h"
#include "data/capture_exchange.h"
#include "data/capture_json.h"
#include "data/error.h"
#include "data/mapped_file.h"

namespace raingauge {
namespace {

using nlohmann::json;

// One tensor of a record: a file and an array in it.
struct Source {
  ArrayFile file;
  StoredArray array;
};

// A .safetensors file, or a folder of .npy files, as named arrays.
struct Bundle {
  std::string path;
  std::vector<std::pair<std::string, Source>> arrays;
  json document;  // null: none
};

Bundle open_bundle(const std::string& path) {
  Bundle bundle{path, {}, {}};
  if (!std::filesystem::is_directory(path)) {
    const ArrayFile file = open_safetensors(path);
    for (const StoredArray& array : file.arrays)
      bundle.arrays.push_back({array.name, {file, array}});
    const auto found = file.metadata.find("raingauge");
    if (found != file.metadata.end()) bundle.document = json::parse(found->second, nullptr, false);
    return bundle;
  }
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.path().extension() != ".npy") continue;
    const ArrayFile file = open_npy(entry.path().string());
    bundle.arrays.push_back({entry.path().stem().string(), {file, file.arrays.front()}});
  }
  std::ifstream stream(std::filesystem::path(path) / "capture.json");
  if (stream) bundle.document = json::parse(stream, nullptr, false);
  return bundle;
}

// The array named `name`, or the only one that ends in it behind a / . or _.
const Source* find_source(const Bundle& bundle, const std::string& name) {
  const Source* found = nullptr;
  for (const auto& [full, source] : bundle.arrays) {
    if (full == name) return &source;
    const bool ends =
        full.size() > name.size() && full.ends_with(name) &&
        std::string("/._").find(full[full.size() - name.size() - 1]) != std::string::npos;
    if (!ends) continue;
    if (found != nullptr) {
      throw Error(bundle.path + ": several arrays end in '" + name + "'; name one of them " + name);
    }
    found = &source;
  }
  return found;
}

const Source& need_source(const Bundle& bundle, const std::string& name) {
  const Source* found = find_source(bundle, name);
  if (found != nullptr) return *found;
  std::string known;
  for (const auto& [full, source] : bundle.arrays) known += (known.empty() ? "" : ", ") + full;
  throw Error(bundle.path + ": there is no array '" + name +
              "'; there are: " + (known.empty() ? "none" : known));
}

DType dtype_of(const Source& source, const std::string& bits_are) {
  const std::string& type = source.array.type;
  if (type == "F32") return DType::f32;
  if (type == "F16") return DType::f16;
  if (type == "BF16" || (type == "U16" && bits_are == "bf16")) return DType::bf16;
  throw Error(source.file.path + ": '" + source.array.name + "' holds " + type +
              "; allowed are F32, F16 and BF16");
}

// One head as contiguous [tokens, head_dim].
std::vector<std::byte> read_head(const Source& source, const ArrayLayout& layout,
                                 std::int64_t head) {
  const std::int64_t element = size_of_type(source.array.type);
  const std::int64_t row = layout.head_dim * element;
  std::vector<std::byte> data(static_cast<std::size_t>(layout.tokens * row));
  const std::int64_t begin = source.array.offset + head * layout.head_stride * element;
  if (layout.token_stride == layout.head_dim) {
    read_file_range(source.file.path, begin, static_cast<std::int64_t>(data.size()), data.data());
    return data;
  }
  const MappedFile mapped(source.file.path);
  for (std::int64_t t = 0; t < layout.tokens; ++t) {
    const std::byte* from = mapped.data() + begin + t * layout.token_stride * element;
    std::copy_n(from, row, data.begin() + t * row);
  }
  return data;
}

void write_imported(CaptureWriter& writer, const RecordInfo& info, const Bundle& bundle,
                    const std::string& prefix, const std::string& wanted_layout,
                    std::span<const std::uint8_t> key_valid) {
  std::vector<const Source*> sources;
  std::vector<ArrayLayout> layouts;
  for (const char* tensor : {"q", "k", "v", "o"}) {
    const Source* source = std::string(tensor) == "o" ? find_source(bundle, prefix + tensor)
                                                      : &need_source(bundle, prefix + tensor);
    if (source == nullptr) continue;
    if (source->array.fortran_order) {
      throw Error(source->file.path +
                  ": stored in Fortran order; store numpy.ascontiguousarray(x)");
    }
    sources.push_back(source);
    layouts.push_back(detect_layout(source->array.shape, wanted_layout, 0, info.tokens,
                                    source->file.path + ": " + prefix + tensor));
  }
  const std::string bits(name_of(info.dtype));
  RecordInfo record = info;
  record.has_output = sources.size() == 4;
  const auto output = record.has_output ? std::optional(dtype_of(*sources[3], "")) : std::nullopt;
  writer.begin_record(record, key_valid, output);
  for (std::int64_t head = 0; head < record.head_count(); ++head) {
    std::vector<std::vector<std::byte>> data;
    std::vector<TensorView> views;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      data.push_back(read_head(*sources[i], layouts[i], head));
      views.push_back(contiguous_view(data.back().data(), dtype_of(*sources[i], bits), 1,
                                      record.tokens, record.head_dim));
    }
    writer.write_head(views[0], views[1], views[2], record.has_output ? &views[3] : nullptr);
  }
  writer.end_record();
}

int import_document(const Bundle& bundle, const std::string& target,
                    const CaptureWriteOptions& write) {
  const json& document = bundle.document;
  if (!document.is_object() || document.value("format", "") != "raingauge-capture" ||
      document.value("version", 0) != kCaptureVersion || !document.contains("records")) {
    throw Error(bundle.path + ": its `raingauge` JSON is not of a capture of version 1");
  }
  const CaptureInfo info =
      capture_from_json(document.value("capture", json::object()), bundle.path);
  const bool folder = std::filesystem::is_directory(bundle.path);
  CaptureWriter writer(target, info, write);
  writer.set_schedule(info.timesteps, info.sigmas);
  for (const json& entry : document.at("records")) {
    const RecordInfo record = record_from_json(entry, bundle.path);
    const std::string name = hdf5::record_name(record.number);
    const auto valid = entry.value("key_valid", std::vector<std::uint8_t>());
    write_imported(writer, record, bundle, folder ? name + "_" : "records/" + name + "/", "hnd",
                   valid);
  }
  writer.finish();
  return static_cast<int>(document.at("records").size());
}

Segments segments_of(const ImportOptions& options, std::int64_t tokens, const std::string& where) {
  if (options.grid.empty() || options.grid.size() % 3 != 0) {
    throw Error(where + ": nothing says which grid its tokens lie on; give --grid F,H,W (tokens)");
  }
  std::int64_t visual = 0;
  for (std::size_t i = 0; i < options.grid.size(); i += 3) {
    visual += std::int64_t{options.grid[i]} * options.grid[i + 1] * options.grid[i + 2];
  }
  const std::int64_t text = tokens - visual;
  if (text != 0 && options.text_pos != "front" && options.text_pos != "back") {
    throw Error(where + ": the grid covers " + std::to_string(visual) + " of " +
                std::to_string(tokens) +
                " tokens; say where the rest is text with --text-pos front "
                "or back, or correct --grid");
  }
  Segments segments;
  std::int64_t at = 0;
  const auto add_text = [&](const char* place) {
    if (text <= 0 || options.text_pos != place) return;
    segments.push_back({Role::text, at, text, 0, 0, 0});
    at += text;
  };
  add_text("front");
  for (std::size_t i = 0; i < options.grid.size(); i += 3) {
    const int f = options.grid[i];
    const int h = options.grid[i + 1];
    const int w = options.grid[i + 2];
    const std::int64_t length = std::int64_t{f} * h * w;
    segments.push_back({i > 0   ? Role::reference
                        : f > 1 ? Role::video
                                : Role::image,
                        at, length, f, h, w});
    at += length;
  }
  add_text("back");
  check_segments(segments, tokens, where);
  return segments;
}

int import_plain(const Bundle& bundle, const std::string& target, const ImportOptions& options,
                 const CaptureWriteOptions& write) {
  std::int64_t visual = 1;
  for (std::size_t i = 0; i + 2 < options.grid.size() && i < 3; i += 3) {
    visual = std::int64_t{options.grid[0]} * options.grid[1] * options.grid[2];
  }
  const Source& q = need_source(bundle, "q");
  const ArrayLayout layout =
      detect_layout(q.array.shape, options.layout, visual, 0, q.file.path + ": q");
  RecordInfo info;
  info.site.step = options.step;
  info.site.layer = options.layer;
  info.site.branch = options.branch;
  info.tokens = layout.tokens;
  info.head_dim = layout.head_dim;
  info.dtype = dtype_of(q, "");
  info.scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(layout.head_dim)));
  for (int head = 0; head < layout.heads; ++head) info.heads.push_back(head);
  info.heads_total = static_cast<int>(layout.heads);
  info.segments = segments_of(options, layout.tokens, bundle.path);
  info.kind = count_tokens(info.segments, Role::text) > 0 ? "joint" : "self";
  CaptureWriter writer(target, {}, write);
  write_imported(writer, info, bundle, "", layout.name, {});
  writer.finish();
  return 1;
}

}  // namespace

ArrayLayout detect_layout(const std::vector<std::int64_t>& shape, const std::string& wanted,
                          std::int64_t least_tokens, std::int64_t tokens,
                          const std::string& where) {
  std::vector<std::int64_t> s = shape;
  if (s.size() == 4 && s[0] == 1) s.erase(s.begin());
  std::string text;
  for (const auto side : shape) text += (text.empty() ? "[" : ", ") + std::to_string(side);
  text += "]";
  if (s.size() != 3) {
    throw Error(where + " has shape " + text +
                "; allowed are [heads, tokens, head_dim] and [tokens, heads, head_dim], also with "
                "a batch of 1 in front");
  }
  const auto fits = [&](std::int64_t n) { return tokens > 0 ? n == tokens : n >= least_tokens; };
  const bool hnd = wanted.empty() ? fits(s[1]) : wanted == "hnd" || wanted == "bhnd";
  const bool nhd = wanted.empty() ? fits(s[0]) : wanted == "nhd" || wanted == "bnhd";
  if (hnd == nhd || !fits(hnd ? s[1] : s[0])) {
    throw Error(where + " has shape " + text + ", which fits " +
                (hnd && nhd ? "two layouts" : "no layout") + " with " +
                (tokens > 0 ? std::to_string(tokens) : std::to_string(least_tokens) + " or more") +
                " tokens; say --layout hnd (heads first) or nhd (tokens first)");
  }
  if (hnd) return {"hnd", s[0], s[1], s[2], s[1] * s[2], s[2]};
  return {"nhd", s[1], s[0], s[2], s[2], s[1] * s[2]};
}

int import_arrays(const std::string& source, const std::string& target,
                  const ImportOptions& options, const CaptureWriteOptions& write) {
  const Bundle bundle = open_bundle(source);
  return bundle.document.is_null() ? import_plain(bundle, target, options, write)
                                   : import_document(bundle, target, write);
}

}  // namespace raingauge
