// SPDX-License-Identifier: Apache-2.0
// SVG2, "semantic-aware permutation" (arXiv 2505.18875; released code svg/kmeans_utils.py): queries and
// keys of each head are grouped by k-means, apart from each other; a query cluster's attention to a key
// cluster is estimated from the two centroids, weighted by the key cluster's size; each query cluster
// keeps key clusters until the estimate passes p (the crossing one included), and at least a share of
// all key clusters. Every cluster is a block, so blocks vary in size and differ between heads.
//
// start: cold draws new centroids for every record and runs `iterations` of Lloyd; warm goes on from
// the step before with `warm_iterations` (steps must follow each other without a gap). In the released
// code of Wan both guidance branches share one set of centroids; here each branch has its own.
//
// Text makes no clusters: it is one block that sees and is seen by all; padding sees only itself. The
// paper's settings are 100 query and 500 key clusters; the scripts' are the presets. Arithmetic is fp32
// (the code rounds probabilities to bf16, whose steps near p = 0.9 are 0.004).
#include <algorithm>
#include <numeric>
#include <optional>

#include "data/random.h"
#include "methods/head_plans.h"
#include "methods/kernels/threads.h"
#include "methods/kmeans.h"
#include "methods/method.h"
#include "methods/svg2_clusters.h"

namespace raingauge {
namespace {

using nlohmann::json;
using svg2::Tokens;

// Centroids of every head after the last step.
struct Memory {
  std::vector<std::vector<float>> q, k;
};

struct Settings {
  std::int64_t q_clusters = 300, k_clusters = 1000;
  double p = 0.9, min_share = 0.1;
  std::optional<double> density;  // p is solved for it
  int iterations = 50, warm_iterations = 2;
  bool warm = false;
  std::uint64_t seed = 0;
};

class Svg2 : public Method {
 public:
  Svg2(const Settings& settings, const MethodOptions& options)
      : settings_(settings), options_(options) {}

  bool stateful() const override { return settings_.warm; }

  Plan plan(const RecordView& record, State& state) const override {
    const Segment& video = only_visual(record.info->segments);
    Tokens tokens(static_cast<std::size_t>(video.length));
    std::iota(tokens.begin(), tokens.end(), static_cast<std::int32_t>(video.start));
    const Memory* before = remembered(record, state);
    const auto q = clusters_of(record, record.q, tokens, 0, settings_.q_clusters,
                               before != nullptr ? before->q : std::vector<std::vector<float>>{});
    const auto k = clusters_of(record, record.k, tokens, 1, settings_.k_clusters,
                               before != nullptr ? before->k : std::vector<std::vector<float>>{});
    const svg2::Parts parts{tokens, tokens_of(record.info->segments, Role::text),
                            tokens_of(record.info->segments, Role::pad)};
    const svg2::Choice choice{settings_.p, settings_.min_share, settings_.density.has_value(),
                              settings_.density.value_or(1.0), options_.row_seed};
    std::vector<HeadPlan> heads(static_cast<std::size_t>(record.heads()));
    parallel_for(options_.threads, record.heads(), [&](std::int64_t head, int) {
      const auto h = static_cast<std::size_t>(head);
      heads[h] = svg2::choose_clusters(record, parts, q[h], k[h], choice);
    });
    Plan plan = join_heads(heads, record.tokens());
    if (settings_.density) plan.nominal_density = *settings_.density;
    plan.notes = {iterations_note("iterations_q", q), iterations_note("iterations_k", k)};
    if (settings_.warm) remember(q, k, state);
    return plan;
  }

 private:
  // Nothing in the method needs frames: one image is as good as a video.
  static const Segment& only_visual(const Segments& segments) {
    const Segment* found = nullptr;
    for (const auto& segment : segments) {
      if (!segment.visual()) continue;
      if (found != nullptr) {
        throw Unsupported("SVG2 clusters one video or image; this record has " +
                          describe(segments));
      }
      found = &segment;
    }
    if (found == nullptr) throw Unsupported("SVG2: no visual tokens in this record");
    return *found;
  }

  const Memory* remembered(const RecordView& record, const State& state) const {
    if (!settings_.warm || !state.memory.has_value()) return nullptr;
    if (record.info->site.step != state.last_step + 1) {
      throw InvalidPlan("svg2 with start: warm goes on from the step before; step " +
                        std::to_string(record.info->site.step) + " follows step " +
                        std::to_string(state.last_step) +
                        ". Select consecutive steps, or use start: cold");
    }
    return std::any_cast<Memory>(&state.memory);
  }

