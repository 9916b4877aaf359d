// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/peer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "data/error.h"
#include "data/sha256.h"
#include "methods/kernels/device.h"
#include "methods/kernels/peers/process.h"
#include "methods/kernels/reference.h"

namespace raingauge {
namespace {

using nlohmann::json;
using peers::Process;
using peers::SharedFile;

constexpr std::string_view kPrefix = "python:";
constexpr std::size_t kAlign = 4096;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Where everything of one set of inputs lies in the shared file.
struct Places {
  std::size_t q = 0, k = 0, v = 0, o = 0, lse = 0, bytes = 0;

  explicit Places(const TensorView& x) {
    const auto elements = static_cast<std::size_t>(x.heads * x.tokens * x.head_dim);
    const std::size_t tensor = aligned(elements * size_of(x.dtype));
    k = tensor;
    v = 2 * tensor;
    o = 3 * tensor;
    lse = o + aligned(elements * sizeof(float));
    bytes = lse + aligned(static_cast<std::size_t>(x.heads * x.tokens) * sizeof(float));
  }
};

bool is_contiguous(const TensorView& x) {
  return x.token_stride == x.head_dim && x.head_stride == x.tokens * x.head_dim;
}

// [H, N, D] without gaps, in host memory.
void pack(const TensorView& x, std::byte* target) {
  const auto row = static_cast<std::size_t>(x.head_dim) * size_of(x.dtype);
  if (is_contiguous(x)) {
    copy_to_host(x.device, x.data, target, row * static_cast<std::size_t>(x.heads * x.tokens));
    return;
  }
  for (std::int64_t head = 0; head < x.heads; ++head) {
    for (std::int64_t token = 0; token < x.tokens; ++token, target += row) {
      std::memcpy(target, x.row(head, token), row);
    }
  }
}

// The arrays of a plan one after another, and where each lies.
class PackedPlan {
 public:
  template <typename T>
  void add(const char* name, const char* type, std::span<const T> values, json shape) {
    arrays_[name] = {bytes_, type, std::move(shape)};
    parts_.push_back({bytes_, values.data(), values.size_bytes()});
    bytes_ = aligned(bytes_ + values.size_bytes());
  }
  void write(SharedFile& file) const {
    std::byte* target = file.reserve(std::max(bytes_, kAlign));
    for (const Part& part : parts_) {
      if (part.bytes > 0) std::memcpy(target + part.offset, part.data, part.bytes);
    }
  }
  std::size_t bytes() const { return std::max(bytes_, kAlign); }
  const json& arrays() const { return arrays_; }

 private:
  struct Part {
    std::size_t offset;
    const void* data;
    std::size_t bytes;
  };
  std::vector<Part> parts_;
  json arrays_ = json::object();
  std::size_t bytes_ = 0;
};

PackedPlan packed(const Plan& plan, const AttendInputs& inputs) {
  PackedPlan result;
  const auto order = [&](const char* name, const Orders& orders) {
    if (orders.identity) return;
    result.add<std::int32_t>(name, "int32", orders.index, {orders.rows, plan.tokens});
  };
  order("q_order", plan.q_order);
  order("k_order", plan.k_order);
  const auto layout = [&](const char* name, const Layout& blocks) {
    result.add<std::int32_t>(name, "int32", blocks.offsets, {blocks.rows, blocks.blocks + 1});
  };
  layout("q_offsets", plan.q_blocks);
  layout("k_offsets", plan.k_blocks);
  result.add<std::int64_t>("row_offsets", "int64", plan.lists.row_offsets,
                           json::array({plan.lists.row_offsets.size()}));
  result.add<std::int32_t>("columns", "int32", plan.lists.columns,
                           json::array({plan.lists.columns.size()}));
  if (inputs.key_valid != nullptr) {
    result.add<std::uint8_t>("key_valid", "uint8",
                             std::span(inputs.key_valid, static_cast<std::size_t>(plan.tokens)),
                             json::array({plan.tokens}));
  }
  return result;
}

PhaseSample sample_from(const json& answer) {
  const json& phases = answer.at("phases");
  PhaseSample sample;
  const auto read = [&](const char* name, double& value) {
    if (phases.contains(name)) value = phases[name].get<double>();
  };
  read("plan", sample.plan);
  read("permute", sample.permute);
  read("prepare", sample.prepare);
  read("attend", sample.attend);
  read("unpermute", sample.unpermute);
  sample.launch_hidden = answer.at("launch_hidden").get<bool>();
  return sample;
}

// The child of one peer file on one device, and what it currently holds. Started again after it died.
class Child {
 public:
  Child(std::string label, std::string file, const KernelOptions& options)
      : label_(std::move(label)), file_(std::move(file)), options_(options) {}

