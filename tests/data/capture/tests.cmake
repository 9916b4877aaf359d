# SPDX-License-Identifier: Apache-2.0
# The Python package of data/capture, on diffusers' own pipelines at toy size. 77: no torch for Python.
foreach(part file recorder wan_repo pipelines backend command example)
  add_test(NAME capture_${part} COMMAND ${CMAKE_SOURCE_DIR}/harness/setup/python.sh -B -m pytest -q
    -p no:cacheprovider ${CMAKE_CURRENT_LIST_DIR}/${part}_test.py)
  set_tests_properties(capture_${part} PROPERTIES LABELS slow SKIP_RETURN_CODE 77
    ENVIRONMENT "RAINGAUGE=$<TARGET_FILE:raingauge>;RAINGAUGE_TORCH_LIBRARY=$<TARGET_FILE:raingauge_torch_extension>")
endforeach()
