// SPDX-License-Identifier: Apache-2.0
// Block masks of the run's first record, and decoded frames: tables, contrasts, and strips of
// dense / arm / difference with the worst crop.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "data/frames.h"
#include "harness/mask_pictures.h"
#include "harness/report/run_data.h"
#include "harness/results.h"
#include "harness/table.h"

namespace raingauge {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kDivergence =
    "PSNR and SSIM against `dense` (same seed) measure divergence from dense attention, not "
    "quality; "
    "against `truth` they measure quality.";

// How many frames of a metric are identical to the reference's, over all clips of an arm.
using Infinite = std::map<std::string, int>;  // "arm|metric:reference"

Infinite count_infinite(const RunData& data) {
  Infinite counts;
  for_each_row(data.folder, "generate", [&](const json& row) {
    if (row.value("outcome", "") != "ok" || !row["metrics"].is_object()) return;
    for (const auto& [name, value] : row["metrics"].items()) {
      if (value.is_object() && value.value("infinite", 0) > 0)
        counts[row.value("arm", "") + "|" + name + ":" + row.value("reference", "")] +=
            value.value("infinite", 0);
    }
  });
  return counts;
}

std::string outcomes_text(const ObservedArm& arm) {
  if (arm.feasible()) return "";
  std::string text;
  for (const auto& [name, count] : arm.outcomes)
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + name;
  return text + (arm.reason.empty() ? "" : ": " + arm.reason);
}

std::vector<std::string> frame_metrics(const Observations& seen) {
  std::vector<std::string> names;
  for (const auto& name : seen.metrics()) {
    if (name.find(':') != std::string::npos) names.push_back(name);
  }
  return names;
}

ReportTable frame_table(const RunData& data, Document& document) {
  const auto& seen = data.frames;
  const auto infinite = count_infinite(data);
  ReportTable table;
  table.id = "frames";
  table.title = "Decoded frames";
  table.note = kDivergence;
  table.columns = {{"arm", "", false},
                   {"density", "over all attention calls, dense ones included", true}};
  const auto metrics = frame_metrics(seen);
  for (const auto& name : metrics) {
    const auto colon = name.find(':');
    table.columns.push_back({name.substr(0, colon) + " to " + name.substr(colon + 1),
                             "mean over frames, then over clips: " + formula_of(name), true});
  }
  table.columns.push_back({"attention s", "time in attention, a clip", true});
  table.columns.push_back({"total s", "time of a clip", true});
  table.columns.push_back({"n", "clips", true});
  table.columns.push_back(
      {"note", "identical frames are infinite in PSNR: counted, left out of means", false});
  for (std::size_t arm = 0; arm < seen.arms().size(); ++arm) {
    const auto& entry = seen.arms()[arm];
    Number number;
    number.table = "frames";
    number.arm = entry.name;
    number.unit_of_n = "clips";
    std::vector<Cell> row = {entry.name};
    std::string note = outcomes_text(entry);
    const auto add = [&](const std::string& metric, double scale) {
      auto values = finite(seen.by_generation(arm, seen.metric(metric), {}));
      for (auto& value : values) value *= scale;
      const auto colon = metric.find(':');
      number.metric =
          scale == 1.0 ? metric.substr(0, colon) : metric.substr(0, metric.rfind('_')) + "_s";
      number.reference = colon == std::string::npos ? "" : metric.substr(colon + 1);
      row.push_back(values.empty() ? Cell("") : Cell::of(add_level(document, number, values)));
      const auto found = infinite.find(entry.name + "|" + metric);
      if (found != infinite.end()) {
        note += (note.empty() ? "" : "; ") + std::to_string(found->second) +
                " identical frames left out of " + metric;
      }
    };
    add("density_pairs", 1.0);
    for (const auto& metric : metrics) add(metric, 1.0);
    add("attention_ms", 1e-3);
    add("total_ms", 1e-3);
    row.emplace_back(std::to_string(seen.of_arm(arm).size()));
    row.emplace_back(note);
    row.back().warning = entry.outcomes.contains("failed") || entry.outcomes.contains("not_finite");
    table.rows.push_back(std::move(row));
  }
  return table;
}

ReportTable frame_contrasts(const RunData& data, Document& document) {
  ReportTable table;
  table.id = "frame_contrasts";
  table.title = "Contrasts on decoded frames";
  table.note = "Exploratory: the declared contrasts are tested on attention outputs.";
  table.columns = {{"contrast", "", false}};
  const auto metrics = frame_metrics(data.frames);
  for (const auto& name : metrics)
    table.columns.push_back({"difference of " + name, "paired within clips", true});
  table.columns.push_back({"n", "clips", true});
  table.columns.push_back({"mean over", "", false});
  for (const auto& contrast : declared_contrasts(data.frames, data.plan)) {
    if (contrast.weights.empty()) continue;
    std::vector<Cell> row = {contrast.name};
    std::size_t n = 0;
    for (const auto& name : metrics) {
      Number number;
      number.table = "frame_contrast";
      number.arm = contrast.name;
      number.metric = name.substr(0, name.find(':'));
      number.reference = name.substr(name.find(':') + 1);
      const auto values = differences(data.frames, contrast, data.frames.metric(name));
      n = std::max(n, values.size());
      row.push_back(values.empty() ? Cell("")
                                   : Cell::of(add_difference(document, number, values), 3));
    }
    row.emplace_back(std::to_string(n));
    row.emplace_back(contrast.over);
    table.rows.push_back(std::move(row));
  }
  return table;
}

// The 32 x 32 pixels, on a grid of 16, where two clips differ most in squared error.
struct WorstPatch {
  std::int64_t frame = 0, y = 0, x = 0, side = 32;
  double error = -1.0;
};

WorstPatch worst_patch(const Frames& reference, const Frames& test) {
  WorstPatch worst;
  worst.side = std::min<std::int64_t>({32, reference.height, reference.width});
  for (std::int64_t f = 0; f < reference.frames; ++f) {
    for (std::int64_t y = 0; y + worst.side <= reference.height; y += 16) {
      for (std::int64_t x = 0; x + worst.side <= reference.width; x += 16) {
        double error = 0.0;
        for (std::int64_t r = y; r < y + worst.side; ++r) {
          const auto at =
              static_cast<std::size_t>(((f * reference.height + r) * reference.width + x) * 3);
          for (std::size_t i = at; i < at + static_cast<std::size_t>(worst.side * 3); ++i) {
            const double d = double(reference.rgb[i]) - double(test.rgb[i]);
            error += d * d;
          }
        }
        if (error > worst.error) worst = {f, y, x, worst.side, error};
      }
    }
  }
  return worst;
}

Frames crop(const Frames& clip, const WorstPatch& patch) {
  Frames out{1, patch.side, patch.side, {}};
  for (std::int64_t r = patch.y; r < patch.y + patch.side; ++r) {
    const auto* begin =
        clip.rgb.data() + ((patch.frame * clip.height + r) * clip.width + patch.x) * 3;
    out.rgb.insert(out.rgb.end(), begin, begin + patch.side * 3);
  }
  return out;
}

Frames frame_of(const Frames& clip, std::int64_t frame) {
  const auto bytes = clip.height * clip.width * 3;
  const auto* begin = clip.rgb.data() + frame * bytes;
  return {1, clip.height, clip.width, {begin, begin + bytes}};
}

std::string png(const Frames& frame) { return base64(encode_png(frame)); }

json strip_of(const std::string& arm, const std::string& clip, const Frames& dense,
              const Frames& test) {
  const auto last = static_cast<int>(dense.frames) - 1;
  const std::vector<int> numbers = {0, last / 3, 2 * last / 3, last};
  const Frames difference = difference_frames(dense, test);
  const std::vector<const Frames*> clips = {&dense, &test, &difference};
  const auto patch = worst_patch(dense, test);
  const double mse = patch.error / static_cast<double>(patch.side * patch.side * 3);
  return {
      {"arm", arm},
      {"clip", clip},
      {"frames", numbers},
      {"sheet", png(contact_sheet(clips, numbers))},
      {"worst",
       {{"frame", patch.frame},
        {"y", patch.y},
        {"x", patch.x},
        {"side", patch.side},
        {"rmse", std::sqrt(mse)}}},
      {"crops", {png(crop(dense, patch)), png(crop(test, patch)), png(crop(difference, patch))}},
      {"flip", {png(frame_of(dense, patch.frame)), png(frame_of(test, patch.frame))}}};
}

// One clip an arm: the first seed.
Pictures strips_of(const RunData& data) {
  Pictures pictures{"strips", json::array(), ""};
  const auto folder = data.folder / "frames";
  if (data.frames.generations().empty()) return pictures;
  const auto& name = data.frames.generations().front().name;
  const auto seed = name.substr(name.rfind(' ') + 1);
  const auto file = [&](const std::string& arm) {
    return folder / (arm + ".clip" + seed + ".npy");
  };
  if (!fs::exists(file("dense"))) return pictures;
  const Frames dense = read_npy(file("dense").string());
  for (const auto& arm : data.frames.arms()) {
    if (arm.name == "dense" || !fs::exists(file(arm.name))) continue;
    const Frames test = read_npy(file(arm.name).string());
    if (test.rgb.size() != dense.rgb.size()) continue;
    pictures.data.push_back(strip_of(arm.name, name, dense, test));
  }
  pictures.description =
      "For each arm four frames of clip " + name +
      ": rows dense, arm, absolute difference times 8; then the 32 x 32 pixels with the largest "
      "squared error, and the frame it lies in, dense and arm in turn.";
  return pictures;
}

}  // namespace