  static void remember(const std::vector<Clusters>& q, const std::vector<Clusters>& k,
                       State& state) {
    Memory memory;
    for (const auto& clusters : q) memory.q.push_back(clusters.centroids);
    for (const auto& clusters : k) memory.k.push_back(clusters.centroids);
    state.memory = std::move(memory);
  }

  std::vector<Clusters> clusters_of(const RecordView& record, const TensorView& x,
                                    const Tokens& tokens, std::uint64_t side, std::int64_t count,
                                    const std::vector<std::vector<float>>& start) const {
    std::vector<ClusterPoints> points;
    for (std::int64_t head = 0; head < record.heads(); ++head) {
      const auto number = record.info->heads.at(static_cast<std::size_t>(head));
      points.push_back(
          {x, head, tokens, hash_seed({settings_.seed, static_cast<std::uint64_t>(number), side})});
    }
    KMeansSpec spec;
    // More clusters than tokens would be empty ones.
    spec.clusters = std::min(count, static_cast<std::int64_t>(tokens.size()));
    spec.iterations = start.empty() ? settings_.iterations : settings_.warm_iterations;
    spec.threads = options_.threads;
    return kmeans(points, spec, start);
  }

  static PlanNote iterations_note(const char* name, const std::vector<Clusters>& clusters) {
    PlanNote note{name, {}, {}};
    for (const auto& head : clusters) note.numbers.push_back(head.iterations);
    return note;
  }

  Settings settings_;
  MethodOptions options_;
};

std::vector<ParamSpec> params() {
  const auto count = [](const char* name, int value, const char* help, double least) {
    return ParamSpec{.name = name,
                     .type = ParamType::integer,
                     .default_value = value,
                     .help = help,
                     .min = least,
                     .max = 1 << 20};
  };
  return {{.name = "preset",
           .type = ParamType::choice,
           .default_value = "wan",
           .help = "cluster counts of the 720p scripts, or of the paper",
           .choices = {"wan", "hunyuan", "paper"}},
          count("q_clusters", 300, "clusters of the queries of a head", 1),
          count("k_clusters", 1000, "clusters of the keys of a head", 1),
          {.name = "p",
           .type = ParamType::real,
           .default_value = 0.9,
           .help = "estimated mass to pass; solved for density where that is given",
           .min = 0.0,
           .max = 1.0,
           .min_open = true},
          {.name = "min_kc_ratio",
           .type = ParamType::real,
           .default_value = 0.1,
           .help = "share of the key clusters that every query cluster keeps whatever p",
           .min = 0.0,
           .max = 1.0},
          solved_density_param(),
          count("iterations", 50, "of k-means from drawn tokens, at most", 1),
          count("warm_iterations", 2, "of k-means from the centroids of the step before", 1),
          {.name = "start",
           .type = ParamType::choice,
           .default_value = "cold",
           .help = "cold: every record draws its centroids; warm: go on from the step before",
           .choices = {"cold", "warm"}},
          count("seed", 0, "of the tokens drawn as first centroids", 0)};
}

std::unique_ptr<Method> make(const json& given, const MethodOptions& options) {
  Settings settings;
  settings.q_clusters = given.at("q_clusters").get<std::int64_t>();
  settings.k_clusters = given.at("k_clusters").get<std::int64_t>();
  settings.p = given.at("p").get<double>();
  settings.min_share = given.at("min_kc_ratio").get<double>();
  settings.density = asked_density(given);
  settings.iterations = given.at("iterations").get<int>();
  settings.warm_iterations = given.at("warm_iterations").get<int>();
  settings.warm = given.at("start") == "warm";
  settings.seed = given.at("seed").get<std::uint64_t>();
  return std::make_unique<Svg2>(settings, options);
}

}  // namespace

MethodEntry svg2_method() {
  return {
      {"svg2",
       "k-means clusters of queries and of keys as blocks; key clusters by estimated mass",
       "Sparse VideoGen 2, arXiv 2505.18875, section 4; released svg/kmeans_utils.py",
       params(),
       {{"wan", {{"q_clusters", 300}, {"k_clusters", 1000}}},
        {"hunyuan", {{"q_clusters", 400}, {"k_clusters", 1000}}},
        {"paper", {{"q_clusters", 100}, {"k_clusters", 500}}}},
       "start: cold is the first call of the released code (50 iterations from drawn tokens); "
       "warm goes on from\nthe centroids of the step before, as every later call does, and needs "
       "consecutive steps. Presets are the\n720p scripts and the paper's counts. `density` "
       "solves p with min_kc_ratio fixed; that share\nof the key clusters is the least "
       "possible density. Arithmetic is fp32 throughout; the code rounds the\nestimate to bf16 "
       "before its cumulative sum."},
      make};
}

}  // namespace raingauge
