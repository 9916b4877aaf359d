// SPDX-License-Identifier: Apache-2.0
// Everything of a capture but its tensors: root attributes, schedule, record attributes, key
// validity. A defect is an Error that names file, object and what to do.
#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <cmath>
#include <filesystem>
#include <set>

#include "data/capture_detail.h"
#include "data/error.h"
#include "data/sha256.h"

namespace raingauge {

std::string generation_id(const CaptureInfo& info) {
  if (info.prompt.empty() || info.seed.empty()) {
    return std::filesystem::path(info.path).stem().string();
  }
  const std::string prompt = sha256_hex(info.prompt.data(), info.prompt.size()).substr(0, 8);
  return info.model_id + "|seed " + info.seed + "|" + prompt;
}

namespace hdf5 {
namespace {

constexpr std::int64_t kMaxListed = 1 << 20;  // values of a schedule; guards allocations

void check_format(hid_t file, const std::string& path) {
  const auto format = read_string(file, "format", path);
  if (!format || *format != "raingauge-capture") {
    fail(path, "root attribute `format` is " + (format ? "`" + *format + "`" : "missing") +
                   "; needed is `raingauge-capture` (is this a plan, or another program's file?)");
  }
  const auto version =
      required(read_integers(file, "version", path), "version", "format version", path);
  if (version.empty() || version.front() != kCaptureVersion) {
    fail(path, "capture format version " +
                   (version.empty() ? "(empty)" : std::to_string(version.front())) +
                   " is unknown; this program reads version 1: use a newer program, or record the "
                   "capture again");
  }
}

std::optional<int> optional_int(hid_t object, const char* name, const std::string& where) {
  const auto value = read_integer(object, name, where);
  if (!value) return std::nullopt;
  return narrow(*value, 0, INT_MAX, name, where);
}

std::string string_or_empty(hid_t object, const char* name, const std::string& where) {
  return read_string(object, name, where).value_or("");
}

void read_numbers(hid_t file, CaptureInfo& info) {
  const auto seed = read_integer_texts(file, "seed", info.path);
  if (seed && seed->size() == 1) info.seed = seed->front();
  info.steps = optional_int(file, "steps", info.path);
  info.frames = optional_int(file, "frames", info.path);
  info.height = optional_int(file, "height", info.path);
  info.width = optional_int(file, "width", info.path);
  info.guidance = read_real(file, "guidance", info.path);
  info.fps = read_real(file, "fps", info.path);
  const auto patch = read_integers(file, "patch", info.path);
  if (!patch) return;
  if (patch->size() != 3) {
    fail(info.path, "root attribute `patch` holds " + std::to_string(patch->size()) +
                        " values; needed are 3: frames, height, width");
  }
  for (const auto value : *patch) {
    info.patch.push_back(narrow(value, 1, INT_MAX, "patch", info.path));
  }
}

std::vector<int> read_heads(hid_t record, std::int64_t stored, const std::string& where) {
  const auto values = read_integers(record, "heads", where);
  std::vector<int> heads;
  if (!values) {
    for (int i = 0; i < static_cast<int>(stored); ++i) heads.push_back(i);
    return heads;
  }
  if (static_cast<std::int64_t>(values->size()) != stored) {
    fail(where, "`heads` names " + std::to_string(values->size()) + " heads, the tensors hold " +
                    std::to_string(stored));
  }
  for (const auto value : *values) {
    heads.push_back(narrow(value, 0, INT_MAX - 1, "heads", where));
  }
  if (std::set<int>(heads.begin(), heads.end()).size() != heads.size()) {
    fail(where, "`heads` names a head twice");
  }
  return heads;
}

void read_site(hid_t record, RecordInfo& info, const std::string& where) {
  info.site.layer = narrow(required(read_integer(record, "layer_index", where), "layer_index",
                                    "index of the self-attention layer", where),
                           0, INT_MAX, "layer_index", where);
  info.site.step = narrow(
      required(read_integer(record, "step", where), "step", "index of the sampler's step", where),
      0, INT_MAX, "step", where);
  info.site.branch = required(read_string(record, "branch", where), "branch",
                              "cond, uncond, cond_uncond …", where);
  info.site.expert = string_or_empty(record, "expert", where);
  info.site.batch_item = optional_int(record, "batch_item", where).value_or(0);
  info.scale = required(read_real(record, "scale", where), "scale", "softmax(scale * q.k)", where);
  if (!(std::isfinite(info.scale) && info.scale > 0.0)) {
    fail(where, "`scale` is " + std::to_string(info.scale) + "; it must be finite and positive");
  }
}

void read_optional(hid_t record, RecordInfo& info, const std::string& where) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  info.layer_name = string_or_empty(record, "layer", where);
  info.layers_total = optional_int(record, "layers_total", where).value_or(-1);
  info.timestep = read_real(record, "timestep", where).value_or(kNaN);
  info.sigma = read_real(record, "sigma", where).value_or(kNaN);
  info.kind = read_string(record, "kind", where).value_or("self");
  info.rope_applied = read_integer(record, "rope_applied", where).value_or(1) != 0;
  info.sha256_q = string_or_empty(record, "sha256_q", where);
  info.sha256_k = string_or_empty(record, "sha256_k", where);
  info.sha256_v = string_or_empty(record, "sha256_v", where);
  const int largest = *std::max_element(info.heads.begin(), info.heads.end());
  info.heads_total = optional_int(record, "heads_total", where).value_or(largest + 1);
  if (info.heads_total <= largest) {
    fail(where, "`heads` names head " + std::to_string(largest) + ", `heads_total` is " +
                    std::to_string(info.heads_total));
  }
}

std::string shape_text(const TensorDataset& t) {
  return "[" + std::to_string(t.heads) + ", " + std::to_string(t.tokens) + ", " +
         std::to_string(t.head_dim) + "] " + std::string(name_of(t.dtype));
}

void read_tensor_shapes(hid_t record, RecordInfo& info, const std::string& where,
                        std::int64_t file_size) {
  const TensorDataset q = open_tensor(record, "q", where, file_size);
  std::vector<std::string> names{"k", "v"};
  info.has_output = has_link(record, "o");
  if (info.has_output) names.emplace_back("o");
  for (const std::string& name : names) {
    const TensorDataset other = open_tensor(record, name, where, file_size);
    const bool same_shape =
        other.heads == q.heads && other.tokens == q.tokens && other.head_dim == q.head_dim;
    if (same_shape && (name == "o" || other.dtype == q.dtype)) continue;
    fail(where, "`q` is " + shape_text(q) + " but `" + name + "` is " + shape_text(other) +
                    "; shapes must agree, and q, k, v share one element type (key and value heads "
                    "are expanded to query heads on capture)");
  }
  info.dtype = q.dtype;
  info.tokens = q.tokens;
  info.head_dim = q.head_dim;
  info.heads = read_heads(record, q.heads, where);
}

// Checked access to a one-dimensional dataset, ready to be read by H5Dread.
struct Vector {
  Handle dataset;
  std::int64_t count = 0;
};

Vector open_vector(hid_t parent, const std::string& name, const std::string& where,
                   std::int64_t max_count, std::int64_t file_size) {
  Vector v;
  v.dataset = open_dataset(parent, name, where);
  const Handle space = check(H5Dget_space(v.dataset.get()), where, "its extent cannot be read");
  const Handle type = check(H5Dget_type(v.dataset.get()), where, "its type cannot be read");
  const auto dims = extent(space.get(), where);
  if (dims.size() != 1 || dims[0] > max_count) {
    fail(where, "must be one-dimensional with at most " + std::to_string(max_count) + " elements");
  }
  v.count = dims[0];
  if (v.count > 0) {
    const auto element = static_cast<std::int64_t>(H5Tget_size(type.get()));
    check_storage(v.dataset.get(), v.count * element, where, file_size);
  }
  return v;
}

}  // namespace

std::string record_name(int number) {
  std::string digits = std::to_string(number);
  return std::string(digits.size() < 6 ? 6 - digits.size() : 0, '0') + digits;
}

CaptureInfo read_capture_info(hid_t file, const std::string& path) {
  check_format(file, path);
  CaptureInfo info;
  info.path = path;
  info.complete = read_integer(file, "complete", path).value_or(0) != 0;
  const std::array<std::pair<const char*, std::string*>, 10> texts{{
      {"generation", &info.generation},
      {"model_id", &info.model_id},
      {"pipeline", &info.pipeline},
      {"config", &info.config},
      {"prompt", &info.prompt},
      {"negative_prompt", &info.negative_prompt},
      {"scheduler", &info.scheduler},
      {"command", &info.command},
      {"libraries", &info.libraries},
      {"created", &info.created},
  }};
  for (const auto& [name, target] : texts) *target = string_or_empty(file, name, path);
  read_numbers(file, info);
  if (info.generation.empty()) info.generation = generation_id(info);
  return info;
}

std::vector<double> read_reals(hid_t parent, const std::string& name, const std::string& where,
                               std::int64_t file_size) {
  std::vector<double> values;
  if (!has_link(parent, name)) return values;
  const std::string object = where + "/" + name;
  const Vector v = open_vector(parent, name, object, kMaxListed, file_size);
  values.resize(static_cast<std::size_t>(v.count));
  if (v.count > 0) {
    check_status(
        H5Dread(v.dataset.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
        object, "cannot be read as numbers");
  }
  return values;
}

RecordInfo read_record_info(hid_t records, const std::string& name, const CaptureInfo& capture,
                            std::int64_t file_size) {
  const std::string where = capture.path + ": /records/" + name;
  RecordInfo info;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), info.number);
  const bool digits = parsed.ec == std::errc() && parsed.ptr == name.data() + name.size();
  if (!digits || info.number < 0 || record_name(info.number) != name) {
    fail(where, "is no record name; records are numbered with six digits, as 000042");
  }
  info.capture = capture.path;
  info.generation = capture.generation;
  const Handle record = open_group(records, name, where);
  read_site(record.get(), info, where);
  for (const char* needed : {"q", "k", "v"}) {
    if (!has_link(record.get(), needed)) {
      fail(where, std::string("dataset `") + needed + "` is missing; record the capture again");
    }
  }
  read_tensor_shapes(record.get(), info, where, file_size);
  read_optional(record.get(), info, where);
  if (!has_link(record.get(), "segments")) {
    fail(where,
         "dataset `segments` is missing: nothing says which tokens are video and which are text, "
         "and it is not guessed; add it (role, start, length, frames, height, width)");
  }
  info.segments = read_segments(record.get(), where + "/segments");
  check_segments(info.segments, info.tokens, where + "/segments");
  info.has_key_valid = has_link(record.get(), "key_valid");
  return info;
}

