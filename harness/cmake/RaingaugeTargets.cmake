# SPDX-License-Identifier: Apache-2.0

# raingauge_registered_sources(OUT list.def MACRO): <name>.cpp beside the list for every line
# MACRO(name). A line without its file stops here, and so does a file without its line.
function(raingauge_registered_sources out def macro)
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR}/${def} DIRECTORY)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${def})
  file(STRINGS ${def} lines REGEX "^${macro}\\(")
  set(sources)
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^${macro}\\(([a-z0-9_]+).*" "\\1" name "${line}")
    string(REGEX MATCH ",[ ]*([a-z0-9_]+)\\)" file "${line}")  # MACRO(name, file) shares a file
    if(file)
      set(name ${CMAKE_MATCH_1})
    endif()
    set(source ${folder}/${name}.cpp)
    if(NOT EXISTS ${source})
      message(FATAL_ERROR "${def} lists '${name}', but ${source} is missing")
    endif()
    list(APPEND sources ${source})
  endforeach()
  list(REMOVE_DUPLICATES sources)
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

function(raingauge_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC raingauge_options)
endfunction()

# raingauge_add_tests(name LIBRARIES … SOURCES …): one GoogleTest program, every case a CTest test.
function(raingauge_add_tests name)
  cmake_parse_arguments(arg "" "" "LIBRARIES;SOURCES;LABELS;DEFINITIONS" ${ARGN})
  if(NOT arg_SOURCES)
    return()
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBRARIES} GTest::gtest_main GTest::gmock)
  target_compile_definitions(${name} PRIVATE RAINGAUGE_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    ${arg_DEFINITIONS})
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)  # quick to build
  if(NOT arg_LABELS)
    set(arg_LABELS fast)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}")
endfunction()
