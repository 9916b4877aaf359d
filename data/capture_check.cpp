// SPDX-License-Identifier: Apache-2.0
// Is a capture what it claims to be? One head is in memory at a time.
#include "data/capture_check.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "data/capture.h"
#include "data/capture_plausible.h"
#include "data/error.h"
#include "data/finite.h"
#include "data/sha256.h"

namespace raingauge {
namespace {

class Findings {
 public:
  void add(Severity severity, const std::string& object, const std::string& message) {
    all_.push_back({severity, object, message});
  }
  std::vector<Finding> take() { return std::move(all_); }

 private:
  std::vector<Finding> all_;
};

std::string object_of(const RecordInfo& info) {
  std::string digits = std::to_string(info.number);
  return "/records/" + std::string(6 - std::min<std::size_t>(6, digits.size()), '0') + digits;
}

bool all_zero(const TensorView& head) {
  const auto* bytes = static_cast<const char*>(head.data);
  const auto count = static_cast<std::size_t>(head.tokens * head.head_dim) * size_of(head.dtype);
  return std::all_of(bytes, bytes + count, [](char byte) { return byte == 0; });
}

// The exact output of one query row in float64, and the magnitude that rounding errors scale with.
struct ExactRow {
  std::vector<double> o;          // [head_dim], sum of P v
  std::vector<double> magnitude;  // [head_dim], sum of P |v|
};

ExactRow exact_row(const RecordView& record, std::int64_t token) {
  const auto dim = static_cast<std::size_t>(record.head_dim());
  std::vector<float> query(dim);
  std::vector<float> row(dim);
  convert_to_float(record.q.row(0, token), record.q.dtype, query.data(), dim);
  std::vector<double> scores(static_cast<std::size_t>(record.tokens()));
  double largest = -std::numeric_limits<double>::infinity();
  for (std::int64_t j = 0; j < record.tokens(); ++j) {
    convert_to_float(record.k.row(0, j), record.k.dtype, row.data(), dim);
    double dot = 0.0;
    for (std::size_t c = 0; c < dim; ++c) dot += double{query[c]} * double{row[c]};
    const bool valid = record.key_valid == nullptr || record.key_valid[j] != 0;
    double& score = scores[static_cast<std::size_t>(j)];
    score = valid ? dot * record.info->scale : -std::numeric_limits<double>::infinity();
    largest = std::max(largest, score);
  }
  ExactRow exact{std::vector<double>(dim), std::vector<double>(dim)};
  double sum = 0.0;
  for (std::int64_t j = 0; j < record.tokens(); ++j) {
    const double weight = std::exp(scores[static_cast<std::size_t>(j)] - largest);
    sum += weight;
    convert_to_float(record.v.row(0, j), record.v.dtype, row.data(), dim);
    for (std::size_t c = 0; c < dim; ++c) {
      exact.o[c] += weight * double{row[c]};
      exact.magnitude[c] += weight * std::abs(double{row[c]});
    }
  }
  for (std::size_t c = 0; c < dim; ++c) {
    exact.o[c] /= sum;
    exact.magnitude[c] /= sum;
  }
  return exact;
}

// Whether `o` is what softmax(scale * QK^T) V gives on a few rows of one head. A kernel that rounds
// P and O to a type of unit roundoff u is off by at most about 2u times sum P |v|; 8u leaves room
// for its exponentials. Kernels on f32 inputs may use tf32, u = 2^-11.
void check_output(const Capture& capture, const RecordInfo& info, int head, DType stored,
                  Findings& findings) {
  const std::vector<int> heads{head};
  const auto record = capture.load(info, heads);
  const RecordView view = record->view();
  const std::vector<float> output = capture.load_output(info, heads);
  const double u =
      std::max({unit_roundoff(info.dtype), unit_roundoff(stored), unit_roundoff(DType::f16)});
  for (const std::int64_t token : {std::int64_t{0}, info.tokens / 3, info.tokens - 1}) {
    const ExactRow exact = exact_row(view, token);
    double error = 0.0;
    double allowed = 0.0;
    for (std::size_t c = 0; c < exact.o.size(); ++c) {
      const auto at = static_cast<std::size_t>(token * info.head_dim) + c;
      error += std::pow(double{output[at]} - exact.o[c], 2);
      allowed += std::pow(8.0 * u * exact.magnitude[c], 2);
    }
    if (std::sqrt(error) <= std::sqrt(allowed)) continue;
    findings.add(Severity::error, object_of(info) + "/o",
                 "head " + std::to_string(head) + ", token " + std::to_string(token) +
                     ": is not softmax(scale * QK^T) V of the recorded tensors (distance " +
                     std::to_string(std::sqrt(error)) + ", allowed " +
                     std::to_string(std::sqrt(allowed)) +
                     "); the scale, key_valid or the place of capture is wrong, or the model's "
                     "attention has a bias");
    return;
  }
}

// Finite values, zero heads and the hash of one tensor, in one pass over its heads.
struct TensorScan {
  const char* name;
  TensorView RecordView::*view;
  const std::string RecordInfo::*recorded;
  Sha256 hash;
};

void scan_head(TensorScan& scan, const RecordView& view, int head, const RecordInfo& info,
               bool& finite, Findings& findings) {
  const TensorView& tensor = view.*scan.view;
  const std::int64_t elements = tensor.tokens * tensor.head_dim;
  const std::string object = object_of(info) + "/" + scan.name;
  scan.hash.update(tensor.data, static_cast<std::size_t>(elements) * size_of(tensor.dtype));
  const std::int64_t bad = first_nonfinite(tensor.data, tensor.dtype, elements);
  if (bad >= 0) {
    finite = false;
    findings.add(Severity::error, object,
                 "head " + std::to_string(head) + ", token " +
                     std::to_string(bad / tensor.head_dim) + ", channel " +
                     std::to_string(bad % tensor.head_dim) +
                     " is NaN or Inf; record it again (a model in f16 may overflow)");
  }
  if (all_zero(tensor)) {
    findings.add(Severity::warning, object,
                 "head " + std::to_string(head) + " is zero everywhere; was it ever written?");
  }
}

// Token order, layout and RoPE, as far as the numbers of the first head's keys tell.
void check_plausible(const Capture& capture, const RecordInfo& info, Findings& findings) {
  const std::vector<int> heads{info.heads.front()};
  const auto record = capture.load(info, heads);
  const TensorView& k = record->view().k;
  std::vector<float> keys(static_cast<std::size_t>(k.tokens * k.head_dim));
  convert_to_float(k.data, k.dtype, keys.data(), keys.size());
  const std::string text = oddities(key_evidence(keys, k.head_dim, info.segments));
  if (!text.empty()) {
    findings.add(Severity::note, object_of(info) + "/k",
                 "head " + std::to_string(info.heads.front()) + ": " + text);
  }
}

void check_tensors(const Capture& capture, const RecordInfo& info, Findings& findings) {
  TensorScan scans[] = {{"q", &RecordView::q, &RecordInfo::sha256_q, Sha256()},
                        {"k", &RecordView::k, &RecordInfo::sha256_k, Sha256()},
                        {"v", &RecordView::v, &RecordInfo::sha256_v, Sha256()}};
  bool finite = true;
  for (const int head : info.heads) {
    const std::vector<int> heads{head};
    const auto record = capture.load(info, heads);
    for (TensorScan& scan : scans) {
      scan_head(scan, record->view(), head, info, finite, findings);
    }
  }
  for (TensorScan& scan : scans) {
    const std::string& recorded = info.*scan.recorded;
    const std::string object = object_of(info) + "/" + scan.name;
    if (recorded.empty()) {
      findings.add(Severity::note, object, "no sha256 is recorded, so its bits cannot be checked");
    } else if (scan.hash.finish() != recorded) {
      findings.add(Severity::error, object,
                   "its sha256 is not the recorded one: the file was damaged or edited; copy or "
                   "record it again");
    }
  }
  const RecordStorage storage = capture.storage_of(info);
  if (storage.chunked && storage.chunk[0] != 1) {
    findings.add(Severity::warning, object_of(info),
                 "its chunks span several heads, so reading one head decompresses others; "
                 "`raingauge capture convert` rewrites it");
  }
  if (finite) check_plausible(capture, info, findings);
  if (finite && storage.output_dtype) {
    check_output(capture, info, info.heads.front(), *storage.output_dtype, findings);
  }
}

void check_attributes(const RecordInfo& info, const CaptureInfo& capture, Findings& findings) {
  const std::string object = object_of(info);
  const double usual = 1.0 / std::sqrt(static_cast<double>(info.head_dim));
  // Models compute the scale in float32 at best, some round it to the type of Q.
  if (!(std::abs(info.scale / usual - 1.0) <= unit_roundoff(DType::bf16))) {
    findings.add(Severity::note, object,
                 "scale is " + std::to_string(info.scale) + ", not 1/sqrt(head_dim) = " +
                     std::to_string(usual) + "; is that the model's own?");
  }
  if (!info.rope_applied) {
    findings.add(Severity::warning, object,
                 "rope_applied = 0: Q and K are not what attention sees; masks and errors computed "
                 "from them say little about the model");
  }
  if (info.kind != "self" && info.kind != "joint") {
    findings.add(Severity::warning, object, "kind is `" + info.kind + "`; known: self, joint");
  }
  if (info.layers_total >= 0 && info.site.layer >= info.layers_total) {
    findings.add(Severity::error, object,
                 "layer_index " + std::to_string(info.site.layer) + " with layers_total " +
                     std::to_string(info.layers_total));
  }
  if (capture.steps && info.site.step >= *capture.steps) {
    findings.add(Severity::error, object,
                 "step " + std::to_string(info.site.step) +
                     " with steps = " + std::to_string(*capture.steps));
  }
}

void check_sites(const std::vector<RecordInfo>& records, Findings& findings) {
  std::map<std::tuple<int, int, std::string, std::string, int>, std::map<int, int>> seen;
  for (const RecordInfo& info : records) {
    const Site& s = info.site;
    auto& heads = seen[{s.step, s.layer, s.expert, s.branch, s.batch_item}];
    for (const int head : info.heads) {
      const auto [first, added] = heads.emplace(head, info.number);
      if (added) continue;
      findings.add(Severity::error, object_of(info),
                   "head " + std::to_string(head) +
                       " of its step, layer, expert, branch and batch "
                       "item is in record " +
                       std::to_string(first->second) + " already");
      break;
    }
  }
}

}  // namespace

std::string_view name_of(Severity severity) {
  switch (severity) {
    case Severity::error:
      return "error";
    case Severity::warning:
      return "warning";
    case Severity::note:
      return "note";
  }
  throw Error("unknown severity " + std::to_string(static_cast<int>(severity)));
}

std::vector<Finding> validate_capture(const std::string& path) {
  Findings findings;
  std::string object = "/";
  try {
    const Capture capture = Capture::open(path, {.allow_nonfinite = true, .map = true});
    for (const std::string& warning : capture.warnings()) {
      findings.add(Severity::error, "/", warning);
    }
    if (capture.records().empty()) findings.add(Severity::error, "/records", "holds no record");
    check_sites(capture.records(), findings);
    for (const RecordInfo& info : capture.records()) {
      object = object_of(info);
      check_attributes(info, capture.info(), findings);
      check_tensors(capture, info, findings);
    }
    for (const std::string& arm : capture.frame_arms()) {
      object = "/frames/" + arm;
      capture.read_frames(arm);
    }
  } catch (const Error& error) {
    findings.add(Severity::error, object, error.what());
  }
  return findings.take();
}

bool is_valid(const std::vector<Finding>& findings) {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& f) { return f.severity == Severity::error; });
}

}  // namespace raingauge