void add_masks(const RunData& data, Document& document) {
  const auto path = data.folder / "masks.json";
  std::ifstream file(path);
  if (!file) return;
  json masks = json::parse(file, nullptr, false);
  if (!masks.is_object() || !masks.contains("arms")) {
    document.section("masks", "Block masks").warn("masks.json: damaged; run again with --fresh");
    return;
  }
  for (auto& arm : masks["arms"]) {
    const auto known = data.fidelity.arm(arm.value("arm", ""));
    arm["shown"] = known && highlighted(data, data.fidelity.arms()[*known]);
  }
  auto& section = document.section("masks", "Block masks");
  section.say("What each arm keeps of " + masks.value("record", std::string("the first record")) +
              ": rows are query blocks, columns key blocks, both in the arm's own block order.");
  std::string description =
      "Kept block pairs of " + std::to_string(masks["arms"].size()) + " arms.";
  section.blocks.emplace_back(Pictures{"masks", std::move(masks), std::move(description)});
}

void add_frames(const RunData& data, Document& document) {
  if (data.frames.arms().empty()) return;
  auto& section = document.section("frames", "Decoded frames");
  section.blocks.emplace_back(frame_table(data, document));
  auto contrasts = frame_contrasts(data, document);
  if (!contrasts.rows.empty()) section.blocks.emplace_back(std::move(contrasts));
  if (!has_opencv()) {
    section.say("Strips of frames: n/a, this build has no OpenCV to encode them.");
    return;
  }
  auto strips = strips_of(data);
  if (!strips.data.empty()) section.blocks.emplace_back(std::move(strips));
}

}  // namespace raingauge