std::vector<std::uint8_t> read_key_valid(hid_t record, const RecordInfo& info,
                                         std::int64_t file_size) {
  std::vector<std::uint8_t> valid;
  if (!info.has_key_valid) return valid;
  const std::string where = info.capture + ": /records/" + record_name(info.number) + "/key_valid";
  const Vector v = open_vector(record, "key_valid", where, INT_MAX, file_size);
  if (v.count != info.tokens) {
    fail(where, "has " + std::to_string(v.count) + " elements for " + std::to_string(info.tokens) +
                    " tokens");
  }
  const Handle type = check(H5Dget_type(v.dataset.get()), where, "its type cannot be read");
  if (H5Tget_size(type.get()) != 1 || H5Tget_class(type.get()) == H5T_STRING) {
    fail(where, "must hold one byte an element: uint8 or bool, 1 = valid");
  }
  valid.resize(static_cast<std::size_t>(v.count));
  check_status(H5Dread(v.dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, valid.data()),
               where, "cannot be read");
  for (auto& value : valid) value = value != 0 ? 1 : 0;
  if (std::find(valid.begin(), valid.end(), std::uint8_t{1}) == valid.end()) {
    fail(where, "marks no key as valid; attention needs at least one");
  }
  return valid;
}

}  // namespace hdf5
}  // namespace raingauge
