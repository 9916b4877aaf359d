// SPDX-License-Identifier: Apache-2.0
// What was run, on what, with which build: the part of a result that is not a number.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace raingauge {

struct ManifestInput {
  nlohmann::json experiment;         // Experiment::resolved
  nlohmann::json captures;           // what every source says of itself: files, hashes, seeds
  std::uint64_t seed = 0;            // of the judged rows
  std::vector<std::string> command;  // argv
  std::string device = "cpu";
  int threads = 0;
  std::map<std::string, std::string> libraries;  // versions known at run time: {"torch": "2.11.0"}
  std::function<nlohmann::json()> gpu;           // name, driver, clocks; empty: no GPU in this run
};

nlohmann::json make_manifest(const ManifestInput& input);

// Writes manifest.json. When the folder has one (a resumed run), its `runs` are kept and this run
// is added: {started, command, git_commit, cpu, device, load}.
void write_manifest(const std::filesystem::path& folder, const nlohmann::json& manifest);

// {cpu, cpu_flags[], system, architecture, logical, usable, mhz, governor, load[3], memory_bytes};
// what the machine does not tell is null, a processor without a name is "unknown".
nlohmann::json describe_machine();
// `cpu` and `cpu_flags` of the text of /proc/cpuinfo.
nlohmann::json parse_cpuinfo(const std::string& text);
// {version, compiler, standard, mode, libraries{}}.
nlohmann::json describe_build();
// The commit that this program was built from; "unknown" without git.
std::string git_commit();
// "2026-01-31T12:00:00Z".
std::string utc_time();
// The command line as one could type it: arguments with blanks or shell characters are quoted.
std::string shell_line(const std::vector<std::string>& command);

}  // namespace raingauge
