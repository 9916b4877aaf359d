# SPDX-License-Identifier: Apache-2.0
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

add_library(raingauge_options INTERFACE)
target_include_directories(raingauge_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(raingauge_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wconversion>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${RAINGAUGE_WERROR}>>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 sees impossible overlaps in std::string's operator+ (its bug 105651) and impossible frees
  # in inlined std::vector.
  target_compile_options(raingauge_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict;-Wno-free-nonheap-object>)
endif()
# Where the compiler links libstdc++ statically, its functions must not take the place of those that
# libtorch finds in the shared one: half of std::locale from each frees what was never allocated.
target_link_options(raingauge_options INTERFACE LINKER:--exclude-libs,libstdc++.a)
if(RAINGAUGE_SANITIZE)
  target_compile_options(raingauge_options INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(raingauge_options INTERFACE -fsanitize=address,undefined)
endif()
