// SPDX-License-Identifier: Apache-2.0
#include "data/capture_json.h"

#include <cmath>

#include "data/error.h"

namespace raingauge {
namespace {

using nlohmann::json;

json finite_or_null(double value) { return std::isfinite(value) ? json(value) : json(); }

template <typename T>
void put(json& object, const char* key, const std::optional<T>& value) {
  if (value) object[key] = *value;
}

template <typename T>
void take(const json& object, const char* key, std::optional<T>& value) {
  if (object.contains(key)) value = object.at(key).get<T>();
}

double take_real(const json& object, const char* key) {
  const bool there = object.contains(key) && !object.at(key).is_null();
  return there ? object.at(key).get<double>() : std::nan("");
}

constexpr std::pair<const char*, std::string CaptureInfo::*> kTexts[] = {
    {"generation", &CaptureInfo::generation},
    {"model_id", &CaptureInfo::model_id},
    {"pipeline", &CaptureInfo::pipeline},
    {"config", &CaptureInfo::config},
    {"prompt", &CaptureInfo::prompt},
    {"negative_prompt", &CaptureInfo::negative_prompt},
    {"scheduler", &CaptureInfo::scheduler},
    {"command", &CaptureInfo::command},
    {"libraries", &CaptureInfo::libraries},
    {"created", &CaptureInfo::created},
    {"seed", &CaptureInfo::seed}};

json segments_to_json(const Segments& segments) {
  json list = json::array();
  for (const Segment& s : segments) {
    list.push_back({{"role", name_of(s.role)},
                    {"start", s.start},
                    {"length", s.length},
                    {"frames", s.frames},
                    {"height", s.height},
                    {"width", s.width}});
  }
  return list;
}

Segments segments_from_json(const json& list) {
  Segments segments;
  for (const json& s : list) {
    segments.push_back({parse_role(s.at("role").get<std::string>()), s.at("start"), s.at("length"),
                        s.at("frames"), s.at("height"), s.at("width")});
  }
  return segments;
}

template <typename Body>
auto guarded(const std::string& where, Body body) {
  try {
    return body();
  } catch (const json::exception& error) {
    throw Error(where + ": " + error.what());
  }
}

}  // namespace

json capture_to_json(const CaptureInfo& info) {
  json object = json::object();
  for (const auto& [key, text] : kTexts) {
    if (!(info.*text).empty()) object[key] = info.*text;
  }
  put(object, "steps", info.steps);
  put(object, "frames", info.frames);
  put(object, "height", info.height);
  put(object, "width", info.width);
  put(object, "guidance", info.guidance);
  put(object, "fps", info.fps);
  if (!info.patch.empty()) object["patch"] = info.patch;
  object["timesteps"] = info.timesteps;
  object["sigmas"] = info.sigmas;
  return object;
}

CaptureInfo capture_from_json(const json& object, const std::string& where) {
  return guarded(where, [&] {
    CaptureInfo info;
    for (const auto& [key, text] : kTexts) {
      if (object.contains(key)) info.*text = object.at(key).get<std::string>();
    }
    take(object, "steps", info.steps);
    take(object, "frames", info.frames);
    take(object, "height", info.height);
    take(object, "width", info.width);
    take(object, "guidance", info.guidance);
    take(object, "fps", info.fps);
    if (object.contains("patch")) info.patch = object.at("patch").get<std::vector<int>>();
    info.timesteps = object.value("timesteps", std::vector<double>());
    info.sigmas = object.value("sigmas", std::vector<double>());
    return info;
  });
}

json record_to_json(const RecordInfo& info) {
  return {{"number", info.number},
          {"layer_index", info.site.layer},
          {"step", info.site.step},
          {"branch", info.site.branch},
          {"expert", info.site.expert},
          {"batch_item", info.site.batch_item},
          {"scale", info.scale},
          {"layer", info.layer_name},
          {"layers_total", info.layers_total},
          {"timestep", finite_or_null(info.timestep)},
          {"sigma", finite_or_null(info.sigma)},
          {"kind", info.kind},
          {"heads", info.heads},
          {"heads_total", info.heads_total},
          {"rope_applied", info.rope_applied},
          {"dtype", name_of(info.dtype)},
          {"tokens", info.tokens},
          {"head_dim", info.head_dim},
          {"segments", segments_to_json(info.segments)}};
}

RecordInfo record_from_json(const json& object, const std::string& where) {
  return guarded(where, [&] {
    RecordInfo info;
    info.number = object.at("number");
    info.site = {object.at("step"), object.at("layer_index"), object.at("expert"),
                 object.at("branch"), object.at("batch_item")};
    info.scale = object.at("scale");
    info.layer_name = object.at("layer");
    info.layers_total = object.at("layers_total");
    info.timestep = take_real(object, "timestep");
    info.sigma = take_real(object, "sigma");
    info.kind = object.at("kind");
    info.heads = object.at("heads").get<std::vector<int>>();
    info.heads_total = object.at("heads_total");
    info.rope_applied = object.at("rope_applied");
    info.dtype = parse_dtype(object.at("dtype").get<std::string>());
    info.tokens = object.at("tokens");
    info.head_dim = object.at("head_dim");
    info.segments = segments_from_json(object.at("segments"));
    return info;
  });
}

}  // namespace raingauge
