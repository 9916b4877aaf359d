// SPDX-License-Identifier: Apache-2.0
// The model's parameters: names, shapes and starting values.
#include <ATen/ATen.h>

#include <cmath>

#include "data/demo/model.h"
#include "data/demo/random.h"
#include "data/error.h"

namespace raingauge::demo {
namespace {

constexpr int64_t kModulationRows = 6;

void add_linear(std::vector<ParameterSpec>& specs, const std::string& name, int64_t in, int64_t out,
                Init init = Init::fan_in) {
  specs.push_back({name + ".weight", {out, in}, init});
  specs.push_back({name + ".bias", {out}, Init::zero});
}

double draw(const ParameterSpec& spec, std::size_t index, RandomStream& random) {
  const auto width = static_cast<double>(spec.shape.back());
  switch (spec.init) {
    case Init::zero:
      return 0.0;
    case Init::gain:
      return 1.0;
    case Init::small:
      return 0.02 * random.gaussian();
    case Init::fan_in:
      return random.gaussian() / std::sqrt(3.0 * width);
    case Init::modulation_table: {
      // Rows are shift, scale, gate, shift, scale, gate: a scale starts near 1.
      const std::size_t row = index / static_cast<std::size_t>(width);
      return (row % 3 == 1 ? 1.0 : 0.0) + random.gaussian() / std::sqrt(width);
    }
  }
  throw Error("model: unknown initialisation");
}

}  // namespace

std::vector<ParameterSpec> parameter_specs(const ModelConfig& config) {
  if (config.width < kHeadDim || config.width % kHeadDim != 0 || config.layers < 1) {
    throw Error("model: the width must be a multiple of 64 and there must be a layer; got width " +
                std::to_string(config.width) + ", layers " + std::to_string(config.layers));
  }
  const int64_t width = config.width;
  std::vector<ParameterSpec> specs;
  add_linear(specs, "input", kLatentChannels + 1, width);  // + the mask of the clean frame
  add_linear(specs, "position", kPositionFeatures, width);
  add_linear(specs, "text.up", kPromptFeatures, width);
  add_linear(specs, "text.down", width, width);
  add_linear(specs, "pool", width, width);
  add_linear(specs, "time.up", kTimeFeatures, width);
  add_linear(specs, "time.down", width, width);
  add_linear(specs, "modulation", width, kModulationRows * width, Init::zero);
  specs.push_back({"registers", {kRegisters, width}, Init::small});
  for (int layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "blocks." + std::to_string(layer) + ".";
    add_linear(specs, prefix + "qkv", width, 3 * width);
    add_linear(specs, prefix + "out", width, width);
    add_linear(specs, prefix + "up", width, 4 * width);
    add_linear(specs, prefix + "down", 4 * width, width);
    specs.push_back({prefix + "table", {kModulationRows, width}, Init::modulation_table});
    specs.push_back({prefix + "gain", {config.heads(), kHeadDim / 2}, Init::gain});
  }
  specs.push_back({"output.table", {2, width}, Init::modulation_table});
  add_linear(specs, "output", width, kLatentChannels, Init::zero);
  return specs;
}

Parameters draw_parameters(const ModelConfig& config, std::uint64_t seed) {
  Parameters parameters;
  std::uint64_t stream = 0;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    at::Tensor values = at::empty(spec.shape, at::kFloat);
    RandomStream random(seed, stream++);
    auto* data = values.mutable_data_ptr<float>();
    for (std::size_t i = 0; i < static_cast<std::size_t>(values.numel()); ++i) {
      data[i] = static_cast<float>(draw(spec, i, random));
    }
    parameters.emplace(spec.name, values);
  }
  return parameters;
}

bool acts_on_tokens(const std::string& name) {
  const auto ends_with = [&](const char* ending) { return name.ends_with(ending); };
  if (ends_with("table") || ends_with("gain")) return false;
  return name.starts_with("blocks.") || name.starts_with("input.") || name.starts_with("output.");
}

Parameters to_compute(const Parameters& parameters, at::Device device, at::ScalarType compute) {
  Parameters result;
  for (const auto& [name, value] : parameters) {
    result.emplace(name, value.to(device, acts_on_tokens(name) ? compute : at::kFloat));
  }
  return result;
}

}  // namespace raingauge::demo
