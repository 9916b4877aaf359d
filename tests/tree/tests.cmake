# SPDX-License-Identifier: Apache-2.0
# The source tree's own rules: python3's standard library is all that they need.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
foreach(check includes words defs checks)
  add_test(NAME tree_${check}
    COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_LIST_DIR}/check_${check}.py)
  set_tests_properties(tree_${check} PROPERTIES LABELS fast)
endforeach()
