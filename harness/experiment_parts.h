// SPDX-License-Identifier: Apache-2.0
// Sections of an experiment that are read in files of their own, and its resolved form.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/synthetic.h"
#include "harness/experiment_arms.h"

namespace raingauge {

// Globs and files are relative to `folder`; a glob that matches nothing is an error.
std::vector<CaptureSource> read_captures(const YamlDocument& document,
                                         const std::filesystem::path& folder);
// The options of a synthetic source, complete; synthetic_spec() is the way back.
nlohmann::json read_synthetic(const YamlDocument& document, const std::string& path);
SyntheticSpec synthetic_spec(const nlohmann::json& options);
LatencyPlan read_latency(const YamlDocument& document, const ArmSet& arms, const KnownNames& known);
GeneratePlan read_generate(const YamlDocument& document, const ArmSet& arms,
                           const KnownNames& known);
ReportPlan read_report(const YamlDocument& document, const ArmSet& arms);

// Everything as JSON, defaults included; equal experiments give equal text.
nlohmann::json resolved_json(const Experiment& experiment);

}  // namespace raingauge
