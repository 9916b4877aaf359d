// SPDX-License-Identifier: Apache-2.0
// Our side of the exchange that h5py_test.py drives: writes files for h5py to read, and prints as
// JSON what our reader makes of files that h5py wrote.
//   h5_exchange write-capture PATH f32|f16|bf16 contiguous|gzip
//   h5_exchange read-capture PATH [allow_nonfinite]
//   h5_exchange write-plan PATH | read-plan PATH
// An Error is printed as {"error": message} with exit code 1.
#include <cmath>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/capture.h"
#include "data/capture_writer.h"
#include "data/error.h"
#include "data/plan_file.h"
#include "data/sha256.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr std::int64_t kHeads = 2, kTokens = 512, kDim = 64;  // 65,536 elements

// Element i of tensor `which`: for 16-bit types q runs through all bit patterns in order, k through
// them backwards, v multiplied by an odd constant. NaN and Inf lose their exponent.
std::vector<std::byte> patterns(DType dtype, int which) {
  const std::uint32_t exponent = dtype == DType::f32   ? 0x7f800000U
                                 : dtype == DType::f16 ? 0x7c00U
                                                       : 0x7f80U;
  std::vector<std::byte> bytes(static_cast<std::size_t>(kHeads * kTokens * kDim) * size_of(dtype));
  for (std::uint32_t i = 0; i < 65536; ++i) {
    std::uint32_t bits = which == 0 ? i : which == 1 ? 65535 - i : i * 40503U;
    bits = dtype == DType::f32 ? bits * 2654435761U : bits & 0xffffU;
    if ((bits & exponent) == exponent) bits &= ~exponent;
    std::memcpy(bytes.data() + i * size_of(dtype), &bits, size_of(dtype));
  }
  return bytes;
}

void write_capture(const std::string& path, const std::string& dtype, const std::string& storage) {
  RecordInfo info;
  info.number = 42;
  info.site = {3, 7, "transformer_2", "uncond", 1};
  info.scale = 0.125;
  info.layer_name = "blocks.7.attn1";
  info.layers_total = 30;
  info.timestep = 937.5;
  info.sigma = 0.9375;
  info.kind = "joint";
  info.heads = {11, 4};
  info.heads_total = 12;
  info.dtype = parse_dtype(dtype);
  info.tokens = kTokens;
  info.head_dim = kDim;
  info.segments = {
      {Role::text, 0, 8, 0, 0, 0}, {Role::video, 8, 480, 4, 10, 12}, {Role::pad, 488, 24, 0, 0, 0}};
  CaptureInfo capture;
  capture.model_id = "modèle/☂";
  capture.prompt = "rain";
  capture.seed = "18446744073709551615";
  capture.steps = 20;
  capture.guidance = 5.5;
  capture.patch = {1, 2, 2};
  CaptureWriter writer(path, capture, {.overwrite = true, .gzip = storage == "gzip"});
  const std::vector<double> timesteps{1000.0, 937.5};
  const std::vector<double> sigmas{1.0, 0.9375, 0.0};
  writer.set_schedule(timesteps, sigmas);
  const std::vector<std::byte> bits[3] = {patterns(info.dtype, 0), patterns(info.dtype, 1),
                                          patterns(info.dtype, 2)};
  std::vector<float> output(static_cast<std::size_t>(kHeads * kTokens * kDim));
  for (std::size_t i = 0; i < output.size(); ++i) output[i] = static_cast<float>(i) / 7.0F;
  const TensorView o = contiguous_view(output.data(), DType::f32, kHeads, kTokens, kDim);
  std::vector<std::uint8_t> valid(static_cast<std::size_t>(kTokens), 1);
  std::fill(valid.end() - 24, valid.end(), std::uint8_t{0});
  const auto view = [&](std::size_t which) {
    return contiguous_view(bits[which].data(), info.dtype, kHeads, kTokens, kDim);
  };
  writer.write_record(info, view(0), view(1), view(2), &o, valid);
  Frames frames{2, 3, 4, {}};
  for (int i = 0; i < 2 * 3 * 4 * 3; ++i) frames.rgb.push_back(static_cast<std::uint8_t>(3 * i));
  writer.write_frames("dense", frames);
  writer.finish();
}

// Hash of the bits as they lie in memory after loading, all heads one after another.
std::string hash(const TensorView& view) {
  Sha256 sha;
  for (std::int64_t h = 0; h < view.heads; ++h) {
    sha.update(view.row(h, 0),
               static_cast<std::size_t>(view.tokens * view.head_dim) * size_of(view.dtype));
  }
  return sha.finish();
}

json number_or_null(double value) { return std::isnan(value) ? json() : json(value); }

