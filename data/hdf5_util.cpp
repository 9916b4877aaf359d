// SPDX-License-Identifier: Apache-2.0
// Handles, errors, files and links of the HDF5 layer. Attributes are in hdf5_attributes.cpp.
#include "data/hdf5_util.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "data/error.h"
#include "data/isolated.h"

namespace raingauge::hdf5 {
namespace {

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

// Walked from the innermost frame outwards: the first description is the cause.
herr_t keep_first(unsigned position, const H5E_error2_t* frame, void* data) {
  auto* text = static_cast<std::string*>(data);
  if (position == 0 && frame->desc != nullptr) *text = frame->desc;
  return 0;
}

std::string take_error_text() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &text);
  H5Eclear2(H5E_DEFAULT);
  return text;
}

herr_t collect_name(hid_t /*group*/, const char* name, const H5L_info_t* /*info*/, void* data) {
  static_cast<std::vector<std::string>*>(data)->emplace_back(name);
  return 0;
}

// One file is one generation: a link that leaves the file is not followed.
void refuse_external(hid_t parent, const std::string& name, const std::string& where) {
  H5L_info_t info{};
  if (H5Lget_info(parent, name.c_str(), &info, H5P_DEFAULT) < 0) {
    fail(where, "there is no object of this name");
  }
  if (info.type != H5L_TYPE_HARD && info.type != H5L_TYPE_SOFT) {
    fail(where, "is a link to another file; such links are not followed, copy the object instead");
  }
}

Handle access_list() {
  Handle list = check(H5Pcreate(H5P_FILE_ACCESS), "HDF5", "cannot make a property list");
#if H5_VERSION_GE(1, 10, 7)
  // File systems without locks (some network ones) are readable all the same.
  H5Pset_file_locking(list.get(), true, true);
#endif
  return list;
}

}  // namespace

Session::Session() : lock_(library_mutex(), std::defer_lock) {
  // An isolated copy has one thread, and the lock it was born with names another one as its owner.
  if (!in_isolated_copy()) lock_.lock();
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Session::~Session() {
  H5Eclear2(H5E_DEFAULT);
  H5Eset_auto2(H5E_DEFAULT, print_, print_data_);
}

Handle::~Handle() {
  if (id_ < 0) return;
  const Session session;
  H5Idec_ref(id_);
}

void fail(const std::string& where, const std::string& what) {
  const std::string cause = take_error_text();
  throw Error(where + ": " + what + (cause.empty() ? "" : " (HDF5: " + cause + ")"));
}

Handle check(hid_t id, const std::string& where, const char* what) {
  if (id < 0) fail(where, what);
  return Handle(id);
}

void check_status(herr_t status, const std::string& where, const char* what) {
  if (status < 0) fail(where, what);
}

Handle open_file(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    throw Error(path + ": cannot be opened: " + std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(path + (S_ISDIR(status.st_mode) ? ": is a directory" : ": is not a regular file") +
                "; an HDF5 file is needed");
  }
  const Handle access = access_list();
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()));
  if (file) return file;
  const std::string cause = take_error_text();
  const std::string detail = cause.empty() ? "" : " (HDF5: " + cause + ")";
  const htri_t is_hdf5 = H5Fis_hdf5(path.c_str());
  if (cause.find("lock") != std::string::npos) {
    throw Error(path + ": another process is writing it; wait until it has finished" + detail);
  }
  if (is_hdf5 == 0) {
    throw Error(path + ": is not an HDF5 file, or its first bytes are damaged" + detail);
  }
  throw Error(path +
              ": is an HDF5 file that cannot be opened: truncated, damaged or not readable; "
              "copy or record it again" +
              detail);
}

bool has_link(hid_t parent, const std::string& name) {
  const htri_t found = H5Lexists(parent, name.c_str(), H5P_DEFAULT);
  if (found < 0) H5Eclear2(H5E_DEFAULT);
  return found > 0;
}

Handle open_group(hid_t parent, const std::string& name, const std::string& where) {
  refuse_external(parent, name, where);
  return check(H5Gopen2(parent, name.c_str(), H5P_DEFAULT), where, "cannot be opened as a group");
}

Handle open_dataset(hid_t parent, const std::string& name, const std::string& where) {
  refuse_external(parent, name, where);
  return check(H5Dopen2(parent, name.c_str(), H5P_DEFAULT), where, "cannot be opened as a dataset");
}

std::vector<std::string> link_names(hid_t group, const std::string& where) {
  std::vector<std::string> names;
  hsize_t position = 0;
  check_status(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, &position, collect_name, &names),
               where, "its members cannot be listed");
  return names;
}

std::vector<std::int64_t> extent(hid_t space, const std::string& where) {
  constexpr int kMaxRank = 8;
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0 || rank > kMaxRank) {
    fail(where, "has rank " + std::to_string(rank) + "; allowed are 0 to 8");
  }
  hsize_t dims[kMaxRank] = {};
  if (rank > 0 && H5Sget_simple_extent_dims(space, dims, nullptr) < 0) {
    fail(where, "its extent cannot be read");
  }
  std::vector<std::int64_t> result;
  for (int i = 0; i < rank; ++i) {
    if (dims[i] > static_cast<hsize_t>(INT64_MAX)) fail(where, "its extent leaves 63 bits");
    result.push_back(static_cast<std::int64_t>(dims[i]));
  }
  return result;
}

void write_bytes(hid_t parent, const char* name, const std::vector<std::int64_t>& dims,
                 const std::uint8_t* data, const std::string& where, bool gzip) {
  std::vector<hsize_t> shape(dims.begin(), dims.end());
  const auto rank = static_cast<int>(shape.size());
  const Handle space =
      check(H5Screate_simple(rank, shape.data(), nullptr), where, "cannot make a dataspace");
  const Handle creation =
      check(H5Pcreate(H5P_DATASET_CREATE), where, "its storage cannot be set up");
  if (gzip) {
    shape[0] = 1;
    const bool made = H5Pset_chunk(creation.get(), rank, shape.data()) >= 0 &&
                      H5Pset_deflate(creation.get(), 1) >= 0;
    if (!made) fail(where, "its storage cannot be set up");
  }
  const Handle dataset = check(
      H5Dcreate2(parent, name, H5T_STD_U8LE, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
      where, "cannot be created");
  check_status(H5Dwrite(dataset.get(), H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, data),
               where, "cannot be written; is there space left on the device?");
}

}  // namespace raingauge::hdf5
