// SPDX-License-Identifier: Apache-2.0
// A kernel from outside: a Python file that runs in a process of its own. peers/runner.py says what
// the file defines.
//
// How tensors get there: q, k, v are written once into memory that both processes map, and the child
// copies them to its device; o and lse come back the same way when they are checked. No transfer
// lies in a timed phase, and the child measures its phases itself.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "methods/kernels/kernel.h"

namespace raingauge {

// "python:FILE"
bool is_peer(std::string_view kernel);

// `kernel` is "python:FILE"; called FILE's stem in rows. Starts no process yet: a peer that cannot be
// loaded, whose package is not installed for example, says so from supports().
// Throws Error when FILE does not exist.
std::unique_ptr<Kernel> make_peer_kernel(const std::string& kernel, const KernelOptions& options);

}  // namespace raingauge
