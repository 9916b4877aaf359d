// SPDX-License-Identifier: Apache-2.0
#include "data/demo/weights.h"

#include <ATen/ATen.h>

#include <charconv>

#include "data/error.h"

namespace raingauge::demo {
namespace {

constexpr const char* kModelName = "raingauge-drizzle-1";

int size_from(const TensorFile& file, const std::string& key, std::uint64_t most,
              const std::filesystem::path& path) {
  return static_cast<int>(metadata_number(file, key, 1, most, path));
}

void check_values(const Weights& weights, const std::filesystem::path& path) {
  const auto refuse = [&](const std::string& name, const char* why) {
    throw Error(path.string() + ": tensor '" + name + "' " + why);
  };
  for (const auto& [name, value] : weights.parameters) {
    if (!value.isfinite().all().item<bool>()) refuse(name, "holds NaN or Inf");
  }
  if (!weights.codec_mean.isfinite().all().item<bool>()) refuse("codec.mean", "holds NaN or Inf");
  const at::Tensor& deviation = weights.codec_deviation;
  if (!deviation.isfinite().logical_and(deviation > 0.0).all().item<bool>()) {
    refuse("codec.deviation", "must hold finite numbers above 0");
  }
}

}  // namespace

std::uint64_t metadata_number(const TensorFile& file, const std::string& key, std::uint64_t least,
                              std::uint64_t most, const std::filesystem::path& path) {
  const auto found = file.metadata.find(key);
  const std::string text = found == file.metadata.end() ? "" : found->second;
  std::uint64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
  if (whole && value >= least && value <= most) return value;
  throw Error(path.string() + ": metadata '" + key + "' is '" + text + "', it must be a number " +
              "from " + std::to_string(least) + " to " + std::to_string(most));
}

std::map<std::string, std::string> config_metadata(const ModelConfig& config) {
  return {{"model", kModelName},
          {"width", std::to_string(config.width)},
          {"layers", std::to_string(config.layers)}};
}

ModelConfig config_from(const TensorFile& file, const std::filesystem::path& path) {
  const auto model = file.metadata.find("model");
  if (model == file.metadata.end() || model->second != kModelName) {
    throw Error(path.string() + ": no weights of " + kModelName + " (metadata 'model')");
  }
  return {.width = size_from(file, "width", 4096, path),
          .layers = size_from(file, "layers", 256, path)};
}

at::Tensor take_tensor(TensorFile& file, const std::string& name, at::IntArrayRef shape,
                       const std::filesystem::path& path) {
  auto node = file.tensors.extract(name);
  if (node.empty()) throw Error(path.string() + ": tensor '" + name + "' is missing");
  if (node.mapped().sizes() != shape) {
    throw Error(path.string() + ": tensor '" + name + "' has another shape than the model's");
  }
  return node.mapped().to(at::kFloat);
}

Parameters take_parameters(TensorFile& file, const ModelConfig& config, const std::string& prefix,
                           const std::filesystem::path& path) {
  Parameters parameters;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    parameters.emplace(spec.name, take_tensor(file, prefix + spec.name, spec.shape, path));
  }
  return parameters;
}

void write_weights(const std::filesystem::path& path, const Weights& weights) {
  TensorFile file;
  file.metadata = weights.training;
  file.metadata.merge(config_metadata(weights.config));
  for (const auto& [name, value] : weights.parameters) {
    file.tensors.emplace(name, value.to(at::kCPU, at::kBFloat16));
  }
  file.tensors.emplace("codec.mean", weights.codec_mean.cpu());
  file.tensors.emplace("codec.deviation", weights.codec_deviation.cpu());
  write_tensors(path, file);
}

Weights read_weights(const std::filesystem::path& path) {
  TensorFile file = read_tensors(path);
  Weights weights;
  weights.config = config_from(file, path);
  weights.parameters = take_parameters(file, weights.config, "", path);
  weights.codec_mean = take_tensor(file, "codec.mean", {kLatentChannels}, path);
  weights.codec_deviation = take_tensor(file, "codec.deviation", {kLatentChannels}, path);
  if (!file.tensors.empty()) {
    throw Error(path.string() + ": tensor '" + file.tensors.begin()->first + "' is unknown");
  }
  check_values(weights, path);
  weights.training = file.metadata;
  return weights;
}

}  // namespace raingauge::demo
