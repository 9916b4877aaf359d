// SPDX-License-Identifier: Apache-2.0
#include "harness/manifest.h"

#include <sched.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/Version.hpp>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "data/error.h"
#include "harness/results.h"

#if __has_include("raingauge_build_info.h")
#include "raingauge_build_info.h"  // made by CMake: RAINGAUGE_GIT_COMMIT, _BUILD_LIBRARIES
#endif
#ifndef RAINGAUGE_GIT_COMMIT
#define RAINGAUGE_GIT_COMMIT "unknown"
#endif
#ifndef RAINGAUGE_VERSION
#define RAINGAUGE_VERSION "unknown"
#endif
#ifndef RAINGAUGE_BUILD_LIBRARIES
#define RAINGAUGE_BUILD_LIBRARIES ""  // "HDF5=1.10.8,yaml-cpp=0.7.0"
#endif

namespace raingauge {
namespace {

using nlohmann::json;

std::string read_small_file(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

std::string trimmed(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

json text_or_null(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

std::string version_text(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

json library_versions() {
  json versions = {
      {"nlohmann-json", version_text(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                     NLOHMANN_JSON_VERSION_PATCH)},
      {"CLI11", CLI11_VERSION}};
  std::istringstream entries(RAINGAUGE_BUILD_LIBRARIES);
  for (std::string entry; std::getline(entries, entry, ',');) {
    const std::size_t equals = entry.find('=');
    if (equals != std::string::npos && equals + 1 < entry.size()) {
      versions[entry.substr(0, equals)] = entry.substr(equals + 1);
    }
  }
  return versions;
}

const char* build_mode() {
#if defined(__SANITIZE_ADDRESS__)
  return "sanitized";
#elif defined(NDEBUG)
  return "release";
#else
  return "debug";
#endif
}

// Cores this process may run on; a container may have fewer than the machine.
json usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return nullptr;
  return CPU_COUNT(&set);
}

json load_average() {
  std::array<double, 3> load{};
  if (getloadavg(load.data(), 3) != 3) return nullptr;
  return load;
}

json current_mhz() {
  const std::string khz =
      trimmed(read_small_file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"));
  if (khz.empty() || khz.find_first_not_of("0123456789") != std::string::npos) return nullptr;
  return std::strtod(khz.c_str(), nullptr) / 1000.0;
}

json memory_bytes() {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return nullptr;
  return static_cast<std::uint64_t>(info.totalram) * info.mem_unit;
}

json system_name() {
  utsname name{};
  if (uname(&name) != 0) return nullptr;
  return std::string(name.sysname) + " " + name.release;
}

// What of a run may change when it is resumed.
json run_entry(const json& manifest) {
  return {{"started", manifest.at("started")},       {"command", manifest.at("command")},
          {"git_commit", manifest.at("git_commit")}, {"cpu", manifest.at("machine").at("cpu")},
          {"device", manifest.at("device")},         {"load", manifest.at("machine").at("load")}};
}

}  // namespace

json parse_cpuinfo(const std::string& text) {
  std::string model;
  std::set<std::string> flags;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string key = trimmed(line.substr(0, colon));
    const std::string value = trimmed(line.substr(colon + 1));
    if (model.empty() && (key == "model name" || key == "Model")) model = value;
    if (flags.empty() && (key == "flags" || key == "Features")) {
      std::istringstream words(value);
      for (std::string word; words >> word;) flags.insert(word);
    }
  }
  return {{"cpu", model.empty() ? "unknown" : model}, {"cpu_flags", flags}};
}

json describe_machine() {
  json machine = parse_cpuinfo(read_small_file("/proc/cpuinfo"));
  utsname name{};
  machine["system"] = system_name();
  machine["architecture"] = uname(&name) == 0 ? json(name.machine) : json(nullptr);
  machine["logical"] = std::thread::hardware_concurrency();
  machine["usable"] = usable_cores();
  machine["mhz"] = current_mhz();
  machine["governor"] = text_or_null(
      trimmed(read_small_file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")));
  machine["load"] = load_average();
  machine["memory_bytes"] = memory_bytes();
  return machine;
}

json describe_build() {
  return {
    {"version", RAINGAUGE_VERSION},
#if defined(__clang__)
        {"compiler", "clang " __clang_version__},
#else
        {"compiler", "g++ " __VERSION__},
#endif
        {"standard", __cplusplus}, {"mode", build_mode()}, {
      "libraries", library_versions()
    }
  };
}

std::string git_commit() { return RAINGAUGE_GIT_COMMIT; }

std::string utc_time() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

std::string shell_line(const std::vector<std::string>& command) {
  const std::string plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:=,@%";
  std::string line;
  for (const auto& word : command) {
    std::string quoted = word;
    if (word.empty() || word.find_first_not_of(plain) != std::string::npos) {
      quoted = "'";
      for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
      quoted += "'";
    }
    line += (line.empty() ? "" : " ") + quoted;
  }
  return line;
}

json make_manifest(const ManifestInput& input) {
  json manifest = {{"schema", "raingauge/1"},
                   {"started", utc_time()},
                   {"command", shell_line(input.command)},
                   {"experiment", input.experiment},
                   {"experiment_hash", cell_hash(input.experiment)},
                   {"captures", input.captures},
                   {"seed", input.seed},
                   {"device", input.device},
                   {"threads", input.threads},
                   {"git_commit", git_commit()},
                   {"machine", describe_machine()},
                   {"gpu", input.gpu ? input.gpu() : json(nullptr)},
                   {"build", describe_build()}};
  for (const auto& [name, version] : input.libraries)
    manifest["build"]["libraries"][name] = version;
  return manifest;
}

void write_manifest(const std::filesystem::path& folder, const json& manifest) {
  const std::filesystem::path file = folder / "manifest.json";
  json complete = manifest;
  complete["runs"] = json::array();
  if (std::filesystem::exists(file)) {
    const json previous = json::parse(read_small_file(file.string()), nullptr, false);
    if (!previous.is_object() || !previous.contains("runs") || !previous["runs"].is_array()) {
      throw Error(file.string() + ": is no manifest of a run; move it away");
    }
    complete["runs"] = previous["runs"];
  }
  complete["runs"].push_back(run_entry(manifest));
  // Paths and model names come from outside and need not be UTF-8.
  write_text_file(file, complete.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

}  // namespace raingauge
