// SPDX-License-Identifier: Apache-2.0
// `raingauge list` and `raingauge explain`: printed from the same declarations that YAML is checked
// against.
#include <cstdio>
#include <functional>
#include <optional>

#include "harness/commands/commands.h"
#include "harness/table.h"
#include "methods/controls.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "methods/orders/registry.h"
#include "methods/registry.h"
#include "methods/scores/score.h"
#include "methods/selectors/selector.h"
#include "metrics/frames/registry.h"
#include "metrics/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

// One named thing as `list` and `explain` show it.
struct Entry {
  std::string kind, name, help, section, note;
  std::vector<ParamSpec> params;
  std::vector<std::pair<std::string, json>> presets;
  std::string details = {};
};

std::string text(std::string_view view) { return std::string(view); }

void add_methods(std::vector<Entry>& out) {
  for (const auto& e : method_registry()) {
    out.push_back({"methods", text(e.spec.name), text(e.spec.help), text(e.spec.section), "",
                   e.spec.params, e.spec.presets, text(e.spec.details)});
  }
}

void add_parts(std::vector<Entry>& out) {
  for (const auto& e : order_registry()) {
    out.push_back({"orders",
                   text(e.spec.name),
                   text(e.spec.help),
                   text(e.spec.section),
                   e.spec.mixes_frames ? "mixes frames: a sink needs frame0: segregated" : "",
                   e.spec.params,
                   {}});
  }
  for (const auto& e : selector_registry()) {
    out.push_back({"selectors", text(e.name), text(e.help), text(e.section), "", e.params, {}});
  }
  for (const auto& e : score_registry()) {
    out.push_back({"scores", text(e.name), text(e.help), text(e.section), "", e.params, {}});
  }
}

// What a frame metric needs of clips and of the build, and how to read it.
std::string frame_note(const FrameMetricEntry& entry, const std::string& better) {
  std::string note = entry.of_pairs ? "pairs of frames" : "decoded frames";
  if (!better.empty()) note += "; " + better;
  if (entry.spec.unit != "1") note += "; " + text(entry.spec.unit);
  if (entry.least_side > 1) {
    note += "; at least " + std::to_string(entry.least_side) + " pixels each way";
  }
  if (!entry.not_built.empty()) note += "; " + text(entry.not_built);
  return note;
}

void add_metrics(std::vector<Entry>& out) {
  const auto better = [](Better b) {
    return b == Better::higher ? "higher is better" : b == Better::lower ? "lower is better" : "";
  };
  for (const auto& e : metric_registry()) {
    out.push_back({"metrics",
                   text(e.spec.name),
                   text(e.spec.help),
                   text(e.spec.formula),
                   better(e.spec.better),
                   {},
                   {}});
  }
  for (const auto& e : frame_metric_registry()) {
    out.push_back({"metrics",
                   text(e.spec.name),
                   text(e.spec.help),
                   text(e.spec.formula),
                   frame_note(e, better(e.spec.better)),
                   {},
                   {}});
  }
}

void add_machines(std::vector<Entry>& out) {
  for (const auto& e : kernel_registry()) {
    std::string where = e.spec.cpu ? "cpu" : "";
    if (e.spec.cuda) where += where.empty() ? "cuda" : ", cuda";
    if (e.spec.dense_only) where += "; dense plans only";
    if (!e.spec.not_built.empty()) where += "; " + text(e.spec.not_built);
    out.push_back({"kernels", text(e.spec.name), text(e.spec.help), "", where, {}, {}});
  }
  for (const auto& device : list_devices()) {
    out.push_back({"devices", to_string(device.device), device.description, "", "", {}, {}});
  }
}

std::vector<Entry> all_entries() {
  std::vector<Entry> entries;
  add_methods(entries);
  add_parts(entries);
  add_metrics(entries);
  add_machines(entries);
  return entries;
}

json to_json(const Entry& entry) {
  json params = json::array();
  for (const auto& p : entry.params) {
    params.push_back({{"name", p.name},
                      {"default", p.default_value},
                      {"allowed", describe_type(p)},
                      {"help", p.help},
                      {"required", p.required}});
  }
  json presets = json::object();
  for (const auto& [name, values] : entry.presets) presets[name] = values;
  return {{"kind", entry.kind},       {"name", entry.name}, {"help", entry.help},
          {"section", entry.section}, {"note", entry.note}, {"details", entry.details},
          {"params", params},         {"presets", presets}};
}

void print_entry(const Entry& entry) {
  std::printf("%s (%s)\n  %s\n", entry.name.c_str(), entry.kind.c_str(), entry.help.c_str());
  if (!entry.section.empty()) std::printf("  %s\n", entry.section.c_str());
  if (!entry.note.empty()) std::printf("  %s\n", entry.note.c_str());
  if (!entry.details.empty()) std::printf("\n%s\n", entry.details.c_str());
  if (!entry.params.empty()) std::printf("\nkeys:\n");
  for (const auto& p : entry.params) {
    const std::string value = p.required                  ? "required"
                              : p.default_value.is_null() ? "no default"
                                                          : "default " + p.default_value.dump();
    std::printf("  %s: %s; %s\n      %s\n", p.name.c_str(), describe_type(p).c_str(), value.c_str(),
                p.help.c_str());
  }
  if (!entry.presets.empty()) std::printf("\npresets:\n");
  for (const auto& [name, values] : entry.presets) {
    std::printf("  %s: %s\n", name.c_str(), values.dump().c_str());
  }
}

}  // namespace

int list_command(const ListCommand& options) {
  static const std::vector<std::string> kinds = {"methods", "orders",  "selectors", "scores",
                                                 "metrics", "kernels", "devices"};
  if (std::find(kinds.begin(), kinds.end(), options.what) == kinds.end()) {
    throw Error("nothing to list under '" + options.what + "'" +
                known_names_hint(options.what, kinds));
  }
  json rows = json::array();
  Table table({{"name"}, {"what"}, {"note"}});
  for (const auto& entry : all_entries()) {
    if (entry.kind != options.what) continue;
    rows.push_back(to_json(entry));
    table.add_row({entry.name, entry.help, entry.note});
  }
  std::printf("%s\n", options.json ? rows.dump(1).c_str() : table.text().c_str());
  return 0;
}

int explain_command(const ExplainCommand& options) {
  std::vector<std::string> known;
  json found = json::array();
  for (const auto& entry : all_entries()) {
    known.push_back(entry.name);
    if (entry.name != options.name) continue;
    if (!options.json) {
      if (!found.empty()) std::printf("\n");
      print_entry(entry);
    }
    found.push_back(to_json(entry));
  }
  if (found.empty()) {
    throw Error("nothing is called '" + options.name + "'" + known_names_hint(options.name, known));
  }
  if (options.json) std::printf("%s\n", found.dump(1).c_str());
  return 0;
}

}  // namespace raingauge
