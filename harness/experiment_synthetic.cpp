// SPDX-License-Identifier: Apache-2.0
// `captures: [{synthetic: {…}}]`: from the YAML to the specification of planted records, and back.
#include "data/synthetic_models.h"
#include "harness/experiment_parts.h"
#include "harness/experiment_section.h"

namespace raingauge {
namespace {

using nlohmann::json;

void read_shape(const Section& section, SyntheticSpec& spec) {
  spec.model = section.text("model", "");
  if (!spec.model.empty()) {
    std::vector<std::string> models;
    for (const auto& shape : model_shapes()) models.emplace_back(shape.name);
    check_name(section.document(), section.path("model"), "model", spec.model, models);
  }
  const auto grid = section.sizes("grid", {spec.frames, spec.height, spec.width});
  spec.frames = grid[0];
  spec.height = grid[1];
  spec.width = grid[2];
  spec.text_tokens = section.integer("text_tokens", spec.text_tokens, 0);
  if (section.find("text_first") != nullptr)
    spec.text_first = section.boolean("text_first", false) ? 1 : 0;
  spec.references = section.integer("references", spec.references, 0);
  spec.heads = section.integer("heads", spec.heads, 1);
  spec.head_dim = section.integer("head_dim", spec.head_dim, 1);
  spec.dtype = section.choice("dtype", spec.dtype, {"f32", "f16", "bf16"});
}

void read_content(const Section& section, SyntheticSpec& spec) {
  spec.layers = section.integer("layers", spec.layers, 1);
  spec.steps = section.integer("steps", spec.steps, 1);
  spec.generations = section.integer("generations", spec.generations, 1);
  spec.seed = section.seed("seed", spec.seed);
  spec.noise = section.real("noise", spec.noise, 0.0, std::numeric_limits<double>::infinity());
  spec.text_mass = section.real("text_mass", spec.text_mass, 0.0, 1.0);
  if (section.find("kinds") == nullptr) return;
  spec.kinds.clear();
  const json* kinds = section.find("kinds");
  const json list = kinds->is_array() ? *kinds : json::array({*kinds});
  if (list.empty()) section.wrong("kinds", "a list of local, temporal, sink, textural, random");
  for (const auto& kind : list) {  // repeats are weights: [local, local, random]
    const std::string at = section.entry("kinds", spec.kinds.size());
    if (!kind.is_string())
      section.document().fail(at, "got " + kind.dump() + ", allowed: a kind of head");
    check_name(section.document(), at, "kind of head", kind.get<std::string>(),
               {"local", "temporal", "sink", "textural", "random"});
    spec.kinds.push_back(parse_head_kind(kind.get<std::string>()));
  }
}

json to_json(const SyntheticSpec& spec) {
  json kinds = json::array();
  for (const auto kind : spec.kinds) kinds.push_back(std::string(name_of(kind)));
  return {{"model", spec.model},
          {"grid", {spec.frames, spec.height, spec.width}},
          {"text_tokens", spec.text_tokens},
          {"text_first", spec.text_first == 1},
          {"references", spec.references},
          {"heads", spec.heads},
          {"head_dim", spec.head_dim},
          {"dtype", spec.dtype},
          {"layers", spec.layers},
          {"steps", spec.steps},
          {"generations", spec.generations},
          {"seed", spec.seed},
          {"noise", spec.noise},
          {"text_mass", spec.text_mass},
          {"kinds", kinds}};
}

}  // namespace

json read_synthetic(const YamlDocument& document, const std::string& path) {
  const Section section(
      document, path,
      {"model", "grid", "text_tokens", "text_first", "references", "heads", "head_dim", "dtype",
       "layers", "steps", "generations", "seed", "noise", "text_mass", "kinds"});
  SyntheticSpec spec;
  read_shape(section, spec);
  read_content(section, spec);
  try {
    return to_json(complete(spec));
  } catch (const Error& error) {
    document.fail(path, error.what());
  }
}

SyntheticSpec synthetic_spec(const json& options) {
  SyntheticSpec spec;
  spec.model = options.at("model").get<std::string>();
  spec.frames = options.at("grid").at(0).get<int>();
  spec.height = options.at("grid").at(1).get<int>();
  spec.width = options.at("grid").at(2).get<int>();
  spec.text_tokens = options.at("text_tokens").get<int>();
  spec.text_first = options.at("text_first").get<bool>() ? 1 : 0;
  spec.references = options.at("references").get<int>();
  spec.heads = options.at("heads").get<int>();
  spec.head_dim = options.at("head_dim").get<int>();
  spec.dtype = options.at("dtype").get<std::string>();
  spec.layers = options.at("layers").get<int>();
  spec.steps = options.at("steps").get<int>();
  spec.generations = options.at("generations").get<int>();
  spec.seed = options.at("seed").get<std::uint64_t>();
  spec.noise = options.at("noise").get<double>();
  spec.text_mass = options.at("text_mass").get<double>();
  spec.kinds.clear();
  for (const auto& kind : options.at("kinds"))
    spec.kinds.push_back(parse_head_kind(kind.get<std::string>()));
  return complete(spec);
}

}  // namespace raingauge
