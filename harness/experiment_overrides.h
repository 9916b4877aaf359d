// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "harness/yaml_document.h"
#include "methods/params.h"

namespace raingauge {

// Applies one "--set" text, "rows.sample=64" or "rf2.density=0.3", to the document; the value is
// YAML. `sections` are the top-level keys of an experiment. Keys below them are checked when the
// experiment is read.
void apply_override(YamlDocument& document, const std::string& text,
                    const std::vector<std::string>& sections);

}  // namespace raingauge
