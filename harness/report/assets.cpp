// SPDX-License-Identifier: Apache-2.0
// The assembler copies the files in: no generated source, no time to compile. CMake names them.
#include "harness/report/assets.h"

#define RAINGAUGE_EMBED(name, path)                                      \
  __asm__(".section .rodata\n.balign 16\n" #name                         \
          ":\n"                                                          \
          ".incbin \"" path "\"\n" #name "_end:\n.byte 0\n.previous\n"); \
  extern const char name[];                                              \
  extern const char name##_end[]

extern "C" {
RAINGAUGE_EMBED(raingauge_report_css, RAINGAUGE_REPORT_ASSETS "/report.css");
RAINGAUGE_EMBED(raingauge_report_js, RAINGAUGE_REPORT_ASSETS "/report.js");
#ifdef RAINGAUGE_PLOTLY_JS
RAINGAUGE_EMBED(raingauge_plotly_js, RAINGAUGE_PLOTLY_JS);
#endif
}

namespace raingauge {
namespace {

std::string_view between(const char* begin, const char* end) {
  return {begin, static_cast<std::size_t>(end - begin)};
}

}  // namespace

std::string_view report_css() { return between(raingauge_report_css, raingauge_report_css_end); }
std::string_view report_js() { return between(raingauge_report_js, raingauge_report_js_end); }

std::string_view plotly_js() {
#ifdef RAINGAUGE_PLOTLY_JS
  return between(raingauge_plotly_js, raingauge_plotly_js_end);
#else
  return {};
#endif
}

}  // namespace raingauge
