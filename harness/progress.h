// SPDX-License-Identifier: Apache-2.0
// How far is the run, and how long will it take? One line that updates itself on a terminal, a
// plain line every few seconds elsewhere, nothing when quiet.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <ostream>
#include <string>

namespace raingauge {

class Progress {
 public:
  enum class Mode { terminal, plain, quiet };
  struct Options {
    Mode mode = Mode::plain;
    std::ostream* out = nullptr;     // null: standard error
    std::function<double()> now;     // seconds; empty: the steady clock
    std::size_t columns = 80;        // of the terminal
    double terminal_interval = 0.1;  // seconds between two updates
    double plain_interval = 5.0;
  };

  // `total_units`: the cost of everything, in units of the caller's choice (FLOPs, cells …).
  explicit Progress(double total_units);  // mode and width of standard error
  Progress(double total_units, Options options);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Terminal when standard error is one, plain otherwise.
  static Mode detect(bool quiet);
  static std::size_t terminal_columns();

  // A new part of the run, which says its own share done and its own time left: parts differ in what
  // a unit costs.
  void part(const std::string& name, double total_units);
  void begin(const std::string& label, double units = 1.0);  // what is in flight, and its cost
  void note(double fraction);                                // of what is in flight: 0 to 1
  void advance(double units);                                // that much is done
  void skip(double units);  // was done by an earlier run: counts as done, not as speed
  void message(const std::string& text);  // a line that stays
  void finish();

  double fraction() const;      // of the part, 0 to 1
  double seconds_left() const;  // NaN until something was done

 private:
  double now() const;
  double total() const;
  void show(bool force);
  std::string line(std::size_t columns) const;
  void clear_line();

  Options options_;
  double total_;
  double done_ = 0.0;
  double skipped_ = 0.0;
  double in_flight_units_ = 0.0;
  double in_flight_done_ = 0.0;
  double start_ = 0.0;       // of everything
  double part_start_ = 0.0;  // of the present part
  double last_shown_;
  bool line_open_ = false;
  bool finished_ = false;
  std::string part_, label_;
  mutable std::recursive_mutex mutex_;
};

// "<1 s", "42 s", "3 min 12 s", "2 h 05 min", "3 d 4 h"; "?" for NaN.
std::string format_duration(double seconds);

}  // namespace raingauge
