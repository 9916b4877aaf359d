# SPDX-License-Identifier: Apache-2.0
# Run at every build: writes TARGET with the commit of SOURCE and the versions in LIBRARIES
# ("name=version,…"), only when they changed.
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND git -C ${SOURCE} rev-parse --short=12 HEAD
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
if(failed)
  set(commit unknown)
else()
  execute_process(COMMAND git -C ${SOURCE} status --porcelain --untracked-files=no
    OUTPUT_VARIABLE changes ERROR_QUIET)
  if(changes)
    set(commit "${commit}-modified")
  endif()
endif()
file(CONFIGURE OUTPUT ${TARGET} CONTENT
  "#define RAINGAUGE_GIT_COMMIT \"@commit@\"\n#define RAINGAUGE_BUILD_LIBRARIES \"@LIBRARIES@\"\n" @ONLY)