  // What the file says of itself. Throws Unsupported where it cannot be loaded here.
  const json& about(const Device& device) {
    if (process_ != nullptr && process_->alive() && device == device_) return about_;
    if (!refusal_.empty() && device == device_) throw Unsupported(refusal_);
    process_.reset();
    refusal_.clear();
    held_contents_ = 0;
    ++generation_;
    device_ = device;
    try {
      process_ = std::make_unique<Process>(label_, inputs_, plan_);
      about_ = request({{"do", "load"},
                        {"file", file_},
                        {"device", to_string(device)},
                        {"threads", options_.threads}});
    } catch (const Unsupported& reason) {
      refusal_ = reason.what();
      process_.reset();
      throw;
    } catch (...) {
      process_.reset();
      throw;
    }
    return about_;
  }

  // Counts the processes started: what an earlier one held is gone.
  std::int64_t generation() const { return generation_; }

  void hold_inputs(const AttendInputs& inputs) {
    about(inputs.q.device);
    const TensorView& x = inputs.q;
    const Places places(x);
    if (inputs.contents != 0 && inputs.contents == held_contents_) return;
    held_contents_ = 0;
    std::byte* memory = inputs_.reserve(places.bytes);
    pack(inputs.q, memory + places.q);
    pack(inputs.k, memory + places.k);
    pack(inputs.v, memory + places.v);
    request({{"do", "inputs"},
             {"bytes", places.bytes},
             {"heads", x.heads},
             {"tokens", x.tokens},
             {"head_dim", x.head_dim},
             {"dtype", name_of(x.dtype)},
             {"q", places.q},
             {"k", places.k},
             {"v", places.v}});
    held_contents_ = inputs.contents;
  }

  // Throws Unsupported when the peer refuses the plan.
  void give_plan(std::int64_t id, const Plan& plan, const AttendInputs& inputs) {
    about(inputs.q.device);
    const PackedPlan parts = packed(plan, inputs);
    parts.write(plan_);
    request({{"do", "plan"},
             {"id", id},
             {"bytes", parts.bytes()},
             {"arrays", parts.arrays()},
             {"plan",
              {{"heads", plan.heads},
               {"tokens", plan.tokens},
               {"head_dim", inputs.q.head_dim},
               {"dtype", name_of(inputs.q.dtype)},
               {"scale", inputs.scale},
               {"dense", keeps_every_pair(plan)}}}});
  }

  // Returns whether there is an LSE.
  bool attend(std::int64_t id, const TensorView& x, const AttendOutputs& outputs) {
    const Places places(x);
    const json answer = request({{"do", "attend"},
                                 {"id", id},
                                 {"bytes", places.bytes},
                                 {"o", places.o},
                                 {"lse", places.lse}});
    const auto rows = static_cast<std::size_t>(x.heads * x.tokens);
    const bool has_lse = answer.at("has_lse").get<bool>();
    copy_from_host(x.device, inputs_.data() + places.o, outputs.o,
                   rows * static_cast<std::size_t>(x.head_dim) * sizeof(float));
    if (has_lse && outputs.lse != nullptr) {
      copy_from_host(x.device, inputs_.data() + places.lse, outputs.lse, rows * sizeof(float));
    }
    return has_lse;
  }

  json request(const json& message) { return process_->request(message, options_.answer_seconds); }

  void drop(std::int64_t id, std::int64_t generation) noexcept {
    if (process_ == nullptr || !process_->alive() || generation != generation_) return;
    try {
      request({{"do", "drop"}, {"id", id}});
    } catch (const std::exception&) {
      process_.reset();  // the next request starts another one
    }
  }

 private:
  std::string label_, file_;
  KernelOptions options_;
  SharedFile inputs_, plan_;
  std::unique_ptr<Process> process_;
  Device device_;
  json about_;
  std::string refusal_;  // why the file cannot be loaded on device_
  std::uint64_t held_contents_ = 0;
  std::int64_t generation_ = 0;
};

double executed_share(const Plan& plan) { return measure_density(plan).mean_blocks; }

// A plan that the child holds; given to it again when it had to be started again.
class HeldPlan {
 public:
  HeldPlan(Child& child, std::int64_t id, const Plan& plan, const AttendInputs& inputs)
      : child_(child), id_(id), plan_(plan), inputs_(inputs) {
    ensure();
  }
  ~HeldPlan() { child_.drop(id_, generation_); }
  HeldPlan(const HeldPlan&) = delete;
  HeldPlan& operator=(const HeldPlan&) = delete;

  // True when the child had to be given the plan.
  bool ensure() {
    child_.hold_inputs(inputs_);
    if (generation_ == child_.generation()) return false;
    child_.give_plan(id_, plan_, inputs_);
    generation_ = child_.generation();
    return true;
  }
  std::int64_t id() const { return id_; }
  const AttendInputs& inputs() const { return inputs_; }
  const Plan& plan() const { return plan_; }

 private:
  Child& child_;
  std::int64_t id_;
  std::int64_t generation_ = -1;
  const Plan& plan_;
  AttendInputs inputs_;
};

class PeerPrepared final : public Prepared {
 public:
  PeerPrepared(Child& child, std::int64_t id, const Plan& plan, const AttendInputs& inputs)
      : held(child, id, plan, inputs), tiles_(executed_share(plan)) {}
  double density_tiles() const override { return tiles_; }
  mutable HeldPlan held;

