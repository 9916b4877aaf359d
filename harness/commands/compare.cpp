// SPDX-License-Identifier: Apache-2.0
// `raingauge compare` and `raingauge schedule`: what one does with finished runs.
#include <cstdio>
#include <cstdlib>

#include "data/error.h"
#include "harness/commands/commands.h"
#include "harness/report/compare.h"
#include "harness/report/schedule.h"
#include "harness/results.h"
#include "harness/rows.h"
#include "harness/table.h"

namespace raingauge {
namespace {

using nlohmann::json;

// "recall=0.01"
std::pair<std::string, double> metric_and_value(const std::string& option,
                                                const std::string& text) {
  const auto equal = text.find('=');
  char* end = nullptr;
  const std::string number = equal == std::string::npos ? "" : text.substr(equal + 1);
  const double value = std::strtod(number.c_str(), &end);
  if (equal == 0 || number.empty() || *end != '\0' || !(value >= 0.0))
    throw Error(option + ": got '" + text + "', allowed: METRIC=VALUE, VALUE at least 0");
  return {text.substr(0, equal), value};
}

json comparison_json(const RunComparison& comparison) {
  json values = json::array();
  for (const auto& value : comparison.values) {
    values.push_back({{"arm", value.arm},
                      {"metric", value.metric},
                      {"a", number_or_null(value.a)},
                      {"b", number_or_null(value.b)},
                      {"difference", number_or_null(value.difference.value)},
                      {"lo", number_or_null(value.difference.lo)},
                      {"hi", number_or_null(value.difference.hi)},
                      {"p", number_or_null(value.difference.p)},
                      {"n", value.difference.n},
                      {"tolerance", value.tolerance},
                      {"verdict", name_of(value.verdict)},
                      {"note", value.note}});
  }
  return {{"values", values}, {"notes", comparison.notes}};
}

void print_comparison(const RunComparison& comparison) {
  Table table({{"arm"},
               {"metric"},
               {"A", Align::right},
               {"B", Align::right},
               {"B - A", Align::right},
               {"tolerance", Align::right},
               {"n", Align::right},
               {"verdict"},
               {"note"}});
  for (const auto& value : comparison.values) {
    const auto& d = value.difference;
    table.add_row(
        {value.arm, value.metric, format_number(value.a, 4), format_number(value.b, 4),
         format_estimate(d.value, d.lo, d.hi, 3) + (value.metric == "total_ms" ? " of A" : ""),
         format_number(value.tolerance, 2), std::to_string(d.n), name_of(value.verdict),
         value.note});
  }
  std::printf("%s\n", table.text().c_str());
  for (const auto& note : comparison.notes) std::printf("%s\n", note.c_str());
}

}  // namespace

int compare_command(const CompareCommand& options) {
  std::map<std::string, double> tolerance;
  for (const auto& text : options.tolerance)
    tolerance.insert(metric_and_value("--tolerance", text));
  const auto comparison = compare_runs(load_run(options.a), load_run(options.b), tolerance);
  if (options.json) {
    std::printf("%s\n", comparison_json(comparison).dump(1).c_str());
  } else {
    print_comparison(comparison);
  }
  const int better = comparison.count(CompareVerdict::better);
  const int worse = comparison.count(CompareVerdict::worse);
  const int undecided = comparison.count(CompareVerdict::undecided);
  if (!options.json) {
    std::printf("B against A: %d better, %d worse, %d same, %d undecided\n", better, worse,
                comparison.count(CompareVerdict::same), undecided);
  }
  return worse > 0 || (options.strict && undecided > 0) ? 2 : 0;
}

int schedule_command(const ScheduleCommand& options) {
  const auto [metric, error] = metric_and_value("--max-error", options.max_error);
  const auto schedule = make_schedule(load_run(options.run), {metric, error});
  write_text_file(options.out, schedule.dump(1) + "\n");
  const auto& predicted = schedule["predicted"];
  const auto& achieved = schedule["achieved"];
  std::printf("%s: %zu sites; error %s at most %s a head\n", options.out.c_str(),
              schedule["sites"].size(), schedule["error_is"].get<std::string>().c_str(),
              format_number(error, 3).c_str());
  const auto print = [](const char* what, const json& total) {
    std::printf("%s: density %s, mean error %s, worst head %s, %d of %d heads beyond the bound\n",
                what, format_number(total["density_pairs"], 4).c_str(),
                format_number(total["error_mean"], 3).c_str(),
                format_number(total["error_worst_head"], 3).c_str(),
                total["heads_beyond_bound"].get<int>(), total["heads"].get<int>());
  };
  print("predicted", predicted);
  if (achieved.is_object())
    print("achieved on generations left out", achieved);
  else
    std::printf("achieved: n/a, the run has one generation\n");
  return 0;
}

}  // namespace raingauge
