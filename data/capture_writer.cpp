// SPDX-License-Identifier: Apache-2.0
// The capture writer. A record gets its data first, its attributes next, and the file is flushed
// after each: whatever interrupts the writer, a record with attributes is whole.
#include "data/capture_writer.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <utility>

#include "data/capture_detail.h"
#include "data/error.h"
#include "data/finite.h"
#include "data/sha256.h"

namespace raingauge {
namespace {

using hdf5::Handle;
using hdf5::TensorDataset;

constexpr const char* kNoSpace = "cannot be written; is there space left on the device?";

// A tensor of the record being written.
struct Stream {
  TensorDataset dataset;
  Sha256 hash;
};

// What the reader would refuse must not be written.
void check_info(const RecordInfo& info, const std::string& where) {
  if (info.number < 0 || info.number > 999999) {
    throw Error(where + ": record number " + std::to_string(info.number) +
                "; allowed are 0 to 999999");
  }
  if (info.heads.empty() || info.tokens < 1 || info.head_dim < 1) {
    throw Error(where + ": " + std::to_string(info.heads.size()) + " heads, " +
                std::to_string(info.tokens) + " tokens, head_dim " + std::to_string(info.head_dim) +
                "; all must be positive");
  }
  const std::set<int> heads(info.heads.begin(), info.heads.end());
  if (heads.size() != info.heads.size() || *heads.begin() < 0 ||
      (info.heads_total > 0 && *heads.rbegin() >= info.heads_total)) {
    throw Error(where + ": head numbers must be distinct, not negative and below heads_total");
  }
  if (!(std::isfinite(info.scale) && info.scale > 0.0)) {
    throw Error(where + ": scale " + std::to_string(info.scale) +
                "; it must be finite and positive");
  }
  if (info.site.step < 0 || info.site.layer < 0 || info.site.batch_item < 0) {
    throw Error(where + ": step, layer and batch_item must not be negative");
  }
  check_segments(info.segments, info.tokens, where + "/segments");
}

void check_space(const std::string& path, std::int64_t bytes, const std::string& where) {
  std::error_code error;
  const auto folder = std::filesystem::absolute(path, error).parent_path();
  const auto space = std::filesystem::space(folder, error);
  if (error || space.available == static_cast<std::uintmax_t>(-1)) return;  // ask by writing
  if (space.available < static_cast<std::uintmax_t>(bytes)) {
    throw Error(where + ": needs " + std::to_string(bytes) + " bytes, but " + folder.string() +
                " has " + std::to_string(space.available) +
                " left; free space, choose another folder or record fewer heads");
  }
}

// One head in the dtype of its dataset, packed. Returns a pointer into the view or into `buffer`.
const void* pack_head(const TensorView& view, const RecordInfo& info, const TensorDataset& target,
                      std::vector<std::byte>& buffer) {
  const DType dtype = target.dtype;
  if (view.device.kind != DeviceKind::cpu || view.heads != 1 || view.tokens != info.tokens ||
      view.head_dim != info.head_dim) {
    throw Error(target.where + ": got a view [" + std::to_string(view.heads) + ", " +
                std::to_string(view.tokens) + ", " + std::to_string(view.head_dim) + "] on " +
                to_string(view.device) + "; needed is [1, " + std::to_string(info.tokens) + ", " +
                std::to_string(info.head_dim) + "] on cpu");
  }
  if (view.dtype == dtype && view.token_stride == view.head_dim) return view.data;
  const auto row = static_cast<std::size_t>(info.head_dim);
  buffer.resize(static_cast<std::size_t>(info.tokens) * row * size_of(dtype));
  std::vector<float> values(row);
  for (std::int64_t t = 0; t < info.tokens; ++t) {
    std::byte* packed = buffer.data() + static_cast<std::size_t>(t) * row * size_of(dtype);
    if (view.dtype == dtype) {
      const auto* bytes = static_cast<const std::byte*>(view.row(0, t));
      std::copy_n(bytes, row * size_of(dtype), packed);
      continue;
    }
    convert_to_float(view.row(0, t), view.dtype, values.data(), row);
    convert_from_float(values.data(), packed, dtype, row);
  }
  return buffer.data();
}

}  // namespace

struct CaptureWriter::State {
  std::string path;
  CaptureWriteOptions options;
  Handle file, records;
  // The record in progress.
  Handle record;
  RecordInfo info;
  std::string where;
  std::vector<Stream> streams;  // q, k, v and o when there is one
  std::int64_t heads_written = 0;
  std::vector<std::byte> buffer;

