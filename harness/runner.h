// SPDX-License-Identifier: Apache-2.0
// The loop of an experiment: sequences, records, arms, kernels. What is already in the run's folder is
// not computed again.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/experiment.h"
#include "harness/progress.h"
#include "harness/results.h"
#include "harness/source.h"

namespace raingauge {

struct RunContext {
  const Experiment& experiment;
  RunFolder& folder;
  Device device;
  int threads = 0;
  Progress& progress;
};

// Replays all selected records: fidelity, conformance and latency rows.
void run_replay(const RunContext& context, const std::vector<Sequence>& sequences);

// Denoises clips with every arm named under `generate` and compares the decoded frames.
void run_generate(const RunContext& context);

// The arms that `generate` names, at its density and dense steps and layers.
std::vector<Arm> generate_arms(const Experiment& experiment);

// Peak memory that a replay needs: the largest record, its outputs, plans, block masses, and what is
// shared with the processes of peers.
struct MemoryEstimate {
  std::int64_t record = 0, outputs = 0, plans = 0, masses = 0, peers = 0;
  std::int64_t total() const { return record + outputs + plans + masses + peers; }
};
MemoryEstimate estimate_memory(const Experiment& experiment,
                               const std::vector<Sequence>& sequences);

// Memory that the machine (or its container) still has, in bytes; -1 when it cannot be told.
std::int64_t available_memory();

// Cells the replay will compute and a rough time, for --dry-run.
struct CostEstimate {
  std::int64_t fidelity_cells = 0, conformance_cells = 0, latency_groups = 0;
  double flops = 0.0;
};
CostEstimate estimate_cost(const Experiment& experiment, const std::vector<Sequence>& sequences);

}  // namespace raingauge
