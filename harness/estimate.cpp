// SPDX-License-Identifier: Apache-2.0
// What a run will need, before it starts: memory to refuse by, work to foretell the time by.
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "harness/runner.h"
#include "methods/controls.h"
#include "methods/kernels/peer.h"
#include "methods/orders/registry.h"

namespace raingauge {
namespace {

std::int64_t tensor_bytes(const RecordRef& reference) {
  const auto& info = *reference.info;
  return static_cast<std::int64_t>(reference.heads.size()) * info.tokens * info.head_dim;
}

std::int64_t blocks_of(const RecordInfo& info, const Arm& arm) {
  const int block = arm.params.value("block", 128);
  return (info.tokens + block - 1) / block + 2;
}

// Rows of token orders that a plan may hold: one for all heads under an order of the grid; one a head
// under an order made from content, and where the method has orders of its own.
std::int64_t order_rows(const Arm& arm, std::int64_t heads) {
  const auto order = arm.params.find("order");
  if (order == arm.params.end() || !order->is_object()) return heads;
  return find_order(order->at("name").get<std::string>()).from_content() ? heads : 1;
}

std::int64_t meminfo_field(const std::string& field) {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(field + ":")) continue;
    std::istringstream words(line.substr(field.size() + 1));
    std::int64_t kib = -1;
    words >> kib;
    return kib * 1024;
  }
  return -1;
}

// The limit of a container minus what it uses; -1 without one.
std::int64_t cgroup_room() {
  std::ifstream limit_file("/sys/fs/cgroup/memory.max");
  std::ifstream used_file("/sys/fs/cgroup/memory.current");
  std::int64_t limit = -1;
  std::int64_t used = 0;
  if (!(limit_file >> limit) || !(used_file >> used)) return -1;
  return std::max<std::int64_t>(0, limit - used);
}

// Arms of one order and block size share their block masses.
double distinct_layouts(const Experiment& experiment) {
  std::set<std::string> layouts;
  for (const auto& arm : experiment.arms) {
    nlohmann::json layout = {{"method", arm.method}};
    for (const char* key : {"order", "frame0", "block", "block_q", "block_k", "seed"}) {
      if (arm.params.contains(key)) layout[key] = arm.params[key];
    }
    layouts.insert(layout.dump());
  }
  return static_cast<double>(layouts.size());
}

}  // namespace

std::int64_t available_memory() {
  const auto machine = meminfo_field("MemAvailable");
  const auto container = cgroup_room();
  if (machine < 0 || container < 0) return std::max(machine, container);
  return std::min(machine, container);
}

MemoryEstimate estimate_memory(const Experiment& experiment,
                               const std::vector<Sequence>& sequences) {
  MemoryEstimate most;
  // Every peer's process shares a copy of the record and of its outputs with this one.
  const auto peers = static_cast<std::int64_t>(
      std::count_if(experiment.latency.kernels.begin(), experiment.latency.kernels.end(), is_peer));
  const bool masses = std::any_of(experiment.controls.arms.begin(), experiment.controls.arms.end(),
                                  control_needs_mass);
  for (const auto& sequence : sequences) {
    for (const auto& reference : sequence.records) {
      const auto& info = *reference.info;
      const auto heads = static_cast<std::int64_t>(reference.heads.size());
      MemoryEstimate need;
      need.record = 3 * tensor_bytes(reference) * static_cast<std::int64_t>(size_of(info.dtype));
      if (experiment.latency.enabled) {
        const auto timed = experiment.latency.heads < 0
                               ? heads
                               : std::min<std::int64_t>(heads, experiment.latency.heads);
        need.outputs = timed * info.tokens * (info.head_dim + 1) * 4;
        need.outputs += 3 * info.tokens * info.head_dim * 4;  // packed K, V and scratch of one head
        need.peers = peers * (need.record + timed * info.tokens * (info.head_dim + 1) * 4);
      }
      for (const auto& arm : experiment.arms) {
        const auto blocks = blocks_of(info, arm);
        const double density = arm.density > 0 ? arm.density : 1.0;
        need.plans += static_cast<std::int64_t>(2.0 * density * 4.0 *
                                                static_cast<double>(heads * blocks * blocks)) +
                      8 * info.tokens * order_rows(arm, heads);
        const auto oracle_heads =
            experiment.controls.oracle_heads < 0
                ? heads
                : std::min<std::int64_t>(heads, experiment.controls.oracle_heads);
        if (masses) need.masses += oracle_heads * blocks * blocks * 4;
      }
      if (need.total() > most.total()) most = need;
    }
  }
  return most;
}

CostEstimate estimate_cost(const Experiment& experiment, const std::vector<Sequence>& sequences) {
  CostEstimate cost;
  int records = 0;
  const double layouts = distinct_layouts(experiment);
  for (const auto& sequence : sequences) {
    for (const auto& reference : sequence.records) {
      const auto& info = *reference.info;
      const auto n = static_cast<double>(info.tokens);
      const auto heads = static_cast<double>(reference.heads.size());
      const double rows = experiment.rows.all ? n : std::min(n, double(experiment.rows.sample));
      const double full = 4.0 * rows * n * static_cast<double>(info.head_dim) * heads;
      cost.flops += full;  // dense rows, once a record
      for (const auto& arm : experiment.arms) {
        const double density = arm.density > 0 ? arm.density : 1.0;
        cost.flops += density * full * static_cast<double>(1 + experiment.controls.arms.size());
        ++cost.fidelity_cells;
      }
      const double oracle_heads = experiment.controls.oracle_heads < 0
                                      ? heads
                                      : std::min(heads, double(experiment.controls.oracle_heads));
      const auto& controls = experiment.controls.arms;
      if (std::any_of(controls.begin(), controls.end(), control_needs_mass)) {
        cost.flops += 2.0 * n * n * static_cast<double>(info.head_dim) * oracle_heads * layouts;
      }
      if (experiment.latency.enabled &&
          (experiment.latency.records < 0 || records < experiment.latency.records)) {
        ++cost.latency_groups;
      }
      ++records;
    }
  }
  return cost;
}

}  // namespace raingauge