  void write_stream_head(Stream& stream, const TensorView& view);
  void flush() { hdf5::check_status(H5Fflush(file.get(), H5F_SCOPE_LOCAL), path, kNoSpace); }
  void need_record(bool open, const char* action) const {
    if (static_cast<bool>(record) == open) return;
    throw Error(path + ": " + action +
                (open ? " needs a record in progress; call begin_record() first"
                      : " while a record is in progress; call end_record() first"));
  }
};

void CaptureWriter::State::write_stream_head(Stream& stream, const TensorView& view) {
  const std::string& place = stream.dataset.where;
  const void* data = pack_head(view, info, stream.dataset, buffer);
  const DType dtype = stream.dataset.dtype;
  const std::int64_t elements = info.tokens * info.head_dim;
  const std::int64_t bad = options.allow_nonfinite ? -1 : first_nonfinite(data, dtype, elements);
  if (bad >= 0) {
    throw NotFinite(place + ": head " +
                    std::to_string(info.heads[static_cast<std::size_t>(heads_written)]) +
                    ", token " + std::to_string(bad / info.head_dim) + ", channel " +
                    std::to_string(bad % info.head_dim) + " is NaN or Inf as " +
                    std::string(name_of(dtype)) + "; it is not written");
  }
  hdf5::write_head(stream.dataset, heads_written, data);
  stream.hash.update(data, static_cast<std::size_t>(elements) * size_of(dtype));
}

CaptureWriter::CaptureWriter(const std::string& path, const CaptureInfo& info,
                             const CaptureWriteOptions& options)
    : state_(std::make_unique<State>()) {
  const hdf5::Session session;
  state_->path = path;
  state_->options = options;
  if (std::filesystem::exists(path) && !options.overwrite) {
    throw Error(path + ": exists already; choose another name or ask to overwrite it");
  }
  const Handle access = hdf5::check(H5Pcreate(H5P_FILE_ACCESS), path, "cannot be set up");
  // Tensors start on pages, so that they can be mapped.
  H5Pset_alignment(access.get(), 1 << 16, 4096);
  state_->file =
      hdf5::check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), path,
                  "cannot be created; do the folder and the permission to write exist?");
  hdf5::write_capture_info(state_->file.get(), info, path);
  state_->records =
      hdf5::check(H5Gcreate2(state_->file.get(), "records", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                  path, "group `records` cannot be created");
  state_->flush();
}

CaptureWriter::CaptureWriter(CaptureWriter&&) noexcept = default;
CaptureWriter& CaptureWriter::operator=(CaptureWriter&&) noexcept = default;

CaptureWriter::~CaptureWriter() {
  const hdf5::Session session;  // closing handles may fail without a word: the file is interrupted
  state_.reset();
}

