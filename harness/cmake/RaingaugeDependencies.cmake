# SPDX-License-Identifier: Apache-2.0
# Imported targets of everything from outside, and what this build has.
find_package(Threads REQUIRED)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(benchmark REQUIRED)

add_library(raingauge_hdf5 INTERFACE)
target_include_directories(raingauge_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(raingauge_hdf5 INTERFACE ${HDF5_C_LIBRARIES})

# OpenCV: frames only. Optical flow is a part of its own (video).
set(RAINGAUGE_HAVE_OPENCV OFF)
set(RAINGAUGE_HAVE_OPENCV_VIDEO OFF)
if(RAINGAUGE_WITH_OPENCV)
  find_package(OpenCV QUIET COMPONENTS core imgproc imgcodecs videoio OPTIONAL_COMPONENTS video)
  if(OpenCV_FOUND)
    set(RAINGAUGE_HAVE_OPENCV ON)
  endif()
  if(OpenCV_FOUND AND TARGET opencv_video)
    set(RAINGAUGE_HAVE_OPENCV_VIDEO ON)
  endif()
endif()

# CUDA: compiled wherever a CUDA compiler is; nothing needs a device to build.
set(RAINGAUGE_HAVE_CUDA OFF)
if(RAINGAUGE_WITH_CUDA)
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES ${RAINGAUGE_CUDA_ARCHITECTURES})
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 17)
    find_package(CUDAToolkit REQUIRED)
    set(RAINGAUGE_HAVE_CUDA ON)
  endif()
endif()

# libtorch: the C++ half of PyPI's wheel. find_package(Torch) insists on a CUDA toolkit, hence
# imported targets of our own; only libtorch_cpu and libc10 are linked, CUDA is loaded at run time.
set(RAINGAUGE_TORCH_VERSION 2.11.0)
set(RAINGAUGE_HAVE_TORCH OFF)
if(RAINGAUGE_WITH_TORCH)
  execute_process(
    COMMAND ${CMAKE_SOURCE_DIR}/harness/setup/find_torch.sh ${RAINGAUGE_TORCH_VERSION}
            "${RAINGAUGE_TORCH_DIR}"
    OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE torch_missing)
  if(torch_missing)
    message(WARNING "torch ${RAINGAUGE_TORCH_VERSION} not found: the demo DiT and the torch_* kernels "
                    "are not built. `make build` installs it.")
  else()
    set(RAINGAUGE_HAVE_TORCH ON)
    add_library(raingauge_torch INTERFACE)
    target_include_directories(raingauge_torch SYSTEM INTERFACE
      ${torch_dir}/include ${torch_dir}/include/torch/csrc/api/include)
    target_link_libraries(raingauge_torch INTERFACE
      ${torch_dir}/lib/libtorch_cpu.so ${torch_dir}/lib/libc10.so Threads::Threads)
    # libtorch_cpu.so finds the CUDA runtime and CUPTI of its own wheels by its own run path.
    target_link_options(raingauge_torch INTERFACE
      -Wl,-rpath,${torch_dir}/lib -Wl,--allow-shlib-undefined)
    target_compile_definitions(raingauge_torch INTERFACE RAINGAUGE_WITH_TORCH)
  endif()
endif()

message(STATUS "raingauge: torch ${RAINGAUGE_HAVE_TORCH}, CUDA ${RAINGAUGE_HAVE_CUDA}, "
               "OpenCV ${RAINGAUGE_HAVE_OPENCV}, its optical flow ${RAINGAUGE_HAVE_OPENCV_VIDEO}")
