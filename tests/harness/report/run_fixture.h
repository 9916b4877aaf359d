// SPDX-License-Identifier: Apache-2.0
// Folders of runs with planted effects: order x sink x density, recall known for every cell.
#pragma once

#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/harness/temporary_folder.h"

namespace raingauge::testing_support {

struct PlantedRun {
  int generations = 16;
  double window = 0.03, sink = -0.02, both = 0.01;  // of window3d, of sink both, of their meeting
  double noise = 0.002;
  std::uint64_t seed = 5;
  bool infeasible_low = false;  // sink both at density 0.2 does not fit
  nlohmann::json contrasts = {"order=window3d", "sink=both", "order=window3d*sink=both"};
  std::function<void(nlohmann::json&)> change = [](nlohmann::json&) {};  // of every row
};

inline nlohmann::json planted_arm(const std::string& order, const std::string& sink,
                                  double density) {
  const std::string stem = "rf2." + order + "." + sink;
  const std::string label = density == 0.2 ? "0.2" : "0.35";
  return {{"name", stem + "." + label},
          {"base", "rf2"},
          {"stem", stem},
          {"match", "density"},
          {"factors", {{"order", order}, {"sink", sink}, {"density", density}}},
          {"density", density},
          {"params",
           {{"method", "rainfusion2"},
            {"order", order},
            {"sink", sink},
            {"density", density},
            {"block", 128},
            {"budget", "inside"}}}};
}

inline std::vector<nlohmann::json> planted_arms() {
  std::vector<nlohmann::json> arms;
  for (const char* order : {"raster", "window3d"}) {
    for (const char* sink : {"none", "both"}) {
      for (const double density : {0.2, 0.35}) arms.push_back(planted_arm(order, sink, density));
    }
  }
  return arms;
}

inline nlohmann::json planted_manifest(const PlantedRun& run) {
  nlohmann::json captures = nlohmann::json::array();
  for (int g = 0; g < run.generations; ++g) {
    captures.push_back({{"path", "clip" + std::to_string(g) + ".h5"},
                        {"generation", "clip" + std::to_string(g)},
                        {"identity", "identity" + std::to_string(g)},
                        {"pipeline", g % 2 == 0 ? "image_to_video" : "text_to_video"}});
  }
  return {{"schema", "raingauge/1"},
          {"reproduce", "raingauge run planted.yaml"},
          {"device", "cpu"},
          {"git_commit", "0123456789ab"},
          {"machine", {{"cpu", "planted CPU"}}},
          {"captures", captures},
          {"experiment",
           {{"name", "planted"},
            {"match", "density"},
            {"metrics",
             {"recall", "rel_l2", "mass_first_frame", "block_similarity_q", "block_similarity_k"}},
            {"arms", planted_arms()},
            {"rows", {{"sample", 64}, {"seed", 0}}},
            {"report",
             {{"baseline", {{"order", "raster"}, {"sink", "none"}}},
              {"ablate", {"order", "sink"}},
              {"contrasts", run.contrasts}}}}}};
}

// Writes manifest and rows; layers 2 and 4, steps 1 and 5, two heads, all with effects of their own
// that cancel in every contrast.
inline void write_planted(const std::filesystem::path& folder, const PlantedRun& run) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "manifest.json") << planted_manifest(run).dump();
  std::ofstream rows(folder / "fidelity.jsonl");
  std::mt19937_64 random(run.seed);
  std::normal_distribution<double> normal(0.0, run.noise);
  int cell = 0;
  for (int g = 0; g < run.generations; ++g) {
    const double own = 20.0 * normal(random);
    for (const auto& arm : planted_arms()) {
      const bool window = arm["factors"]["order"] == "window3d";
      const bool sink = arm["factors"]["sink"] == "both";
      const bool low = arm["density"] == 0.2;
      const double arms_own = normal(random);
      for (const int layer : {2, 4}) {
        for (const int step : {1, 5}) {
          for (const int head : {0, 1}) {
            const double recall = 0.7 + own + arms_own + (window ? run.window : 0.0) +
                                  (sink ? run.sink : 0.0) + (window && sink ? run.both : 0.0) +
                                  (low ? 0.0 : 0.1) + 0.01 * layer + 0.002 * step + 0.005 * head;
            nlohmann::json row = {{"schema", "raingauge/1"},
                                  {"cell", "c" + std::to_string(cell++)},
                                  {"capture", "clip" + std::to_string(g) + ".h5"},
                                  {"generation", "clip" + std::to_string(g)},
                                  {"record", layer * 10 + step},
                                  {"layer", layer},
                                  {"step", step},
                                  {"branch", "cond"},
                                  {"head", head},
                                  {"tokens", 8072},
                                  {"arm", arm["name"]},
                                  {"base_arm", "rf2"},
                                  {"plan", arm["name"]},
                                  {"method", "rainfusion2"},
                                  {"params", arm["params"]},
                                  {"factors", arm["factors"]},
                                  {"match", "density"},
                                  {"outcome", "ok"},
                                  {"reason", ""},
                                  {"nominal_density", arm["density"]},
                                  {"density_pairs", arm["density"]},
                                  {"density_blocks", arm["density"]},
                                  {"cell_rows", 1},
                                  {"metrics",
                                   {{"recall", {{"value", recall}}},
                                    {"rel_l2", {{"value", 1.0 - recall}}},
                                    {"mass_first_frame", {{"value", 0.1 * layer}}},
                                    {"block_similarity_q", {{"value", window ? 0.6 : 0.4}}},
                                    {"block_similarity_k", {{"value", window ? 0.7 : 0.5}}}}}};
            if (run.infeasible_low && sink && low) {
              row["outcome"] = "infeasible";
              row["reason"] = "forced blocks alone exceed the density";
              row["least_density"] = 0.27;
              row.erase("metrics");
            }
            run.change(row);
            rows << row.dump() << "\n";
          }
        }
      }
    }
  }
}

}  // namespace raingauge::testing_support
