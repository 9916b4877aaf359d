// SPDX-License-Identifier: Apache-2.0
// `raingauge capture diff A B`: are two captures the same, record by record and head by head?
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "data/capture.h"
#include "harness/commands/commands.h"
#include "harness/commands/distance.h"
#include "harness/rows.h"
#include "harness/table.h"

namespace raingauge {
namespace {

using nlohmann::json;

using SiteKey = std::tuple<int, int, std::string, std::string, int>;

SiteKey key_of(const RecordInfo& info) {
  const Site& s = info.site;
  return {s.step, s.layer, s.expert, s.branch, s.batch_item};
}

std::string text_of(const RecordInfo& info) {
  const Site& s = info.site;
  return "step " + std::to_string(s.step) + ", layer " + std::to_string(s.layer) + ", " +
         (s.expert.empty() ? "" : s.expert + ", ") + s.branch +
         (s.batch_item == 0 ? "" : ", item " + std::to_string(s.batch_item));
}

std::vector<float> values_of(const TensorView& head) {
  const auto count = static_cast<std::size_t>(head.tokens * head.head_dim);
  std::vector<float> values(count);
  convert_to_float(head.data, head.dtype, values.data(), count);
  return values;
}

bool same_bits(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype &&
         std::memcmp(a.data, b.data,
                     static_cast<std::size_t>(a.tokens * a.head_dim) * size_of(a.dtype)) == 0;
}

// The worst head of one tensor of a pair of records.
struct TensorDiff {
  std::string tensor;
  bool identical = true;
  int worst_head = -1;
  Distance worst;

  void add(int head, bool same, const Distance& distance) {
    identical = identical && same;
    const bool worse = !(distance.rel_l2 <= worst.rel_l2);  // NaN is the worst
    if (worst_head >= 0 && !worse) return;
    worst_head = head;
    worst = distance;
  }
};

std::vector<TensorDiff> compare(const Capture& a, const RecordInfo& in_a, const Capture& b,
                                const RecordInfo& in_b, const std::vector<int>& heads) {
  std::vector<TensorDiff> diffs{{"q", true, -1, {}}, {"k", true, -1, {}}, {"v", true, -1, {}}};
  const bool outputs = in_a.has_output && in_b.has_output;
  if (outputs) diffs.push_back({"o", true, -1, {}});
  for (const int head : heads) {
    const std::vector<int> one{head};
    const auto first = a.load(in_a, one);
    const auto second = b.load(in_b, one);
    const RecordView va = first->view();
    const RecordView vb = second->view();
    const TensorView* pairs[3][2] = {{&va.q, &vb.q}, {&va.k, &vb.k}, {&va.v, &vb.v}};
    for (std::size_t i = 0; i < 3; ++i) {
      const auto reference = values_of(*pairs[i][0]);
      const auto test = values_of(*pairs[i][1]);
      diffs[i].add(head, same_bits(*pairs[i][0], *pairs[i][1]), distance(reference, test));
    }
    if (!outputs) continue;
    const auto reference = a.load_output(in_a, one);
    const auto test = b.load_output(in_b, one);
    diffs[3].add(head, reference == test, distance(reference, test));
  }
  return diffs;
}

// Why two records cannot be compared; empty when they can.
std::string mismatch(const RecordInfo& a, const RecordInfo& b, const std::vector<int>& heads) {
  if (a.tokens != b.tokens || a.head_dim != b.head_dim) {
    return "tokens x head_dim " + std::to_string(a.tokens) + "x" + std::to_string(a.head_dim) +
           " against " + std::to_string(b.tokens) + "x" + std::to_string(b.head_dim);
  }
  if (a.segments != b.segments) {
    return "segments " + describe(a.segments) + " against " + describe(b.segments);
  }
  return heads.empty() ? "no head in common" : "";
}

}  // namespace

int capture_diff_command(const CaptureCommand& options) {
  const Capture a = Capture::open(options.capture, {.allow_nonfinite = true, .map = true});
  const Capture b = Capture::open(options.other, {.allow_nonfinite = true, .map = true});
  std::map<SiteKey, const RecordInfo*> others;
  for (const RecordInfo& info : b.records()) others.emplace(key_of(info), &info);
  json rows = json::array();
  Table table(
      {{"record"}, {"tensor"}, {"same"}, {"worst head"}, {"max_abs"}, {"rel_l2"}, {"cosine"}});
  bool within = true;
  const auto differs = [&](const RecordInfo& info, const std::string& reason) {
    within = false;
    rows.push_back({{"record", text_of(info)}, {"reason", reason}});
    table.add_row({text_of(info), reason, "no", "", "", "", ""});
  };
  for (const RecordInfo& info : a.records()) {
    const auto found = others.find(key_of(info));
    if (found == others.end()) {
      differs(info, "only in " + options.capture);
      continue;
    }
    const RecordInfo& other = *found->second;
    others.erase(found);
    std::vector<int> heads;
    std::copy_if(info.heads.begin(), info.heads.end(), std::back_inserter(heads), [&](int head) {
      return std::find(other.heads.begin(), other.heads.end(), head) != other.heads.end();
    });
    const std::string reason = mismatch(info, other, heads);
    if (!reason.empty()) {
      differs(info, reason);
      continue;
    }
    for (const TensorDiff& diff : compare(a, info, b, other, heads)) {
      within = within && (diff.identical || diff.worst.rel_l2 <= options.tolerance);
      rows.push_back({{"record", text_of(info)},
                      {"tensor", diff.tensor},
                      {"identical", diff.identical},
                      {"heads", heads.size()},
                      {"worst_head", diff.worst_head},
                      {"max_abs", number_or_null(diff.worst.max_abs)},
                      {"rel_l2", number_or_null(diff.worst.rel_l2)},
                      {"cosine", number_or_null(diff.worst.cosine)}});
      table.add_row({text_of(info), diff.tensor, diff.identical ? "bit for bit" : "no",
                     std::to_string(diff.worst_head), format_number(diff.worst.max_abs, 6),
                     format_number(diff.worst.rel_l2, 6), format_number(diff.worst.cosine, 6)});
    }
  }
  for (const auto& [key, info] : others) differs(*info, "only in " + options.other);
  if (options.json) {
    std::printf("%s\n", json({{"within", within}, {"rows", rows}}).dump(1).c_str());
  } else {
    std::printf("%s\n%s\n", table.text().c_str(),
                within ? "the same, within the tolerance" : "NOT the same");
  }
  return within ? 0 : 2;
}

}  // namespace raingauge
