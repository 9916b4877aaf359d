// SPDX-License-Identifier: Apache-2.0
// All named methods (methods.def), and the lookup of every component a parameter may name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "methods/method.h"

namespace raingauge {

const std::vector<MethodEntry>& method_registry();
const MethodEntry& find_method(const std::string& name);  // throws Error naming the nearest

// Expands `preset` and `sparsity`, checks every key, fills in defaults. Throws ParamError.
nlohmann::json complete_method_params(const std::string& method, const nlohmann::json& given);

// `arm` is {method: name, key: value …}; params need not be complete.
std::unique_ptr<Method> make_method(const std::string& method, const nlohmann::json& params,
                                    const MethodOptions& options = {});

// Parameters of a component: registry "orders", "selectors" or "scores".
const std::vector<ParamSpec>& component_params(const std::string& registry,
                                               const std::string& name);

}  // namespace raingauge
