// SPDX-License-Identifier: Apache-2.0
#include "methods/registry.h"

#include <algorithm>
#include <cmath>

#include "methods/orders/registry.h"
#include "methods/reuse.h"
#include "methods/scores/score.h"
#include "methods/selectors/selector.h"

namespace raingauge {

#define RAINGAUGE_METHOD(name) MethodEntry name##_method();
#include "methods/methods.def"
#undef RAINGAUGE_METHOD

namespace {

using nlohmann::json;

// `sparsity: 0.8` is `density: 0.2` for every method that has a density.
json without_sparsity(const MethodSpec& spec, json given) {
  const auto found = given.find("sparsity");
  if (found == given.end()) return given;
  const bool has_density = std::any_of(spec.params.begin(), spec.params.end(),
                                       [](const ParamSpec& p) { return p.name == "density"; });
  if (!has_density) {
    throw ParamError("/sparsity", "method " + std::string(spec.name) + " has no density to set");
  }
  if (given.contains("density")) {
    throw ParamError("/sparsity", "give either density or sparsity, not both");
  }
  if (!found->is_number() || !(found->get<double>() >= 0.0) || !(found->get<double>() < 1.0)) {
    throw ParamError("/sparsity",
                     "key 'sparsity': got " + found->dump() + ", allowed: a number in [0, 1)");
  }
  // 12 digits: sparsity 0.8 and density 0.2 are the same arm, with the same cells and labels.
  given["density"] = std::round((1.0 - found->get<double>()) * 1e12) / 1e12;
  given.erase("sparsity");
  return given;
}

// `perm: paro`, as PAROAttention's users say it, is `order: paro`.
json without_perm(const MethodSpec& spec, json given) {
  const auto found = given.find("perm");
  if (found == given.end()) return given;
  const bool has_order = std::any_of(spec.params.begin(), spec.params.end(),
                                     [](const ParamSpec& p) { return p.name == "order"; });
  if (!has_order) {
    throw ParamError("/perm", "method " + std::string(spec.name) + " has no token order to set");
  }
  if (given.contains("order")) {
    throw ParamError("/perm", "perm is another name of order; give one of them");
  }
  const json order = *found;
  given.erase("perm");
  given["order"] = order;
  return given;
}

json with_preset(const MethodSpec& spec, const json& given) {
  const auto found = given.find("preset");
  if (spec.presets.empty() || found == given.end()) return given;
  std::vector<std::string> known;
  for (const auto& [name, values] : spec.presets) {
    known.push_back(name);
    if (*found != name) continue;
    json merged = values;
    merged.update(given);
    return merged;
  }
  throw ParamError(
      "/preset", "key 'preset': unknown preset " + found->dump() +
                     known_names_hint(found->is_string() ? found->get<std::string>() : "", known));
}

// Keys that every method has, except those that decide nothing.
std::vector<MethodEntry> with_shared_keys(std::vector<MethodEntry> entries) {
  for (auto& entry : entries) {
    if (entry.spec.name == "dense" || entry.spec.name == "plan_file") continue;
    for (auto& spec : reuse_params()) entry.spec.params.push_back(std::move(spec));
  }
  return entries;
}

}  // namespace

const std::vector<MethodEntry>& method_registry() {
  static const std::vector<MethodEntry> entries = with_shared_keys({
#define RAINGAUGE_METHOD(name) name##_method(),
#include "methods/methods.def"
#undef RAINGAUGE_METHOD
  });
  return entries;
}

const MethodEntry& find_method(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& entry : method_registry()) {
    if (entry.spec.name == name) return entry;
    known.emplace_back(entry.spec.name);
  }
  throw Error("unknown method '" + name + "'" + known_names_hint(name, known));
}

json complete_method_params(const std::string& method, const json& given) {
  const MethodSpec& spec = find_method(method).spec;
  if (!given.is_object()) throw ParamError("", "an arm is a mapping of keys to values");
  return complete_params(spec.params,
                         with_preset(spec, without_perm(spec, without_sparsity(spec, given))),
                         component_params);
}

std::unique_ptr<Method> make_method(const std::string& method, const json& params,
                                    const MethodOptions& options) {
  const json complete = complete_method_params(method, params);
  auto made = find_method(method).make(complete, options);
  const auto every = complete.find("reuse_every");
  if (every == complete.end()) return made;
  return with_reuse(std::move(made), every->get<int>());
}

const std::vector<ParamSpec>& component_params(const std::string& registry,
                                               const std::string& name) {
  if (registry == "orders") return find_order(name).spec.params;
  if (registry == "selectors") return find_selector(name).params;
  if (registry == "scores") return find_score(name).params;
  throw Error("no registry '" + registry + "'");
}

}  // namespace raingauge
