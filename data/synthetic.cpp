// SPDX-License-Identifier: Apache-2.0
// Which synthetic records exist: specifications, their checks, their listing.
#include "data/synthetic.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <utility>

#include "data/error.h"
#include "data/synthetic_models.h"

namespace raingauge {
namespace {

constexpr std::array<std::pair<HeadKind, std::string_view>, 5> kKinds{{
    {HeadKind::local, "local"},
    {HeadKind::temporal, "temporal"},
    {HeadKind::sink, "sink"},
    {HeadKind::textural, "textural"},
    {HeadKind::random, "random"},
}};

void require(bool good, const std::string& what) {
  if (!good) throw Error("synthetic records: " + what);
}

void fill_from_model(SyntheticSpec& spec) {
  const ModelShape& model = find_model_shape(spec.model);
  const auto fill = [](int& value, int unset, int from) {
    if (value == unset) value = from;
  };
  fill(spec.frames, 0, model.frames);
  fill(spec.height, 0, model.height);
  fill(spec.width, 0, model.width);
  fill(spec.text_tokens, -1, model.text_tokens);
  fill(spec.text_first, -1, model.text_first ? 1 : 0);
  fill(spec.references, -1, model.references);
  fill(spec.heads, 0, model.heads);
  fill(spec.head_dim, 0, model.head_dim);
  fill(spec.layers_total, 0, model.layers);
  if (spec.dtype.empty()) spec.dtype = name_of(model.dtype);
}

std::int64_t count_all_tokens(const SyntheticSpec& spec) {
  return std::int64_t{spec.frames} * spec.height * spec.width * (1 + spec.references) +
         spec.text_tokens;
}

void check_spec(const SyntheticSpec& spec) {
  require(spec.frames > 0 && spec.height > 0 && spec.width > 0,
          "the grid is " + std::to_string(spec.frames) + "x" + std::to_string(spec.height) + "x" +
              std::to_string(spec.width) +
              "; give a model, or frames, height and width of 1 or more");
  constexpr int kMaxSide = 65536;  // keeps products inside 64 bits
  require(spec.frames <= kMaxSide && spec.height <= kMaxSide && spec.width <= kMaxSide,
          "frames, height and width must not exceed 65536");
  require(spec.text_tokens >= 0 && (spec.text_first == 0 || spec.text_first == 1),
          "text_tokens must not be negative and text_first must be 0 or 1");
  require(spec.references >= 0 && (spec.references == 0 || spec.frames == 1),
          "references are further images: they must not be negative and need frames = 1");
  require(count_all_tokens(spec) <= INT_MAX,
          std::to_string(count_all_tokens(spec)) + " tokens; at most 2^31 - 1 are allowed");
  require(spec.heads > 0 && spec.head_dim >= 16 && spec.head_dim <= 1024,
          std::to_string(spec.heads) + " heads of " + std::to_string(spec.head_dim) +
              " channels; give a model, or 1 head or more and a head_dim of 16 to 1024");
  require(spec.layers > 0 && spec.steps > 0 && spec.generations > 0,
          "layers, steps and generations must be 1 or more");
  constexpr std::int64_t kMaxRecords = 1000000;  // numbers have six digits
  require(std::int64_t{spec.layers} * spec.steps <= kMaxRecords &&
              std::int64_t{spec.layers} * spec.steps * spec.generations <= kMaxRecords,
          "layers x steps x generations must not exceed 1000000");
  require(spec.layers <= spec.layers_total, std::to_string(spec.layers) + " layers of " +
                                                std::to_string(spec.layers_total) +
                                                " in the model");
  require(!spec.kinds.empty(), "kinds must name at least one kind of head");
  require(spec.noise >= 0.0 && spec.noise <= 2.0, "noise must be 0 to 2");
  require(spec.text_mass > 0.0 && spec.text_mass < 1.0, "text_mass must be between 0 and 1");
}

Segments make_segments(const SyntheticSpec& spec) {
  Segments segments;
  std::int64_t start = 0;
  const auto add = [&](Role role, std::int64_t length) {
    const bool visual = role != Role::text;
    segments.push_back({role, start, length, visual ? spec.frames : 0, visual ? spec.height : 0,
                        visual ? spec.width : 0});
    start += length;
  };
  const std::int64_t grid = std::int64_t{spec.frames} * spec.height * spec.width;
  if (spec.text_first == 1 && spec.text_tokens > 0) add(Role::text, spec.text_tokens);
  add(spec.frames > 1 ? Role::video : Role::image, grid);
  for (int i = 0; i < spec.references; ++i) add(Role::reference, grid);
  if (spec.text_first == 0 && spec.text_tokens > 0) add(Role::text, spec.text_tokens);
  return segments;
}

RecordInfo base_info(const SyntheticSpec& spec) {
  RecordInfo info;
  const std::string name = spec.model.empty() ? "custom" : spec.model;
  info.capture = "synthetic:" + name;
  info.scale = 1.0 / std::sqrt(static_cast<double>(spec.head_dim));
  info.layers_total = spec.layers_total;
  info.kind = spec.text_tokens > 0 ? "joint" : "self";
  for (int h = 0; h < spec.heads; ++h) info.heads.push_back(h);
  info.heads_total = spec.heads;
  info.dtype = parse_dtype(spec.dtype);
  info.tokens = count_all_tokens(spec);
  info.head_dim = spec.head_dim;
  info.segments = make_segments(spec);
  return info;
}

}  // namespace

std::string_view name_of(HeadKind kind) {
  for (const auto& [value, name] : kKinds) {
    if (value == kind) return name;
  }
  throw Error("head kind " + std::to_string(static_cast<int>(kind)) + " is not one of the five");
}

HeadKind parse_head_kind(std::string_view name) {
  for (const auto& [value, known] : kKinds) {
    if (known == name) return value;
  }
  throw Error("unknown kind of head `" + std::string(name) +
              "`; allowed are local, temporal, sink, textural, random");
}

SyntheticSpec complete(const SyntheticSpec& spec) {
  SyntheticSpec full = spec;
  if (!full.model.empty()) fill_from_model(full);
  if (full.text_tokens == -1) full.text_tokens = 0;
  if (full.text_first == -1) full.text_first = 0;
  if (full.references == -1) full.references = 0;
  if (full.layers_total == 0) full.layers_total = full.layers;
  if (full.dtype.empty()) full.dtype = "bf16";
  check_spec(full);
  parse_dtype(full.dtype);
  return full;
}

std::vector<RecordInfo> list_synthetic(const SyntheticSpec& spec) {
  const SyntheticSpec full = complete(spec);
  const RecordInfo base = base_info(full);
  std::vector<RecordInfo> records;
  for (int g = 0; g < full.generations; ++g) {
    for (int step = 0; step < full.steps; ++step) {
      for (int layer = 0; layer < full.layers; ++layer) {
        RecordInfo info = base;
        info.number = static_cast<int>(records.size());
        info.generation =
            info.capture + "|seed " + std::to_string(full.seed) + "|" + std::to_string(g);
        info.site.step = step;
        info.site.layer = layer;
        info.layer_name = "blocks." + std::to_string(layer) + ".attn";
        // Noise falls from 1 towards 0 over the steps.
        info.sigma = 1.0 - static_cast<double>(step) / full.steps;
        info.timestep = 1000.0 * info.sigma;
        records.push_back(std::move(info));
      }
    }
  }
  return records;
}

}  // namespace raingauge
