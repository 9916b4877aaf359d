// SPDX-License-Identifier: Apache-2.0
// The records that are timed: random, with planted structure, or captured from a model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/record.h"
#include "harness/bench/options.h"

namespace raingauge::bench {

// One input at one shape; the tensors are made or read when they are first wanted.
class Input {
 public:
  virtual ~Input() = default;
  virtual const std::string& label() const = 0;  // "random/tokens:8192/dim:128"
  virtual RecordView view() = 0;
};

// Every input at every shape that the options ask for; captured ones have their own shape. Throws
// Error for a file that cannot be read or a shape that no input can have.
std::vector<std::shared_ptr<Input>> make_inputs(const Options& options);

}  // namespace raingauge::bench
