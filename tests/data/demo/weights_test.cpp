// SPDX-License-Identifier: Apache-2.0
#include "data/demo/weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "data/error.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

TEST(Weights, RoundTripInTheShippedForm) {
  const TemporaryFolder folder;
  const Weights weights = toy_weights();
  write_weights(folder / "w", weights);
  const Weights read = read_weights(folder / "w");
  EXPECT_EQ(read.config, weights.config);
  EXPECT_EQ(read.training.at("steps"), "0");
  EXPECT_TRUE(read.codec_deviation.equal(weights.codec_deviation));
  ASSERT_EQ(read.parameters.size(), weights.parameters.size());
  for (const auto& [name, value] : weights.parameters) {
    EXPECT_TRUE(read.parameters.at(name).equal(value.to(at::kBFloat16).to(at::kFloat))) << name;
  }
}

// Writes toy weights after `change`.
template <typename Change>
std::filesystem::path changed(const TemporaryFolder& folder, const Change& change) {
  write_weights(folder / "good", toy_weights());
  TensorFile file = read_tensors(folder / "good");
  change(file);
  write_tensors(folder / "changed", file);
  return folder / "changed";
}

TEST(Weights, OtherTensorsThanTheModelsAreErrors) {
  const TemporaryFolder folder;
  EXPECT_NO_THROW(read_weights(changed(folder, [](TensorFile&) {})));
  EXPECT_THROW(
      read_weights(changed(folder, [](TensorFile& f) { f.tensors.erase("blocks.1.qkv.bias"); })),
      Error);
  EXPECT_THROW(read_weights(changed(folder, [](TensorFile& f) { f.tensors.erase("codec.mean"); })),
               Error);
  EXPECT_THROW(
      read_weights(changed(folder, [](TensorFile& f) { f.tensors["extra"] = at::ones({1}); })),
      Error);
  EXPECT_THROW(read_weights(changed(folder,
                                    [](TensorFile& f) {
                                      f.tensors["pool.weight"] = at::ones({64, 256});
                                    })),
               Error);
}

TEST(Weights, NumbersThatNoModelCanUseAreErrors) {
  const TemporaryFolder folder;
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto& [name, value] : {std::pair{"pool.weight", std::nanf("")},
                                    {"registers", infinity},
                                    {"codec.mean", -infinity},
                                    {"codec.deviation", std::nanf("")},
                                    {"codec.deviation", 0.0f},
                                    {"codec.deviation", -1.0f}}) {
    const auto path = changed(folder, [&](TensorFile& f) {
      at::Tensor& tensor = f.tensors.at(name);
      tensor.view({-1})[3] = value;
    });
    EXPECT_THROW(read_weights(path), Error) << name << " with " << value;
  }
}

TEST(Weights, HostileMetadataIsAnError) {
  const TemporaryFolder folder;
  for (const char* key : {"width", "layers"}) {
    for (const char* value :
         {"", "x", "-128", "0", "1e2", "128 ", "128x", "99999999999999999999", "1000000", "100"}) {
      const auto path = changed(folder, [&](TensorFile& f) { f.metadata[key] = value; });
      EXPECT_THROW(read_weights(path), Error) << key << " = '" << value << "'";
    }
    const auto without = changed(folder, [&](TensorFile& f) { f.metadata.erase(key); });
    EXPECT_THROW(read_weights(without), Error) << key;
  }
  EXPECT_THROW(read_weights(changed(folder, [](TensorFile& f) { f.metadata["model"] = "other"; })),
               Error);
}

}  // namespace
}  // namespace raingauge::demo