 private:
  double tiles_;
};

class PeerRun final : public TimedRun {
 public:
  PeerRun(Child& child, std::int64_t id, const Plan& plan, const AttendInputs& inputs)
      : child_(child), held_(child, id, plan, inputs), tiles_(executed_share(plan)) {}
  PhaseSample sample(bool reuse) override {
    const bool given_again = held_.ensure();
    const bool prepared_before = reuse && prepared_ && !given_again;
    PhaseSample sample = sample_from(
        child_.request({{"do", "sample"}, {"id", held_.id()}, {"prepare", !prepared_before}}));
    sample.prepared_before = prepared_before;
    prepared_ = true;
    predicts_ = !std::isnan(sample.plan);
    return sample;
  }
  double density_tiles() const override { return tiles_; }
  std::string plans_on() const override { return predicts_ ? "peer" : ""; }

 private:
  Child& child_;
  HeldPlan held_;
  double tiles_;
  bool predicts_ = false, prepared_ = false;
};

class PeerKernel final : public Kernel {
 public:
  PeerKernel(const std::string& path, const KernelOptions& options)
      : path_(path),
        name_(std::filesystem::path(path).stem().string()),
        identity_(std::string(kPrefix) + path + "#" + sha256_file(path)),
        child_("peer `" + name_ + "`", path, options) {
    spec_.name = name_;
    spec_.help = "a peer in Python";
    spec_.cpu = spec_.cuda = true;
  }
  const KernelSpec& spec() const override { return spec_; }
  std::string identity() const override { return identity_; }
  bool gives_lse() const override { return has_lse_; }
  std::string detail() const override { return detail_; }

  // Gives the plan to the child: only the peer's own code knows what it covers.
  Support supports(const Plan& plan, const AttendInputs& inputs) const override {
    if (!plan.terms.empty()) {
      return name_ + ": the plan adds the output term `" + plan.terms.front().name + "`";
    }
    if (inputs.q.device.kind == DeviceKind::cuda &&
        !(is_contiguous(inputs.q) && is_contiguous(inputs.k) && is_contiguous(inputs.v))) {
      return name_ + ": tensors on a device must be contiguous";
    }
    try {
      read_about(inputs.q.device);
      if (spec_.dense_only && !keeps_every_pair(plan)) {
        return name_ + " is dense: the plan leaves pairs out";
      }
      child_.give_plan(0, plan, inputs);
      child_.drop(0, child_.generation());
    } catch (const Unsupported& reason) {
      return reason.what();
    }
    return std::nullopt;
  }

  std::unique_ptr<Prepared> prepare(const Plan& plan, const AttendInputs& inputs) override {
    check_attend_inputs(plan, inputs);
    if (const Support reason = supports(plan, inputs)) throw Unsupported(*reason);
    auto prepared = std::make_unique<PeerPrepared>(child_, ++last_id_, plan, inputs);
    child_.request({{"do", "prepare"}, {"id", prepared->held.id()}});
    return prepared;
  }

  void attend(const Prepared& prepared, const AttendInputs& inputs,
              const AttendOutputs& outputs) override {
    const auto* mine = dynamic_cast<const PeerPrepared*>(&prepared);
    if (mine == nullptr) throw Error(name_ + ": attend() got what another kernel prepared");
    if (mine->held.ensure()) child_.request({{"do", "prepare"}, {"id", mine->held.id()}});
    has_lse_ = child_.attend(mine->held.id(), inputs.q, outputs);
  }

  std::unique_ptr<TimedRun> open_run(const Plan& plan, const AttendInputs& inputs,
                                     const AttendOutputs& /*outputs*/,
                                     DevicePlanner* /*planner*/) override {
    read_about(inputs.q.device);
    return std::make_unique<PeerRun>(child_, ++last_id_, plan, inputs);
  }

 private:
  void read_about(const Device& device) const {
    const json& about = child_.about(device);
    spec_.dense_only = about.at("dense_only").get<bool>();
    spec_.rounds_scores = about.at("rounds_scores").get<bool>();
    spec_.folds_permutation = about.at("folds_permutation").get<bool>();
    detail_ = about.at("name").get<std::string>();
    const auto version = about.at("version").get<std::string>();
    if (!version.empty()) detail_ += (detail_.empty() ? "" : " ") + version;
  }

  std::string path_, name_, identity_;
  // Asking the peer whether it supports a plan starts it and tells what it is.
  mutable Child child_;
  mutable KernelSpec spec_;
  mutable std::string detail_;
  bool has_lse_ = true;
  std::int64_t last_id_ = 0;
};

}  // namespace

bool is_peer(std::string_view kernel) { return kernel.starts_with(kPrefix); }

std::unique_ptr<Kernel> make_peer_kernel(const std::string& kernel, const KernelOptions& options) {
  const std::string path = kernel.substr(kPrefix.size());
  if (!std::filesystem::is_regular_file(path)) {
    throw Error("kernel `" + kernel + "`: there is no file '" + path + "'");
  }
  return std::make_unique<PeerKernel>(path, options);
}

}  // namespace raingauge
