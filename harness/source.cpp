// SPDX-License-Identifier: Apache-2.0
#include "harness/source.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>

#include "data/capture.h"
#include "data/synthetic.h"
#include "harness/demo_capture.h"
#include "harness/experiment_parts.h"
#include "harness/results.h"
#ifdef RAINGAUGE_WITH_TORCH
#include "data/demo/full_block.h"
#endif

namespace raingauge {
namespace {

using nlohmann::json;

// Identity of a file without reading it: good enough to resume by, since results are never reused
// between folders.
std::string file_identity(const std::string& path) {
  namespace fs = std::filesystem;
  return cell_hash({{"path", fs::weakly_canonical(path).string()},
                    {"size", fs::file_size(path)},
                    {"time", fs::last_write_time(path).time_since_epoch().count()}});
}

class FileSource : public RecordSource {
 public:
  explicit FileSource(const std::string& path)
      : capture_(Capture::open(path)), identity_(file_identity(path)) {}

  const std::vector<RecordInfo>& records() const override { return capture_.records(); }

  std::unique_ptr<Record> load(const RecordInfo& record, const std::vector<int>& heads) override {
    return capture_.load(record, heads);
  }

  std::string content_id(const RecordInfo& record) override {
    if (!record.sha256_q.empty() && !record.sha256_k.empty() && !record.sha256_v.empty()) {
      return cell_hash({record.sha256_q, record.sha256_k, record.sha256_v, record.scale,
                        raingauge::describe(record.segments), record.generation, record.site.step,
                        record.site.layer, record.site.branch});
    }
    return cell_hash({identity_, record.number});
  }

  json describe() const override {
    const auto& info = capture_.info();
    return {{"kind", "capture"},
            {"path", info.path},
            {"generation", info.generation},
            {"model_id", info.model_id},
            {"pipeline", info.pipeline},
            {"records", capture_.records().size()},
            {"identity", identity_},
            {"warnings", capture_.warnings()}};
  }

 private:
  Capture capture_;
  std::string identity_;
};

class SyntheticSource : public RecordSource {
 public:
  SyntheticSource(const json& options, int threads)
      : options_(options),
        spec_(synthetic_spec(options)),
        records_(list_synthetic(spec_)),
        threads_(threads) {}

  const std::vector<RecordInfo>& records() const override { return records_; }

  std::unique_ptr<Record> load(const RecordInfo& record, const std::vector<int>& heads) override {
    const int per_generation = spec_.steps * spec_.layers;
    return make_synthetic_record(spec_, record.number / per_generation, record.site.step,
                                 record.site.layer, heads, threads_);
  }

  std::string content_id(const RecordInfo& record) override {
    return cell_hash({{"synthetic", options_}, {"record", record.number}});
  }

  json describe() const override {
    return {{"kind", "synthetic"}, {"spec", options_}, {"records", records_.size()}};
  }

 private:
  json options_;
  SyntheticSpec spec_;
  std::vector<RecordInfo> records_;
  int threads_;
};

#ifdef RAINGAUGE_WITH_TORCH
// One transformer block at full size. Its tensors live on the device from the first load on.
class BlockSource : public RecordSource {
 public:
  BlockSource(const json& options, const Device& device, int threads)
      : options_(options), device_(device), threads_(threads) {
    spec_.model = options.at("model").get<std::string>();
    spec_.grid = options.at("grid").get<std::vector<int>>();
    spec_.heads = options.at("heads").get<int>();
    spec_.seed = options.at("seed").get<std::uint64_t>();
    records_ = {demo::full_block_info(spec_)};
  }
  const std::vector<RecordInfo>& records() const override { return records_; }
  std::unique_ptr<Record> load(const RecordInfo&, const std::vector<int>& heads) override {
    return block().record(heads);
  }
  std::string content_id(const RecordInfo&) override {
    return cell_hash({{"dit_block", options_}, {"device", to_string(device_)}});
  }
  json describe() const override { return {{"kind", "dit_block"}, {"spec", options_}}; }
  Surroundings surroundings() override {
    return {"one transformer block of " + spec_.model + ", random weights, libtorch's operators",
            [this] { return block().surroundings_ms(); }, [this] { return block().whole_ms(); }};
  }

