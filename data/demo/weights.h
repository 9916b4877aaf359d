// SPDX-License-Identifier: Apache-2.0
// What a trained demo is: a configuration, its parameters, the codec's statistics, and the facts of
// its training.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "data/demo/codec.h"
#include "data/demo/model.h"
#include "data/demo/safetensors.h"

namespace raingauge::demo {

struct Weights {
  ModelConfig config;
  Parameters parameters;  // fp32, CPU
  at::Tensor codec_mean, codec_deviation;
  std::map<std::string, std::string> training;
};

// Shipped form: parameters in bf16, the codec's statistics in fp32.
void write_weights(const std::filesystem::path& path, const Weights& weights);

// Throws Error where a tensor is missing, superfluous or of another shape than the configuration
// in the file's metadata asks for, or holds numbers that no model can compute with.
Weights read_weights(const std::filesystem::path& path);

// Shared with checkpoints, which hold several sets of parameters, each under a prefix.
std::map<std::string, std::string> config_metadata(const ModelConfig& config);
std::uint64_t metadata_number(const TensorFile& file, const std::string& key, std::uint64_t least,
                              std::uint64_t most, const std::filesystem::path& path);
ModelConfig config_from(const TensorFile& file, const std::filesystem::path& path);
Parameters take_parameters(TensorFile& file, const ModelConfig& config, const std::string& prefix,
                           const std::filesystem::path& path);
at::Tensor take_tensor(TensorFile& file, const std::string& name, at::IntArrayRef shape,
                       const std::filesystem::path& path);

}  // namespace raingauge::demo