json describe_record(const Capture& capture, const RecordInfo& info) {
  const auto record = capture.load(info);
  const RecordView view = record->view();
  json segments = json::array();
  for (const Segment& s : info.segments) {
    segments.push_back(
        {std::string(name_of(s.role)), s.start, s.length, s.frames, s.height, s.width});
  }
  json result{{"number", info.number},
              {"generation", info.generation},
              {"step", info.site.step},
              {"layer_index", info.site.layer},
              {"branch", info.site.branch},
              {"expert", info.site.expert},
              {"batch_item", info.site.batch_item},
              {"scale", info.scale},
              {"layer", info.layer_name},
              {"layers_total", info.layers_total},
              {"timestep", number_or_null(info.timestep)},
              {"sigma", number_or_null(info.sigma)},
              {"kind", info.kind},
              {"heads", info.heads},
              {"heads_total", info.heads_total},
              {"rope_applied", info.rope_applied},
              {"dtype", std::string(name_of(info.dtype))},
              {"shape", {view.heads(), view.tokens(), view.head_dim()}},
              {"segments", segments},
              {"sha256", {hash(view.q), hash(view.k), hash(view.v)}},
              {"recorded", {info.sha256_q, info.sha256_k, info.sha256_v}}};
  if (view.key_valid != nullptr) {
    result["key_valid"] =
        std::vector<int>(view.key_valid, view.key_valid + static_cast<std::size_t>(view.tokens()));
  }
  if (info.has_output) {
    const auto o = capture.load_output(info);
    result["o_sha256"] = sha256_hex(o.data(), o.size() * sizeof(float));
  }
  return result;
}

json read_capture(const std::string& path, bool allow_nonfinite) {
  const Capture capture = Capture::open(path, {.allow_nonfinite = allow_nonfinite});
  const CaptureInfo& info = capture.info();
  json records = json::array();
  for (const RecordInfo& record : capture.records()) {
    records.push_back(describe_record(capture, record));
  }
  json frames = json::object();
  for (const std::string& arm : capture.frame_arms()) {
    const Frames f = capture.read_frames(arm);
    frames[arm] = {{"shape", {f.frames, f.height, f.width, 3}}, {"rgb", f.rgb}};
  }
  return {{"complete", info.complete}, {"model_id", info.model_id},
          {"prompt", info.prompt},     {"seed", info.seed},
          {"patch", info.patch},       {"timesteps", info.timesteps},
          {"sigmas", info.sigmas},     {"records", records},
          {"frames", frames},          {"warnings", capture.warnings()}};
}

// 2 heads, 10 tokens; the key layout differs by head and holds an empty block.
void write_example_plan(const std::string& path) {
  PlanFile file;
  Plan& plan = file.plan;
  plan.heads = 2;
  plan.tokens = 10;
  plan.q_order = {1, 10, true, {}};
  plan.k_order = {2, 10, false, {0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0}};
  plan.q_blocks = {1, 4, {0, 4, 8, 10, 10}};
  plan.k_blocks = {2, 3, {0, 4, 8, 10, 0, 5, 5, 10}};
  plan.lists = {2, 4, {0, 2, 3, 4, 4, 5, 7, 8, 8}, {0, 2, 1, 2, 0, 0, 2, 2}};
  file.capture = "clip.h5";
  file.record = "42";
  file.arm = "{method: rainfusion2, density: 0.25}";
  file.method = "rainfusion2";
  file.heads = {11, 4};
  file.nominal_density = {0.25, std::nan("")};
  write_plan(path, file, true);
}

json read_example_plan(const std::string& path) {
  const PlanFile file = read_plan(path);
  const Plan& plan = file.plan;
  json nominal = json::array();
  for (const double d : file.nominal_density) nominal.push_back(number_or_null(d));
  json orders = json::array();
  for (const Orders* o : {&plan.q_order, &plan.k_order}) {
    json rows = json::array();
    for (std::int64_t h = 0; h < plan.heads; ++h) {
      json row = json::array();
      for (std::int64_t i = 0; i < plan.tokens; ++i) row.push_back(o->token(h, i));
      rows.push_back(row);
    }
    orders.push_back(rows);
  }
  json lists = json::array();
  for (std::int64_t h = 0; h < plan.heads; ++h) {
    json head = json::array();
    for (std::int64_t b = 0; b < plan.q_blocks.blocks; ++b) {
      const std::int32_t* first = plan.lists.begin(h, b);
      head.push_back(std::vector<int>(first, first + plan.lists.count(h, b)));
    }
    lists.push_back(head);
  }
  return {{"capture", file.capture},
          {"record", file.record},
          {"arm", file.arm},
          {"method", file.method},
          {"heads", file.heads},
          {"nominal_density", nominal},
          {"density_pairs", file.density.pairs},
          {"density_blocks", file.density.blocks},
          {"orders", orders},
          {"q_offsets", plan.q_blocks.offsets},
          {"k_offsets", plan.k_blocks.offsets},
          {"lists", lists},
          {"warnings", file.warnings}};
}

int run(const std::vector<std::string>& arguments) {
  const std::string mode = arguments.empty() ? "" : arguments[0];
  const std::size_t count = arguments.size();
  if (mode == "write-capture" && count == 4) {
    write_capture(arguments[1], arguments[2], arguments[3]);
  } else if (mode == "read-capture" && count >= 2) {
    std::cout << read_capture(arguments[1], count == 3).dump() << "\n";
  } else if (mode == "write-plan" && count == 2) {
    write_example_plan(arguments[1]);
  } else if (mode == "read-plan" && count == 2) {
    std::cout << read_example_plan(arguments[1]).dump() << "\n";
  } else {
    std::cerr << "usage: see the head of h5_exchange.cpp\n";
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace raingauge

int main(int argc, char** argv) {
  try {
    return raingauge::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const raingauge::Error& error) {
    std::cout << nlohmann::json{{"error", error.what()}}.dump() << "\n";
    return 1;
  }
}
