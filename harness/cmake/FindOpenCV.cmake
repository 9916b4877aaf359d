# SPDX-License-Identifier: Apache-2.0
# OpenCV with or without its own CMake files: the distributions ship those only in the package of
# everything (libopencv-dev), which is 116 packages more than the four parts used here.
find_package(OpenCV QUIET CONFIG COMPONENTS ${OpenCV_FIND_COMPONENTS})
if(OpenCV_FOUND)
  return()
endif()

find_path(OpenCV_INCLUDE_DIR opencv2/core/version.hpp PATH_SUFFIXES opencv4)
set(parts)
foreach(part IN LISTS OpenCV_FIND_COMPONENTS)
  find_library(OpenCV_${part}_LIBRARY opencv_${part})
  find_path(OpenCV_${part}_HEADER opencv2/${part}.hpp PATH_SUFFIXES opencv4)
  list(APPEND parts OpenCV_${part}_LIBRARY OpenCV_${part}_HEADER)
endforeach()
mark_as_advanced(OpenCV_INCLUDE_DIR ${parts})

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCV REQUIRED_VARS OpenCV_INCLUDE_DIR ${parts})
if(OpenCV_FOUND)
  set(OpenCV_INCLUDE_DIRS ${OpenCV_INCLUDE_DIR})
  foreach(part IN LISTS OpenCV_FIND_COMPONENTS)
    add_library(opencv_${part} UNKNOWN IMPORTED)
    set_target_properties(opencv_${part} PROPERTIES
      IMPORTED_LOCATION ${OpenCV_${part}_LIBRARY}
      INTERFACE_INCLUDE_DIRECTORIES ${OpenCV_INCLUDE_DIR})
  endforeach()
endif()