void CaptureWriter::set_schedule(std::span<const double> timesteps,
                                 std::span<const double> sigmas) {
  const hdf5::Session session;
  const std::string place = state_->path + ": /schedule";
  const hid_t file = state_->file.get();
  if (hdf5::has_link(file, "schedule")) H5Ldelete(file, "schedule", H5P_DEFAULT);
  const Handle group = hdf5::check(
      H5Gcreate2(file, "schedule", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), place, kNoSpace);
  for (const auto& [name, values] : {std::pair{"timesteps", timesteps}, {"sigmas", sigmas}}) {
    if (values.empty()) continue;
    const hsize_t dims[1] = {values.size()};
    const Handle space = hdf5::check(H5Screate_simple(1, dims, nullptr), place, kNoSpace);
    const Handle dataset = hdf5::check(H5Dcreate2(group.get(), name, H5T_IEEE_F64LE, space.get(),
                                                  H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                       place, kNoSpace);
    hdf5::check_status(
        H5Dwrite(dataset.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
        place, kNoSpace);
  }
}

void CaptureWriter::begin_record(const RecordInfo& info, std::span<const std::uint8_t> key_valid,
                                 std::optional<DType> output_dtype) {
  const hdf5::Session session;
  State& s = *state_;
  s.need_record(false, "begin_record()");
  const std::string name = hdf5::record_name(info.number);
  s.where = s.path + ": /records/" + name;
  check_info(info, s.where);
  if (!key_valid.empty() && static_cast<std::int64_t>(key_valid.size()) != info.tokens) {
    throw Error(s.where + "/key_valid: " + std::to_string(key_valid.size()) + " elements for " +
                std::to_string(info.tokens) + " tokens");
  }
  if (hdf5::has_link(s.records.get(), name)) throw Error(s.where + ": is written already");
  std::vector<std::pair<const char*, DType>> tensors{
      {"q", info.dtype}, {"k", info.dtype}, {"v", info.dtype}};
  if (info.has_output) tensors.emplace_back("o", output_dtype.value_or(info.dtype));
  std::int64_t bytes = 0;
  for (const auto& [tensor, dtype] : tensors) {
    bytes +=
        info.head_count() * info.tokens * info.head_dim * static_cast<std::int64_t>(size_of(dtype));
  }
  if (!s.options.gzip) check_space(s.path, bytes, s.where);
  s.info = info;
  s.heads_written = 0;
  s.streams.clear();
  s.record =
      hdf5::check(H5Gcreate2(s.records.get(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                  s.where, kNoSpace);
  for (const auto& [tensor, dtype] : tensors) {
    s.streams.push_back(
        {hdf5::create_tensor(s.record.get(), tensor, s.where, dtype, info.head_count(), info.tokens,
                             info.head_dim, {s.options.gzip}),
         Sha256()});
  }
  hdf5::write_segments(s.record.get(), info.segments, s.where + "/segments");
  if (key_valid.empty()) return;
  hdf5::write_bytes(s.record.get(), "key_valid", {info.tokens}, key_valid.data(), s.where, false);
}

void CaptureWriter::write_head(const TensorView& q, const TensorView& k, const TensorView& v,
                               const TensorView* o) {
  const hdf5::Session session;
  State& s = *state_;
  s.need_record(true, "write_head()");
  if (s.heads_written == s.info.head_count()) {
    throw Error(s.where + ": all " + std::to_string(s.heads_written) +
                " heads are written already");
  }
  if ((o != nullptr) != s.info.has_output) {
    throw Error(s.where +
                ": `o` must be given for every head when has_output is set, and for none "
                "when it is not");
  }
  s.write_stream_head(s.streams[0], q);
  s.write_stream_head(s.streams[1], k);
  s.write_stream_head(s.streams[2], v);
  if (o != nullptr) s.write_stream_head(s.streams[3], *o);
  ++s.heads_written;
}

void CaptureWriter::end_record() {
  const hdf5::Session session;
  State& s = *state_;
  s.need_record(true, "end_record()");
  if (s.heads_written != s.info.head_count()) {
    throw Error(s.where + ": " + std::to_string(s.heads_written) + " of " +
                std::to_string(s.info.head_count()) + " heads are written; write the others first");
  }
  // Data reaches the file before the attributes that say the record is whole.
  s.flush();
  hdf5::write_string(s.record.get(), "sha256_q", s.streams[0].hash.finish(), s.where);
  hdf5::write_string(s.record.get(), "sha256_k", s.streams[1].hash.finish(), s.where);
  hdf5::write_string(s.record.get(), "sha256_v", s.streams[2].hash.finish(), s.where);
  hdf5::write_record_info(s.record.get(), s.info, s.where);
  s.streams.clear();
  s.record = Handle();
  s.flush();
}

void CaptureWriter::abandon_record() {
  const hdf5::Session session;
  State& s = *state_;
  if (!s.record) return;
  s.streams.clear();
  s.record = Handle();
  H5Ldelete(s.records.get(), hdf5::record_name(s.info.number).c_str(), H5P_DEFAULT);
}

void CaptureWriter::write_record(const RecordInfo& info, const TensorView& q, const TensorView& k,
                                 const TensorView& v, const TensorView* o,
                                 std::span<const std::uint8_t> key_valid) {
  RecordInfo actual = info;
  actual.has_output = o != nullptr;
  for (const TensorView* view : {&q, &k, &v, o}) {
    if (view == nullptr || view->heads == info.head_count()) continue;
    throw Error(state_->path + ": record " + std::to_string(info.number) + ": a view holds " +
                std::to_string(view->heads) + " heads, `heads` names " +
                std::to_string(info.head_count()));
  }
  state_->need_record(false, "write_record()");
  try {
    begin_record(actual, key_valid, o != nullptr ? std::optional(o->dtype) : std::nullopt);
    for (std::int64_t h = 0; h < info.head_count(); ++h) {
      const TensorView output = o != nullptr ? o->slice_heads(h, 1) : TensorView{};
      write_head(q.slice_heads(h, 1), k.slice_heads(h, 1), v.slice_heads(h, 1),
                 o != nullptr ? &output : nullptr);
    }
    end_record();
  } catch (...) {
    abandon_record();
    throw;
  }
}

void CaptureWriter::write_frames(const std::string& arm, const Frames& frames) {
  const hdf5::Session session;
  State& s = *state_;
  const std::string place = s.path + ": /frames/" + arm;
  if (arm.empty() || arm == "." || arm.find('/') != std::string::npos) {
    throw Error(place + ": an arm's name must not be empty, `.` or hold `/`");
  }
  const std::int64_t bytes = frames.frames * frames.height * frames.width * 3;
  if (bytes <= 0 || static_cast<std::int64_t>(frames.rgb.size()) != bytes) {
    throw Error(place + ": " + std::to_string(frames.rgb.size()) + " bytes for " +
                std::to_string(frames.frames) + " frames of " + std::to_string(frames.height) +
                "x" + std::to_string(frames.width) + "x3");
  }
  Handle group =
      hdf5::has_link(s.file.get(), "frames")
          ? hdf5::open_group(s.file.get(), "frames", place)
          : hdf5::check(H5Gcreate2(s.file.get(), "frames", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                        place, kNoSpace);
  if (hdf5::has_link(group.get(), arm)) H5Ldelete(group.get(), arm.c_str(), H5P_DEFAULT);
  hdf5::write_bytes(group.get(), arm.c_str(), {frames.frames, frames.height, frames.width, 3},
                    frames.rgb.data(), place, s.options.gzip);
  s.flush();
}

void CaptureWriter::finish() {
  const hdf5::Session session;
  State& s = *state_;
  s.need_record(false, "finish()");
  s.flush();
  hdf5::write_integer(s.file.get(), "complete", 1, s.path);
  s.flush();
  s.records = Handle();
  hdf5::check_status(H5Fclose(s.file.release()), s.path, kNoSpace);
}

}  // namespace raingauge
