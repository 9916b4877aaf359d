// SPDX-License-Identifier: Apache-2.0
// Where records come from: capture files, the demo DiT (recorded into a cached capture first), or
// planted synthetic records. The runner sees sequences of records, steps ascending.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/error.h"
#include "data/record.h"
#include "harness/experiment.h"

namespace raingauge {

// What stands around the attention of a record in its model, to be timed beside it: milliseconds of one
// run, of everything but attention and of the whole with libtorch's dense attention inside.
struct Surroundings {
  std::string what;  // empty: nothing is known of them
  std::function<double()> rest_ms, whole_ms;
};

class RecordSource {
 public:
  virtual ~RecordSource() = default;
  virtual const std::vector<RecordInfo>& records() const = 0;
  // `heads`: original head numbers, empty = all.
  virtual std::unique_ptr<Record> load(const RecordInfo& record, const std::vector<int>& heads) = 0;
  // Hash of what the record's tensors are: part of every cell.
  virtual std::string content_id(const RecordInfo& record) = 0;
  virtual nlohmann::json describe() const = 0;        // for the manifest
  virtual Surroundings surroundings() { return {}; }  // of every record
};

// An empty list of a selection allows everything.
template <typename T>
bool allowed(const std::vector<T>& wanted, const T& value) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}

struct RecordRef {
  RecordSource* source = nullptr;
  const RecordInfo* info = nullptr;
  std::vector<int> heads;  // original numbers that take part
};

// Records of one (generation, expert, layer, branch, batch item): the unit of a method's state.
struct Sequence {
  std::vector<RecordRef> records;  // steps ascending
};

using StatusFn = std::function<void(const std::string& message)>;

// Opens files, lists synthetic records, records demo captures that the cache lacks. `list_only`: demo
// clips are not recorded, only listed (their records cannot be loaded).
std::vector<std::unique_ptr<RecordSource>> open_sources(const Experiment& experiment,
                                                        const Device& device, int threads,
                                                        bool list_only, const StatusFn& status);

std::unique_ptr<RecordSource> open_capture_source(const std::string& path);
std::unique_ptr<RecordSource> make_synthetic_source(const nlohmann::json& options, int threads);

// The selection leaves no record: exit code 3.
class NothingMatches : public Error {
 public:
  using Error::Error;
};

// What the selection leaves. Throws NothingMatches naming what there is when nothing matches.
std::vector<Sequence> select_sequences(const std::vector<std::unique_ptr<RecordSource>>& sources,
                                       const Selection& selection);

}  // namespace raingauge