 private:
  const demo::FullBlock& block() {
    if (block_ == nullptr) {
      block_ = std::make_unique<demo::FullBlock>(spec_, device_, threads_);
    }
    return *block_;
  }
  json options_;
  demo::FullBlockSpec spec_;
  Device device_;
  int threads_;
  std::vector<RecordInfo> records_;
  std::unique_ptr<demo::FullBlock> block_;
};
#endif

std::unique_ptr<RecordSource> make_block_source(const json& options, const Device& device,
                                                int threads) {
#ifdef RAINGAUGE_WITH_TORCH
  return std::make_unique<BlockSource>(options, device, threads);
#else
  (void)options, (void)device, (void)threads;
  throw Unsupported("captures: dit_block needs libtorch, which this build lacks");
#endif
}

// What a dry run sees of clips that are not recorded yet.
class ListedSource : public RecordSource {
 public:
  explicit ListedSource(std::vector<RecordInfo> records) : records_(std::move(records)) {}
  const std::vector<RecordInfo>& records() const override { return records_; }
  std::unique_ptr<Record> load(const RecordInfo& record, const std::vector<int>&) override {
    throw Error("record " + std::to_string(record.number) + " is listed, not recorded");
  }
  std::string content_id(const RecordInfo& record) override {
    return std::to_string(record.number);
  }
  json describe() const override { return {{"kind", "listed"}, {"records", records_.size()}}; }

 private:
  std::vector<RecordInfo> records_;
};

bool selected(const RecordInfo& record, const Selection& selection) {
  return allowed(selection.layers, record.site.layer) &&
         allowed(selection.steps, record.site.step) &&
         allowed(selection.branches, record.site.branch) &&
         allowed(selection.experts, record.site.expert);
}

std::vector<int> selected_heads(const RecordInfo& record, const Selection& selection) {
  std::vector<int> heads;
  for (const int head : record.heads) {
    if (allowed(selection.heads, head)) heads.push_back(head);
  }
  return heads;
}

template <typename T>
std::string listing(const std::set<T>& values) {
  std::string text;
  for (const auto& value : values) {
    if constexpr (std::is_same_v<T, std::string>) {
      text += (text.empty() ? "" : ", ") + value;
    } else {
      text += (text.empty() ? "" : ", ") + std::to_string(value);
    }
  }
  return text;
}

[[noreturn]] void nothing_matches(const std::vector<std::unique_ptr<RecordSource>>& sources) {
  std::set<int> layers, steps, heads;
  std::set<std::string> branches;
  for (const auto& source : sources) {
    for (const auto& record : source->records()) {
      layers.insert(record.site.layer);
      steps.insert(record.site.step);
      branches.insert(record.site.branch);
      heads.insert(record.heads.begin(), record.heads.end());
    }
  }
  throw NothingMatches("select: nothing matches. The captures hold layers " + listing(layers) +
                       "; steps " + listing(steps) + "; branches " + listing(branches) +
                       "; heads " + listing(heads));
}

}  // namespace

std::unique_ptr<RecordSource> open_capture_source(const std::string& path) {
  return std::make_unique<FileSource>(path);
}

std::unique_ptr<RecordSource> make_synthetic_source(const json& options, int threads) {
  return std::make_unique<SyntheticSource>(options, threads);
}

std::vector<std::unique_ptr<RecordSource>> open_sources(const Experiment& experiment,
                                                        const Device& device, int threads,
                                                        bool list_only, const StatusFn& status) {
  std::vector<std::unique_ptr<RecordSource>> sources;
  for (const auto& capture : experiment.captures) {
    switch (capture.kind) {
      case CaptureSource::Kind::files:
        for (const auto& file : capture.files)
          sources.push_back(open_capture_source(file.string()));
        break;
      case CaptureSource::Kind::synthetic:
        sources.push_back(make_synthetic_source(capture.options, threads));
        break;
      case CaptureSource::Kind::dit_block:
        sources.push_back(make_block_source(capture.options, device, threads));
        break;
      case CaptureSource::Kind::demo:
        if (list_only) {
          sources.push_back(std::make_unique<ListedSource>(
              list_demo_records(capture.options, experiment.select)));
          break;
        }
        for (const auto& file :
             demo_captures(capture.options, experiment.select, device, threads, status)) {
          sources.push_back(open_capture_source(file.string()));
        }
        break;
    }
  }
  return sources;
}

std::vector<Sequence> select_sequences(const std::vector<std::unique_ptr<RecordSource>>& sources,
                                       const Selection& selection) {
  using Key = std::tuple<std::string, std::string, int, std::string, int>;
  std::vector<Key> order;
  std::map<Key, Sequence> sequences;
  for (const auto& source : sources) {
    for (const auto& record : source->records()) {
      const auto heads = selected_heads(record, selection);
      if (!selected(record, selection) || heads.empty()) continue;
      const Key key{record.generation, record.site.expert, record.site.layer, record.site.branch,
                    record.site.batch_item};
      if (!sequences.contains(key)) order.push_back(key);
      sequences[key].records.push_back({source.get(), &record, heads});
    }
  }
  if (order.empty()) nothing_matches(sources);
  std::vector<Sequence> result;
  for (const auto& key : order) {
    auto& records = sequences[key].records;
    std::stable_sort(records.begin(), records.end(), [](const RecordRef& a, const RecordRef& b) {
      return a.info->site.step < b.info->site.step;
    });
    result.push_back(std::move(sequences[key]));
  }
  return result;
}

}  // namespace raingauge
