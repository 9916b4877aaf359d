// SPDX-License-Identifier: Apache-2.0
// Files that are built into the program, so that a report needs nothing beside itself.
#pragma once

#include <string_view>

namespace raingauge {

std::string_view report_css();
std::string_view report_js();
std::string_view plotly_js();  // empty in a build without it

}  // namespace raingauge
