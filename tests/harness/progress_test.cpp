// SPDX-License-Identifier: Apache-2.0
#include "harness/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace raingauge {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Clock {
  double seconds = 100.0;  // not zero: only differences may matter
};

Progress::Options options_for(Progress::Mode mode, std::ostream& out, const Clock& clock) {
  Progress::Options options;
  options.mode = mode;
  options.out = &out;
  options.now = [&clock] { return clock.seconds; };
  return options;
}

TEST(FormatDuration, UsesTwoUnits) {
  EXPECT_EQ(format_duration(0.0), "<1 s");
  EXPECT_EQ(format_duration(0.4), "<1 s");
  EXPECT_EQ(format_duration(59.4), "59 s");
  EXPECT_EQ(format_duration(59.6), "1 min 00 s");
  EXPECT_EQ(format_duration(192.0), "3 min 12 s");
  EXPECT_EQ(format_duration(7500.0), "2 h 05 min");
  EXPECT_EQ(format_duration(86400.0 * 3 + 3600.0 * 4), "3 d 4 h");
  EXPECT_EQ(format_duration(std::nan("")), "?");
  EXPECT_EQ(format_duration(-1.0), "?");
  EXPECT_EQ(format_duration(INFINITY), "?");
}

TEST(Progress, EstimatesFromWorkDoneHere) {
  std::ostringstream out;
  Clock clock;
  Progress progress(10.0, options_for(Progress::Mode::quiet, out, clock));
  EXPECT_TRUE(std::isnan(progress.seconds_left()));
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.0);
  progress.skip(4.0);  // an earlier run's: costs no time
  EXPECT_TRUE(std::isnan(progress.seconds_left()));
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.4);
  clock.seconds += 6.0;
  progress.advance(2.0);  // 3 s a unit, 4 units left
  EXPECT_DOUBLE_EQ(progress.seconds_left(), 12.0);
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.6);
  EXPECT_EQ(out.str(), "");
}

TEST(Progress, CountsWhatIsInFlight) {
  std::ostringstream out;
  Clock clock;
  Progress progress(10.0, options_for(Progress::Mode::quiet, out, clock));
  progress.begin("record", 4.0);
  clock.seconds += 5.0;
  progress.note(0.25);
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.1);
  EXPECT_DOUBLE_EQ(progress.seconds_left(), 45.0);
  progress.note(7.0);  // never beyond the whole
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.4);
  progress.note(std::nan(""));
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.0);
  progress.advance(4.0);
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.4);
  progress.advance(60.0);  // the estimate of the total was low
  EXPECT_DOUBLE_EQ(progress.fraction(), 1.0);
  EXPECT_DOUBLE_EQ(progress.seconds_left(), 0.0);
}

TEST(Progress, TerminalUpdatesOneLine) {
  std::ostringstream out;
  Clock clock;
  auto options = options_for(Progress::Mode::terminal, out, clock);
  options.columns = 30;
  Progress progress(4.0, options);
  progress.begin("clip 1, layer 2, step 3, a long label");
  EXPECT_EQ(out.str(),
            "\r\x1b[K  0 %  clip 1, layer 2, step…");  // 29 columns: the last one stays free
  out.str("");
  clock.seconds += 0.05;
  progress.note(0.5);
  EXPECT_EQ(out.str(), "");  // too soon
  clock.seconds += 1.95;
  progress.advance(1.0);
  EXPECT_EQ(out.str(), "\r\x1b[K 25 %  6 s left  clip 1, lay…");
  EXPECT_THAT(out.str(), Not(HasSubstr("\n")));
  out.str("");
  progress.message("recorded clip 1");
  EXPECT_EQ(out.str(), "\r\x1b[Krecorded clip 1\n\r\x1b[K 25 %  6 s left  clip 1, lay…");
  out.str("");
  clock.seconds += 88.0;
  progress.finish();
  EXPECT_EQ(out.str(), "\r\x1b[Kdone in 1 min 30 s\n");
  progress.finish();
  progress.advance(1.0);
  EXPECT_EQ(out.str(), "\r\x1b[Kdone in 1 min 30 s\n");
}

TEST(Progress, PlainPrintsALineEveryFewSeconds) {
  std::ostringstream out;
  Clock clock;
  Progress progress(100.0, options_for(Progress::Mode::plain, out, clock));
  for (int step = 0; step < 100; ++step) {
    progress.begin("step " + std::to_string(step));
    clock.seconds += 0.25;
    progress.advance(1.0);
  }
  const std::string text = out.str();
  // 25 s at 5 s a line: at 0, 5, 10, 15, 20 and 25 s.
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6);
  EXPECT_THAT(text, HasSubstr("  0 %  step 0\n 20 %  20 s left  step 19\n"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
}

TEST(Progress, APartGoesByItsOwnSpeed) {
  std::ostringstream out;
  Clock clock;
  Progress progress(0.0, options_for(Progress::Mode::plain, out, clock));
  progress.part("replay", 100.0);
  clock.seconds += 10.0;
  progress.advance(100.0);
  progress.part("generate", 4.0);
  EXPECT_TRUE(std::isnan(progress.seconds_left()));
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.0);
  clock.seconds += 20.0;
  progress.advance(1.0);
  EXPECT_DOUBLE_EQ(progress.seconds_left(), 60.0);
  EXPECT_THAT(out.str(), HasSubstr("\ngenerate  25 %  1 min 00 s left  \n"));
  progress.finish();
  EXPECT_THAT(out.str(), HasSubstr("done in 30 s"));
}

TEST(Progress, QuietIsQuiet) {
  std::ostringstream out;
  Clock clock;
  {
    Progress progress(1.0, options_for(Progress::Mode::quiet, out, clock));
    progress.begin("x");
    clock.seconds += 10.0;
    progress.advance(1.0);
    progress.message("text");
    progress.finish();
  }
  EXPECT_EQ(out.str(), "");
  EXPECT_EQ(Progress::detect(true), Progress::Mode::quiet);
}

TEST(Progress, AnInterruptedLineIsClosed) {
  std::ostringstream out;
  Clock clock;
  { Progress(1.0, options_for(Progress::Mode::terminal, out, clock)).begin("x"); }
  EXPECT_EQ(out.str(), "\r\x1b[K  0 %  x\n");
}

}  // namespace
}  // namespace raingauge
