// SPDX-License-Identifier: Apache-2.0
// The capture reader: lists records without touching tensors, then maps or reads the heads asked
// for.
#include "data/capture.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <new>

#include "data/capture_detail.h"
#include "data/error.h"
#include "data/finite.h"
#include "data/isolated.h"
#include "data/mapped_file.h"

namespace raingauge {
namespace {

using hdf5::TensorDataset;

// Indices of the wanted original heads among the stored ones.
std::vector<std::int64_t> head_indices(const RecordInfo& info, std::span<const int> wanted,
                                       const std::string& where) {
  std::vector<std::int64_t> indices;
  if (wanted.empty()) {
    for (std::int64_t i = 0; i < info.head_count(); ++i) indices.push_back(i);
    return indices;
  }
  for (const int head : wanted) {
    const auto found = std::find(info.heads.begin(), info.heads.end(), head);
    if (found == info.heads.end()) {
      std::string stored;
      for (const int h : info.heads) stored += (stored.empty() ? "" : ", ") + std::to_string(h);
      throw Error(where + ": head " + std::to_string(head) + " is not stored; stored are " +
                  stored);
    }
    indices.push_back(found - info.heads.begin());
  }
  return indices;
}

// Distance between consecutive indices when it is the same everywhere and positive.
std::optional<std::int64_t> even_step(const std::vector<std::int64_t>& indices) {
  if (indices.size() < 2) return 1;
  const std::int64_t step = indices[1] - indices[0];
  for (std::size_t i = 1; i < indices.size(); ++i) {
    if (indices[i] - indices[i - 1] != step || step <= 0) return std::nullopt;
  }
  return step;
}

std::unique_ptr<SharedBuffer> allocate(std::int64_t bytes, const std::string& where) {
  try {
    return std::make_unique<SharedBuffer>(bytes);
  } catch (const std::bad_alloc&) {
    throw Error(where + ": " + std::to_string(bytes) +
                " bytes do not fit into memory; load fewer heads at a time");
  }
}

void check_finite(const TensorView& view, const RecordInfo& info, const std::string& where) {
  for (std::int64_t h = 0; h < view.heads; ++h) {
    const std::int64_t at =
        first_nonfinite(view.row(h, 0), view.dtype, view.tokens * view.head_dim);
    if (at < 0) continue;
    throw NotFinite(where + ": head " + std::to_string(info.heads[static_cast<std::size_t>(h)]) +
                    ", token " + std::to_string(at / view.head_dim) + ", channel " +
                    std::to_string(at % view.head_dim) +
                    " is NaN or Inf; record the capture again, or allow non-finite values");
  }
}

class LoadedRecord : public Record {
 public:
  const RecordInfo& info() const override { return info_; }
  RecordView view() const override {
    return {&info_, q_, k_, v_, key_valid_.empty() ? nullptr : key_valid_.data()};
  }

  RecordInfo info_;
  TensorView q_, k_, v_;
  std::vector<std::uint8_t> key_valid_;
  std::shared_ptr<const MappedFile> mapping_;
  std::vector<std::unique_ptr<SharedBuffer>> buffers_;
};

}  // namespace

struct Capture::File {
  CaptureInfo info;
  OpenOptions options;
  hdf5::Handle file;
  std::int64_t size = 0;
  std::vector<RecordInfo> records;
  std::vector<std::string> warnings;
  std::shared_ptr<const MappedFile> mapping;  // made by the first record that is mapped

  std::string where(const RecordInfo& record) const {
    return info.path + ": /records/" + hdf5::record_name(record.number);
  }
  hdf5::Handle open_record(const RecordInfo& record) const {
    const hdf5::Handle group = hdf5::open_group(file.get(), "records", info.path + ": /records");
    return hdf5::open_group(group.get(), hdf5::record_name(record.number), where(record));
  }

