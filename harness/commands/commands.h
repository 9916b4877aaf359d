// SPDX-License-Identifier: Apache-2.0
// What each subcommand takes, and the function that does it. They return the exit code: 0 done, 2 some
// row is bad, 3 nothing matched; usage and configuration errors are thrown (1).
#pragma once

#include <string>
#include <vector>

namespace raingauge {

struct RunCommand {
  std::string experiment;
  std::string out;  // empty: runs/<name>
  std::vector<std::string> overrides;
  std::string only;  // the one arm to run; empty: all
  std::string device = "cpu";
  int threads = 0;
  bool dry_run = false;
  bool fresh = false;
  bool strict = false;
  bool quiet = false;
};
int run_command(const RunCommand& options);

struct ReportCommand {
  std::vector<std::string> runs;
  std::string formats = "html,md,csv,json,tex";
};
int report_command(const ReportCommand& options);

struct CompareCommand {
  std::string a, b;                    // folders of runs
  std::vector<std::string> tolerance;  // METRIC=VALUE
  bool json = false;
  bool strict = false;  // undecided counts as worse
};
int compare_command(const CompareCommand& options);

struct ScheduleCommand {
  std::string run;
  std::string max_error;  // METRIC=VALUE
  std::string out;
};
int schedule_command(const ScheduleCommand& options);

struct ListCommand {
  std::string what;
  bool json = false;
};
int list_command(const ListCommand& options);

struct ExplainCommand {
  std::string name;
  bool json = false;
};
int explain_command(const ExplainCommand& options);

struct CaptureCommand {
  std::string capture;
  std::string out;
  std::vector<int> records;  // slice, convert: empty = all
  std::vector<int> heads;    // original numbers; empty = all
  std::vector<int> layers, steps;
  std::string dtype;  // convert: f32, f16, bf16; empty = as stored
  bool compress = false;
  bool overwrite = false;
  bool json = false;
  std::string spec;              // synth, record: an inline YAML mapping
  std::string other;             // diff: the second capture
  double tolerance = 0.0;        // diff: of the relative L2 distance
  std::vector<int> grid;         // convert from arrays: frames, height, width of every visual run
  std::string text_pos, layout;  // … where text stands; hnd, nhd
  std::string branch = "cond";   // …
  int step = 0, layer = 0;       // …
  double scale = 0.0;            // … 0: 1/sqrt(head_dim)
  std::string device = "cpu";
  int threads = 0;
};
int capture_info_command(const CaptureCommand& options);
int capture_validate_command(const CaptureCommand& options);
int capture_slice_command(const CaptureCommand& options);
int capture_convert_command(const CaptureCommand& options);
int capture_diff_command(const CaptureCommand& options);
int capture_synth_command(const CaptureCommand& options);
int capture_record_command(const CaptureCommand& options);

struct PlanCommand {
  std::string capture;
  int record = 0;
  std::string arm;
  std::string out;
  std::vector<int> heads;
  std::string match = "nominal";
  int threads = 0;
  int head = 0;        // mask: which head is drawn
  std::string kernel;  // attend; empty: usual_kernel()
  std::string device = "cpu";
  bool json = false;
};
int plan_command(const PlanCommand& options);
int attend_command(const PlanCommand& options);
int mask_command(const PlanCommand& options);

struct ParityCommand {
  std::string ours, theirs;  // an output of `attend`, or a plan file; an array of another program
  std::string tensor;        // its name in a file that holds several
  std::string layout;        // hnd, nhd; empty: told from the shape, or the one that fits better
  double tolerance = 1e-2;   // of the relative L2 distance; masks must be equal
  bool json = false;
};
int parity_command(const ParityCommand& options);

struct CalibrateCommand {
  std::vector<std::string> inputs;  // one experiment, or captures
  std::string arm;
  std::string out;
  std::vector<int> layers, steps, heads;  // empty: all, or the experiment's
  bool overwrite = false;
  std::string device = "cpu";
  int threads = 0;
};
int calibrate_command(const CalibrateCommand& options);

struct GenerateCommand {
  std::string arm = "{method: dense}";
  std::string out;
  unsigned long long seed = 1;
  std::string mode = "image_to_video";
  std::vector<int> grid = {21, 16, 24};
  int steps = 8;
  std::string kernel;  // empty: usual_kernel()
  std::string device = "cpu";
  int threads = 0;
  bool json = false;
};
int generate_command(const GenerateCommand& options);

struct FramesCommand {
  std::string reference, test;
  std::vector<std::string> metrics;  // empty: all
  double fps = 0.0;                  // 0: the file's, else kUsualFps
  std::string flow = "dis";
  std::string worst;  // PNG to write; empty: none
  int threads = 0;
  bool json = false;
};
int frames_command(const FramesCommand& options);

}  // namespace raingauge
