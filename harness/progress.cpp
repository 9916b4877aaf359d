// SPDX-License-Identifier: Apache-2.0
#include "harness/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>

#include "harness/table.h"

namespace raingauge {
namespace {

std::string two_digits(long long value) { return (value < 10 ? "0" : "") + std::to_string(value); }

Progress::Options standard_error_options() {
  Progress::Options options;
  options.mode = Progress::detect(false);
  options.columns = Progress::terminal_columns();
  return options;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!(seconds >= 0.0) || seconds > 1e9) return "?";
  const auto whole = static_cast<long long>(std::llround(seconds));
  if (whole < 1) return "<1 s";
  if (whole < 60) return std::to_string(whole) + " s";
  if (whole < 3600) return std::to_string(whole / 60) + " min " + two_digits(whole % 60) + " s";
  if (whole < 86400)
    return std::to_string(whole / 3600) + " h " + two_digits(whole % 3600 / 60) + " min";
  return std::to_string(whole / 86400) + " d " + std::to_string(whole % 86400 / 3600) + " h";
}

Progress::Mode Progress::detect(bool quiet) {
  if (quiet) return Mode::quiet;
  return ::isatty(STDERR_FILENO) != 0 ? Mode::terminal : Mode::plain;
}

std::size_t Progress::terminal_columns() {
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

Progress::Progress(double total_units) : Progress(total_units, standard_error_options()) {}

Progress::Progress(double total_units, Options options)
    : options_(std::move(options)),
      total_(total_units),
      last_shown_(-std::numeric_limits<double>::infinity()) {
  if (options_.out == nullptr) options_.out = &std::cerr;
  start_ = part_start_ = now();
}

Progress::~Progress() {
  if (line_open_) *options_.out << std::endl;
}

double Progress::now() const {
  if (options_.now) return options_.now();
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Estimates may fall short: never more done than there is.
double Progress::total() const { return std::max(total_, done_ + skipped_); }

void Progress::part(const std::string& name, double total_units) {
  const std::lock_guard lock(mutex_);
  part_ = name;
  total_ = total_units;
  done_ = skipped_ = in_flight_units_ = in_flight_done_ = 0.0;
  part_start_ = now();
}

void Progress::begin(const std::string& label, double units) {
  const std::lock_guard lock(mutex_);
  label_ = label;
  in_flight_units_ = units;
  in_flight_done_ = 0.0;
  show(false);
}

void Progress::note(double fraction) {
  const std::lock_guard lock(mutex_);
  in_flight_done_ = fraction > 0.0 ? std::min(fraction, 1.0) : 0.0;
  show(false);
}

void Progress::advance(double units) {
  const std::lock_guard lock(mutex_);
  done_ += units;
  in_flight_units_ = in_flight_done_ = 0.0;
  show(false);
}

void Progress::skip(double units) {
  const std::lock_guard lock(mutex_);
  skipped_ += units;
  in_flight_units_ = in_flight_done_ = 0.0;
  show(false);
}

double Progress::fraction() const {
  const std::lock_guard lock(mutex_);
  const double all = total();
  if (!(all > 0.0)) return finished_ ? 1.0 : 0.0;
  return std::min(1.0, (done_ + skipped_ + in_flight_units_ * in_flight_done_) / all);
}

double Progress::seconds_left() const {
  const std::lock_guard lock(mutex_);
  const double worked = done_ + in_flight_units_ * in_flight_done_;
  if (!(worked > 0.0)) return std::numeric_limits<double>::quiet_NaN();
  const double left = std::max(0.0, total() - skipped_ - worked);
  return left * (now() - part_start_) / worked;
}

std::string Progress::line(std::size_t columns) const {
  const double left = seconds_left();
  const int percent = static_cast<int>(std::floor(100.0 * fraction()));
  std::string text = part_ + (part_.empty() ? "" : " ") +
                     (percent < 10    ? "  "
                      : percent < 100 ? " "
                                      : "") +
                     std::to_string(percent) + " %  ";
  if (!std::isnan(left)) text += format_duration(left) + " left  ";
  return clip_to_width(text + label_, columns);
}

void Progress::show(bool force) {
  if (options_.mode == Mode::quiet || finished_) return;
  const double time = now();
  const bool terminal = options_.mode == Mode::terminal;
  const double interval = terminal ? options_.terminal_interval : options_.plain_interval;
  if (!force && !(time - last_shown_ >= interval)) return;
  last_shown_ = time;
  if (terminal) {
    // Return, erase to the end of the line; the last column stays free, or the terminal would wrap.
    *options_.out << "\r\x1b[K" << line(options_.columns > 1 ? options_.columns - 1 : 1)
                  << std::flush;
    line_open_ = true;
  } else {
    *options_.out << line(std::numeric_limits<std::size_t>::max()) << std::endl;
  }
}

void Progress::clear_line() {
  if (line_open_) *options_.out << "\r\x1b[K";
  line_open_ = false;
}

void Progress::message(const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (options_.mode == Mode::quiet) return;
  clear_line();
  *options_.out << text << std::endl;
  if (options_.mode == Mode::terminal) show(true);
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  clear_line();
  if (options_.mode != Mode::quiet) {
    *options_.out << "done in " << format_duration(now() - start_) << std::endl;
  }
  finished_ = true;
}

}  // namespace raingauge