  // Attributes, schedule and records of the file at `path`.
  void read_metadata(const std::string& path);
  void list_records();
  // Opens everything that later calls will open; what crashes the library crashes it here.
  void touch_all() const;
  TensorView tensor(hid_t record, const char* name, const std::vector<std::int64_t>& heads,
                    LoadedRecord& owner);
};

void Capture::File::read_metadata(const std::string& path) {
  file = hdf5::open_file(path);
  size = static_cast<std::int64_t>(std::filesystem::file_size(path));
  info = hdf5::read_capture_info(file.get(), path);
  if (hdf5::has_link(file.get(), "schedule")) {
    const std::string place = path + ": /schedule";
    const hdf5::Handle schedule = hdf5::open_group(file.get(), "schedule", place);
    info.timesteps = hdf5::read_reals(schedule.get(), "timesteps", place, size);
    info.sigmas = hdf5::read_reals(schedule.get(), "sigmas", place, size);
  }
  list_records();
}

// An interrupted capture keeps the records that are whole: the writer gives a record its attributes
// after its data, so one without them is the one that was being written.
void Capture::File::list_records() {
  const std::string place = info.path + ": /records";
  if (!info.complete) {
    warnings.push_back(info.path +
                       ": `complete` is not set: the capture was interrupted; only whole records "
                       "are listed");
  }
  if (!hdf5::has_link(file.get(), "records")) {
    if (!info.complete) return;
    hdf5::fail(place, "group is missing: the capture holds no records");
  }
  const hdf5::Handle group = hdf5::open_group(file.get(), "records", place);
  for (const std::string& name : hdf5::link_names(group.get(), place)) {
    try {
      records.push_back(hdf5::read_record_info(group.get(), name, info, size));
    } catch (const Error& error) {
      if (info.complete) throw;
      warnings.push_back(std::string(error.what()) + "; this record is left out");
    }
  }
}

void Capture::File::touch_all() const {
  for (const RecordInfo& record : records) {
    const hdf5::Handle group = open_record(record);
    hdf5::read_key_valid(group.get(), record, size);
  }
  if (!hdf5::has_link(file.get(), "frames")) return;
  const std::string place = info.path + ": /frames";
  const hdf5::Handle group = hdf5::open_group(file.get(), "frames", place);
  for (const std::string& arm : hdf5::link_names(group.get(), place)) {
    hdf5::open_bytes(group.get(), arm, place + "/" + arm, size);
  }
}

// The wanted heads of one dataset: in place where the file holds them as memory does.
TensorView Capture::File::tensor(hid_t record, const char* name,
                                 const std::vector<std::int64_t>& heads, LoadedRecord& owner) {
  const std::string place = where(owner.info_);
  const TensorDataset source = hdf5::open_tensor(record, name, place, size);
  const RecordInfo& known = owner.info_;
  if (source.tokens != known.tokens || source.head_dim != known.head_dim ||
      source.dtype != known.dtype ||
      *std::max_element(heads.begin(), heads.end()) >= source.heads) {
    hdf5::fail(source.where, "has changed since the capture was opened; open it again");
  }
  const auto count = static_cast<std::int64_t>(heads.size());
  const std::int64_t head_bytes =
      source.head_elements() * static_cast<std::int64_t>(size_of(source.dtype));
  const auto step = even_step(heads);
  if (options.map && source.mappable && step) {
    if (!mapping) mapping = std::make_shared<const MappedFile>(info.path);
    if (mapping->size() < *source.address + source.heads * head_bytes) {
      hdf5::fail(source.where, "lies beyond the end of the file, which is truncated");
    }
    owner.mapping_ = mapping;
    const std::byte* first = mapping->data() + *source.address + heads.front() * head_bytes;
    TensorView view = contiguous_view(first, source.dtype, count, source.tokens, source.head_dim);
    view.head_stride *= *step;
    return view;
  }
  auto buffer = allocate(count * head_bytes, source.where);
  hdf5::read_heads(source, heads, info.path, *buffer);
  const TensorView view =
      contiguous_view(buffer->data(), source.dtype, count, source.tokens, source.head_dim);
  owner.buffers_.push_back(std::move(buffer));
  return view;
}

Capture::Capture(std::unique_ptr<File> file) : file_(std::move(file)) {}
Capture::Capture(Capture&&) noexcept = default;
Capture& Capture::operator=(Capture&&) noexcept = default;
Capture::~Capture() = default;

Capture Capture::open(const std::string& path, const OpenOptions& options) {
  const hdf5::Session session;
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  const Trial trial = try_isolated(
      [&] {
        File tried;
        tried.read_metadata(path);
        tried.touch_all();
      },
      metadata_seconds(error ? 0 : static_cast<std::int64_t>(bytes)), false);
  check_trial(trial, path);
  auto opened = std::make_unique<File>();
  opened->options = options;
  opened->read_metadata(path);
  return Capture(std::move(opened));
}

const CaptureInfo& Capture::info() const { return file_->info; }
const std::vector<RecordInfo>& Capture::records() const { return file_->records; }
const std::vector<std::string>& Capture::warnings() const { return file_->warnings; }

const RecordInfo& Capture::record(int number) const {
  for (const RecordInfo& info : file_->records) {
    if (info.number == number) return info;
  }
  const auto& all = file_->records;
  throw Error(file_->info.path + ": there is no record " + std::to_string(number) +
              (all.empty() ? "; the capture holds none"
                           : "; the capture holds " + std::to_string(all.size()) + ", from " +
                                 std::to_string(all.front().number) + " to " +
                                 std::to_string(all.back().number)));
}

std::unique_ptr<Record> Capture::load(const RecordInfo& record, std::span<const int> heads) const {
  const std::string place = file_->where(record);
  auto loaded = std::make_unique<LoadedRecord>();
  loaded->info_ = this->record(record.number);
  const auto indices = head_indices(loaded->info_, heads, place);
  {
    const hdf5::Session session;
    const hdf5::Handle group = file_->open_record(record);
    loaded->key_valid_ = hdf5::read_key_valid(group.get(), loaded->info_, file_->size);
    loaded->q_ = file_->tensor(group.get(), "q", indices, *loaded);
    loaded->k_ = file_->tensor(group.get(), "k", indices, *loaded);
    loaded->v_ = file_->tensor(group.get(), "v", indices, *loaded);
  }
  if (!heads.empty()) loaded->info_.heads.assign(heads.begin(), heads.end());
  if (!file_->options.allow_nonfinite) {
    check_finite(loaded->q_, loaded->info_, place + "/q");
    check_finite(loaded->k_, loaded->info_, place + "/k");
    check_finite(loaded->v_, loaded->info_, place + "/v");
  }
  return loaded;
}

std::vector<float> Capture::load_output(const RecordInfo& record,
                                        std::span<const int> heads) const {
  const hdf5::Session session;
  const RecordInfo& info = this->record(record.number);
  const std::string place = file_->where(info);
  if (!info.has_output) throw Error(place + ": has no dataset `o`, the model's own output");
  const auto indices = head_indices(info, heads, place);
  const hdf5::Handle group = file_->open_record(info);
  const TensorDataset source = hdf5::open_tensor(group.get(), "o", place, file_->size);
  const auto elements = static_cast<std::size_t>(source.head_elements());
  const std::size_t bytes = elements * size_of(source.dtype);
  const auto bits = allocate(static_cast<std::int64_t>(bytes * indices.size()), source.where);
  hdf5::read_heads(source, indices, file_->info.path, *bits);
  std::vector<float> output(indices.size() * elements);
  convert_to_float(bits->data(), source.dtype, output.data(), output.size());
  return output;
}

RecordStorage Capture::storage_of(const RecordInfo& record) const {
  const hdf5::Session session;
  const std::string place = file_->where(record);
  const hdf5::Handle group = file_->open_record(record);
  RecordStorage storage;
  for (const char* name : {"q", "k", "v"}) {
    const TensorDataset tensor = hdf5::open_tensor(group.get(), name, place, file_->size);
    storage.stored_bytes += static_cast<std::int64_t>(H5Dget_storage_size(tensor.dataset.get()));
    if (!tensor.chunked || storage.chunked) continue;
    storage.chunked = true;
    const hdf5::Handle creation(H5Dget_create_plist(tensor.dataset.get()));
    hsize_t chunk[3] = {};
    if (H5Pget_chunk(creation.get(), 3, chunk) != 3) {
      hdf5::fail(tensor.where, "its chunks cannot be read");
    }
    std::copy_n(chunk, 3, storage.chunk.begin());
  }
  if (hdf5::has_link(group.get(), "o")) {
    storage.output_dtype = hdf5::open_tensor(group.get(), "o", place, file_->size).dtype;
  }
  return storage;
}

std::vector<std::string> Capture::frame_arms() const {
  const hdf5::Session session;
  if (!hdf5::has_link(file_->file.get(), "frames")) return {};
  const std::string place = file_->info.path + ": /frames";
  const hdf5::Handle group = hdf5::open_group(file_->file.get(), "frames", place);
  return hdf5::link_names(group.get(), place);
}

Frames Capture::read_frames(const std::string& arm) const {
  const hdf5::Session session;
  const auto arms = frame_arms();
  const std::string place = file_->info.path + ": /frames/" + arm;
  if (std::find(arms.begin(), arms.end(), arm) == arms.end()) {
    std::string stored;
    for (const std::string& name : arms) stored += (stored.empty() ? "" : ", ") + name;
    throw Error(place +
                ": there are no such frames; stored are: " + (stored.empty() ? "none" : stored));
  }
  const hdf5::Handle group = hdf5::open_group(file_->file.get(), "frames", place);
  const hdf5::ByteDataset source = hdf5::open_bytes(group.get(), arm, place, file_->size);
  const auto bytes = source.dims[0] * source.dims[1] * source.dims[2] * source.dims[3];
  const auto buffer = allocate(bytes, place);
  const auto read = [&] {
    hdf5::check_status(H5Dread(source.dataset.get(), H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL,
                               H5P_DEFAULT, buffer->data()),
                       place, "cannot be read; the file is damaged");
  };
  const Trial trial = try_isolated(read, metadata_seconds(bytes), true);
  check_trial(trial, place);
  if (trial == Trial::threw) read();
  const auto* first = reinterpret_cast<const std::uint8_t*>(buffer->data());
  return {source.dims[0], source.dims[1], source.dims[2],
          std::vector<std::uint8_t>(first, first + bytes)};
}

}  // namespace raingauge
