// SPDX-License-Identifier: Apache-2.0
// Errors of the layers below the harness. Nothing there prints or exits: it throws one of these,
// and the harness turns it into a message and an exit code, or into the outcome of a row.
#pragma once

#include <stdexcept>
#include <string>

namespace raingauge {

// Bad input or a failed operation. The message says what, where, what was got, what is allowed.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A combination that a component does not cover (outcome `unsupported`); the reason is the message.
class Unsupported : public Error {
 public:
  using Error::Error;
};

// The forced blocks alone exceed the density asked for (outcome `infeasible`).
class Infeasible : public Error {
 public:
  Infeasible(const std::string& message, double least_density)
      : Error(message), least_density_(least_density) {}
  // The lowest pair density that the arm could reach on this record.
  double least_density() const { return least_density_; }

 private:
  double least_density_;
};

// A plan that breaks an invariant (outcome `invalid_plan`).
class InvalidPlan : public Error {
 public:
  using Error::Error;
};

// NaN or Inf where a finite number is needed (outcome `not_finite`).
class NotFinite : public Error {
 public:
  using Error::Error;
};

}  // namespace raingauge
