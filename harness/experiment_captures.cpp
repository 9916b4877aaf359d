// SPDX-License-Identifier: Apache-2.0
// `captures`: the demo DiT, synthetic records, or files named by globs.
#include <glob.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "harness/experiment_parts.h"
#include "harness/experiment_section.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr const char* kAllowed =
    "demo, {demo: {clips, mode, grid, steps, seed}}, {synthetic: {…}}, {dit_block: {model, seed, "
    "grid, heads}}, or a glob of .h5 files";

CaptureSource demo_source(const YamlDocument& document, const std::string& path) {
  const Section section(document, path, {"clips", "mode", "grid", "steps", "seed"});
  CaptureSource source;
  source.kind = CaptureSource::Kind::demo;
  source.options = {{"clips", section.integer("clips", 8, 1)},
                    {"mode", section.choice("mode", "image_to_video",
                                            {"image_to_video", "text_to_video", "both"})},
                    {"grid", section.sizes("grid", {21, 16, 24})},
                    {"steps", section.integer("steps", 8, 1)},
                    {"seed", section.seed("seed", 0)}};
  return source;
}

CaptureSource block_source(const YamlDocument& document, const std::string& path) {
  const Section section(document, path, {"model", "seed", "grid", "heads"});
  section.require("model", "the model whose transformer block is run");
  CaptureSource source;
  source.kind = CaptureSource::Kind::dit_block;
  source.options = {{"model", section.text("model", "")},
                    {"seed", section.seed("seed", 0)},
                    {"heads", section.integer("heads", 0, 0)},
                    {"grid", json::array()}};
  if (section.find("grid") != nullptr) source.options["grid"] = section.sizes("grid", {1, 1, 1});
  return source;
}

// A file of that very name comes first: its path may hold glob characters. Sorted.
std::vector<std::filesystem::path> expand_glob(const std::filesystem::path& pattern) {
  if (std::filesystem::is_regular_file(pattern)) return {pattern};
  glob_t found{};
  std::vector<std::filesystem::path> files;
  if (glob(pattern.c_str(), GLOB_BRACE | GLOB_TILDE, nullptr, &found) == 0) {
    for (std::size_t i = 0; i < found.gl_pathc; ++i) {
      if (std::filesystem::is_regular_file(found.gl_pathv[i]))
        files.emplace_back(found.gl_pathv[i]);
    }
  }
  globfree(&found);
  std::sort(files.begin(), files.end());
  return files;
}

CaptureSource file_source(const YamlDocument& document, const std::string& path,
                          const std::filesystem::path& folder, const std::string& pattern) {
  CaptureSource source;
  const bool absolute = pattern.front() == '/' || pattern.front() == '~';
  const std::filesystem::path full = absolute ? std::filesystem::path(pattern) : folder / pattern;
  source.files = expand_glob(full);
  if (source.files.empty()) {
    const std::string typo = nearest_name(pattern, {"demo", "synthetic", "dit_block"});
    document.fail(path, "no file matches '" + full.string() + "'" +
                            (typo.empty() ? "" : " (did you mean '" + typo + "'?)") +
                            "; allowed: " + kAllowed + ", relative to the YAML file");
  }
  return source;
}

CaptureSource read_source(const YamlDocument& document, const std::string& path,
                          const std::filesystem::path& folder) {
  const json& value = *document.find(path);
  if (value == "demo") return demo_source(document, path + "/demo");
  if (value.is_string() && value != "") {
    return file_source(document, path, folder, value.get<std::string>());
  }
  if (!value.is_object() || value.size() != 1) {
    document.fail(path, "got " + value.dump() + ", allowed: " + kAllowed);
  }
  const std::string kind = value.begin().key();
  check_name(document, path + "/" + kind, "kind of capture", kind,
             {"demo", "synthetic", "dit_block"});
  if (kind == "dit_block") return block_source(document, path + "/dit_block");
  if (kind == "demo") return demo_source(document, path + "/demo");
  CaptureSource source;
  source.kind = CaptureSource::Kind::synthetic;
  source.options = read_synthetic(document, path + "/synthetic");
  return source;
}

// A file counts once: two globs that meet would weigh its generation twice.
void check_twice(const YamlDocument& document, const std::vector<CaptureSource>& sources,
                 const std::vector<std::string>& paths) {
  std::map<std::string, std::size_t> seen;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    for (const auto& file : sources[i].files) {
      const auto [first, is_new] =
          seen.emplace(std::filesystem::weakly_canonical(file).string(), i);
      if (!is_new) {
        document.fail(paths[i], "file '" + file.string() + "' is also matched by " +
                                    dotted_path(paths[first->second]));
      }
    }
  }
}

}  // namespace

std::vector<CaptureSource> read_captures(const YamlDocument& document,
                                         const std::filesystem::path& folder) {
  const json* value = document.find("/captures");
  const bool list = value != nullptr && value->is_array();
  if (value == nullptr || value->is_null() || (list && value->empty())) {
    document.fail(value == nullptr ? "" : "/captures",
                  std::string("key 'captures': expected at least one of: ") + kAllowed);
  }
  std::vector<std::string> paths;
  if (!list) paths.emplace_back("/captures");
  for (std::size_t i = 0; list && i < value->size(); ++i) {
    paths.push_back("/captures/" + std::to_string(i));
  }
  std::vector<CaptureSource> sources;
  for (const auto& path : paths) sources.push_back(read_source(document, path, folder));
  check_twice(document, sources, paths);
  return sources;
}

}  // namespace raingauge
