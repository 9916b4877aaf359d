// SPDX-License-Identifier: Apache-2.0
#include "harness/bench/inputs.h"

#include <cstdio>
#include <optional>

#include "data/capture.h"
#include "data/error.h"
#include "data/synthetic.h"
#include "harness/demo_capture.h"

namespace raingauge::bench {
namespace {

std::string shape_label(const std::string& name, std::int64_t tokens, std::int64_t head_dim) {
  return name + "/tokens:" + std::to_string(tokens) + "/dim:" + std::to_string(head_dim);
}

class GeneratedInput final : public Input {
 public:
  GeneratedInput(const std::string& name, std::int64_t tokens, std::int64_t head_dim,
                 const Options& options)
      : label_(shape_label(name, tokens, head_dim)) {
    constexpr std::int64_t side = 16;  // of a frame, in tokens
    if (tokens % (side * side) != 0) {
      throw Error("--tokens " + std::to_string(tokens) + ": allowed are multiples of 256");
    }
    spec_.frames = static_cast<int>(tokens / (side * side));
    spec_.height = spec_.width = static_cast<int>(side);
    spec_.text_tokens = 0;
    spec_.heads = options.heads;
    spec_.head_dim = static_cast<int>(head_dim);
    spec_.layers_total = 1;
    spec_.dtype = options.dtype;
    spec_.seed = options.seed;
    if (name == "random") spec_.kinds = {HeadKind::random};
  }
  const std::string& label() const override { return label_; }
  RecordView view() override {
    if (!record_) record_ = make_synthetic_record(spec_, 0, 0, 0);
    return record_->view();
  }

 private:
  std::string label_;
  SyntheticSpec spec_;
  std::unique_ptr<Record> record_;
};

class CapturedInput final : public Input {
 public:
  CapturedInput(const std::string& name, const std::string& path, std::optional<int> number,
                int heads) {
    const Capture capture = Capture::open(path);
    if (capture.records().empty()) throw Error(path + ": holds no record");
    const RecordInfo& info =
        number ? capture.record(*number) : capture.records()[capture.records().size() / 2];
    std::vector<int> wanted = info.heads;
    if (static_cast<int>(wanted.size()) > heads) wanted.resize(static_cast<std::size_t>(heads));
    record_ = capture.load(info, wanted);
    label_ = shape_label(name + ":" + std::to_string(info.number), info.tokens, info.head_dim);
  }
  const std::string& label() const override { return label_; }
  RecordView view() override { return record_->view(); }

 private:
  std::string label_;
  std::unique_ptr<Record> record_;
};

// The middle of one generation of the demo model, the record of experiments/latency.yaml.
std::string drizzle_capture() {
  const nlohmann::json clip = {
      {"clips", 1}, {"mode", "image_to_video"}, {"grid", {21, 16, 24}}, {"steps", 8}, {"seed", 1}};
  Selection select;
  select.layers = {4};
  select.steps = {4};
  select.branches = {"cond"};
  const auto say = [](const std::string& message) {
    std::fprintf(stderr, "%s\n", message.c_str());
  };
  return demo_captures(clip, select, {}, 0, say).front().string();
}

std::shared_ptr<Input> captured(const std::string& text, const Options& options) {
  if (text == "drizzle") {
    return std::make_shared<CapturedInput>("drizzle", drizzle_capture(), std::nullopt,
                                           options.heads);
  }
  const std::size_t colon = text.rfind(':');
  const std::string tail = colon == std::string::npos ? "" : text.substr(colon + 1);
  const bool numbered =
      !tail.empty() && tail.size() < 7 && tail.find_first_not_of("0123456789") == std::string::npos;
  const std::string path = numbered ? text.substr(0, colon) : text;
  const std::string name = path.substr(path.find_last_of('/') + 1);
  return std::make_shared<CapturedInput>(
      name, path, numbered ? std::optional<int>(std::stoi(tail)) : std::nullopt, options.heads);
}

}  // namespace

std::vector<std::shared_ptr<Input>> make_inputs(const Options& options) {
  std::vector<std::shared_ptr<Input>> inputs;
  for (const std::string& name : options.inputs) {
    if (name != "random" && name != "synthetic") {
      inputs.push_back(captured(name, options));
      continue;
    }
    for (const std::int64_t tokens : options.tokens) {
      for (const std::int64_t head_dim : options.head_dims) {
        inputs.push_back(std::make_shared<GeneratedInput>(name, tokens, head_dim, options));
      }
    }
  }
  return inputs;
}

}  // namespace raingauge::bench
