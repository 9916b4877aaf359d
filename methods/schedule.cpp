// SPDX-License-Identifier: Apache-2.0
// A setting for every layer, step and head, read from the file that `raingauge schedule` writes: the
// cheapest one whose error stayed within a bound on the records it was chosen on.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>

#include "methods/method.h"
#include "methods/plan_heads.h"
#include "methods/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr int kDense = -1;

struct Place {
  int layer, step, head;
  auto operator<=>(const Place&) const = default;
};

// Where a setting attends densely.
struct DenseSites {
  std::vector<int> steps, layers;
};

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw Error(path + ": " + what + "; write it with `raingauge schedule RUN --out FILE`");
}

json read_json(const std::string& path) {
  std::ifstream file(path);
  if (!file) refuse(path, "cannot be read");
  const json root = json::parse(file, nullptr, false);
  if (!root.is_object() || root.value("format", json()) != "raingauge-schedule")
    refuse(path, "is no schedule (JSON with format raingauge-schedule)");
  if (root.value("version", json()) != 1) refuse(path, "has another version than 1");
  if (!root.contains("settings") || !root["settings"].is_array() || !root.contains("sites") ||
      !root["sites"].is_array())
    refuse(path, "lacks `settings` or `sites`");
  return root;
}

class Schedule : public Method {
 public:
  Schedule(std::string path, bool nearest, const MethodOptions& options)
      : path_(std::move(path)), nearest_(nearest) {
    const json root = read_json(path_);
    for (const auto& setting : root["settings"]) add_setting(setting, options);
    for (const auto& site : root["sites"]) add_site(site);
  }

  // Every setting in use plans the whole record, so that a head's plan is the one that was measured;
  // then each head takes its own.
  Plan plan(const RecordView& record, State& /*state*/) const override {
    std::map<int, Plan> plans;
    std::vector<Plan> parts;
    for (std::size_t i = 0; i < record.info->heads.size(); ++i) {
      const int setting = setting_of(record.info->site, record.info->heads[i]);
      auto found = plans.find(setting);
      if (found == plans.end()) found = plans.emplace(setting, plan_of(setting, record)).first;
      parts.push_back(select_heads(found->second, {static_cast<std::int64_t>(i)}));
    }
    return join_plans(parts);
  }

 private:
  void add_setting(const json& setting, const MethodOptions& options) {
    const auto params = setting.value("params", json());
    if (!params.is_object() || !params.contains("method") || !params["method"].is_string())
      refuse(path_, "setting " + std::to_string(settings_.size()) + " has no params with a method");
    MethodOptions own = options;
    own.match = setting.value("match", "density") == "density" ? DensityMatch::measured
                                                               : DensityMatch::nominal;
    json rest = params;
    rest.erase("method");
    const auto name = params["method"].get<std::string>();
    dense_.push_back({take_numbers(rest, "dense_steps"), take_numbers(rest, "dense_layers")});
    if (name == "schedule") refuse(path_, "a schedule cannot name a schedule");
    settings_.push_back(make_method(name, rest, own));
    if (settings_.back()->stateful())
      refuse(path_, "method " + name + " keeps state along steps, which a schedule cannot");
  }

  // Keys of an arm, not of its method.
  std::vector<int> take_numbers(json& params, const char* key) const {
    const json numbers = params.value(key, json::array());
    params.erase(key);
    const bool good =
        numbers.is_array() &&
        std::all_of(numbers.begin(), numbers.end(), [](auto& n) { return n.is_number_integer(); });
    if (!good) refuse(path_, std::string("`") + key + "` is no list of integers");
    return numbers.get<std::vector<int>>();
  }

  void add_site(const json& site) {
    for (const char* key : {"layer", "step", "head", "setting"}) {
      if (!site.is_object() || !site.contains(key) || !site[key].is_number_integer())
        refuse(path_, "site " + std::to_string(sites_.size()) + " lacks the integer `" + key + "`");
    }
    const int setting = site["setting"].get<int>();
    if (setting < kDense || setting >= static_cast<int>(settings_.size()))
      refuse(path_, "setting " + std::to_string(setting) + " does not exist");
    sites_[{site["layer"].get<int>(), site["step"].get<int>(), site["head"].get<int>()}] = setting;
  }

  // The site's own setting; else dense, or that of the nearest step of the layer and head (ties: the
  // earlier one).
  int setting_of(const Site& site, int head) const {
    const auto exact = sites_.find({site.layer, site.step, head});
    if (exact != sites_.end()) return exact->second;
    if (!nearest_) return kDense;
    int setting = kDense;
    int distance = std::numeric_limits<int>::max();
    for (const auto& [place, chosen] : sites_) {
      const int away = std::abs(place.step - site.step);
      if (place.layer != site.layer || place.head != head || away >= distance) continue;
      distance = away;
      setting = chosen;
    }
    return setting;
  }

  Plan plan_of(int setting, const RecordView& record) const {
    if (setting == kDense || dense_at(setting, record.info->site)) {
      return dense_plan(record.heads(), record.tokens(), 128);
    }
    State none;
    return settings_[static_cast<std::size_t>(setting)]->plan(record, none);
  }

  bool dense_at(int setting, const Site& site) const {
    const auto contains = [](const std::vector<int>& values, int value) {
      return std::find(values.begin(), values.end(), value) != values.end();
    };
    const DenseSites& dense = dense_[static_cast<std::size_t>(setting)];
    return contains(dense.steps, site.step) || contains(dense.layers, site.layer);
  }

  std::string path_;
  bool nearest_;
  std::vector<std::unique_ptr<Method>> settings_;
  std::vector<DenseSites> dense_;  // of every setting
  std::map<Place, int> sites_;
};

}  // namespace

MethodEntry schedule_method() {
  return {
      {"schedule",
       "a setting for every layer, step and head, as `raingauge schedule` chose them",
       "",
       {{.name = "path",
         .type = ParamType::path,
         .default_value = nullptr,
         .help = "schedule file, relative to the YAML file (inline arms: the current folder)",
         .required = true},
        {.name = "elsewhere",
         .type = ParamType::choice,
         .default_value = "dense",
         .help =
             "at sites that the schedule lacks: dense, or the nearest step of that layer and head",
         .choices = {"dense", "nearest"}}}},
      [](const nlohmann::json& params, const MethodOptions& options) -> std::unique_ptr<Method> {
        const std::filesystem::path path = params.at("path").get<std::string>();
        const auto full =
            path.is_absolute() ? path : std::filesystem::path(options.base_folder) / path;
        return std::make_unique<Schedule>(full.string(), params.at("elsewhere") == "nearest",
                                          options);
      }};
}

}  // namespace raingauge
