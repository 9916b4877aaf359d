// SPDX-License-Identifier: Apache-2.0
// Radial Attention (arXiv 2506.19852; released code radial_attn/attn_mask.py): a static mask in which
// every frame pair has a band whose width halves with each doubling of the distance in time; distant
// pairs are subsampled, and (wan) frame 0's keys are a sink for all. The mask is made of tokens per
// frame pair and shrunk to blocks by a vote: a block is kept when more than 0.6 of its touched columns
// are more than a third full. The paper's rule (eq. 4) is on tokens and has no vote, no decay factor
// and no floor; this is the code's.
//
// What `density` is solved by: `decay` moves the code's own decay factor, whose least density is that of
// the windows it leaves alone (sink, distances 0 and 1, the floor of one block); `width` (ours) scales
// every window but the sink, and so reaches lower densities.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "methods/head_plans.h"
#include "methods/method.h"
#include "methods/static_mask.h"

namespace raingauge {
namespace {

using nlohmann::json;

struct Grid {
  std::int64_t frames = 0, frame_size = 0, block = 0;
  std::int64_t video() const { return frames * frame_size; }
  std::int64_t blocks_of_frame() const { return (frame_size + block - 1) / block; }
  // 2^bit_length(frame size) / 2^bit_length(distance)
  double decay_length(std::int64_t distance) const {
    const auto bits = [](std::int64_t x) { return std::bit_width(static_cast<std::uint64_t>(x)); };
    return std::exp2(static_cast<double>(bits(frame_size) - bits(distance)));
  }
  // Distant frame pairs are left out except at multiples of a growing step. The 128 is the code's
  // constant, whatever the block.
  bool pair_kept(std::int64_t distance) const {
    const double length = decay_length(distance);
    return length >= 128.0 || distance % static_cast<std::int64_t>(128.0 / length) == 0;
  }
};

// Rows or columns of one block that lie inside the frame, in frame coordinates.
struct Span {
  std::int64_t first = 0, end = 0;
};

Span span_of(const Grid& grid, std::int64_t remainder, std::int64_t block) {
  return {std::max<std::int64_t>(block * grid.block - remainder, 0),
          std::min((block + 1) * grid.block - remainder, grid.frame_size)};
}

// The vote of one block whose tokens keep |column - row| <= window.
bool voted(const Grid& grid, Span rows, Span columns, std::int64_t window) {
  std::int64_t touched = 0;
  std::int64_t dense = 0;
  for (auto c = columns.first; c < columns.end; ++c) {
    const auto count = std::min(rows.end, c + window + 1) - std::max(rows.first, c - window);
    touched += count > 0 ? 1 : 0;
    dense += 3 * count > grid.block ? 1 : 0;
  }
  return 5 * dense > 3 * touched;
}

// The smallest window that a block's vote passes, or -1. The vote never falls as the window grows.
std::int64_t least_window(const Grid& grid, Span rows, Span columns) {
  if (!voted(grid, rows, columns, grid.frame_size)) return -1;
  std::int64_t low = -1;
  std::int64_t high = grid.frame_size;
  while (high - low > 1) {
    const auto middle = low + (high - low) / 2;
    (voted(grid, rows, columns, middle) ? high : low) = middle;
  }
  return high;
}

// Least windows of all block pairs of a frame pair, by where the two frames start within a block.
class Windows2d {
 public:
  explicit Windows2d(const Grid& grid) : grid_(grid) {}
  const std::vector<std::int64_t>& of(std::int64_t row_remainder, std::int64_t column_remainder) {
    auto& table = tables_[{row_remainder, column_remainder}];
    const auto n = grid_.blocks_of_frame();
    for (std::int64_t i = 0; table.size() < static_cast<std::size_t>(n * n); ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        table.push_back(least_window(grid_, span_of(grid_, row_remainder, i),
                                     span_of(grid_, column_remainder, j)));
      }
    }
    return table;
  }

 private:
  Grid grid_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<std::int64_t>> tables_;
};

class Radial : public Method {
 public:
  Radial(const json& params, const MethodOptions& options) : options_(options) {
    wan_ = params.at("preset") == "wan";
    block_ = params.at("block").get<int>();
    decay_ = params.at("decay_factor").get<double>();
    density_ = asked_density(params);
    solve_width_ = params.at("solve") == "width";
    keep_ragged_ = params.at("ragged") == "clip";
  }

  Plan plan(const RecordView& record, State& /*state*/) const override {
    const Segments& segments = record.info->segments;
    const Segment& video = only_video(segments, "Radial Attention");
    const Grid grid{video.frames, video.frame_size(), block_};
    HeadPlan head;
    std::vector<std::int32_t> order;
    for (auto t = video.start; t < video.end(); ++t) order.push_back(static_cast<std::int32_t>(t));
    for (const auto role : {Role::text, Role::pad}) {
      const auto tokens = tokens_of(segments, role);
      order.insert(order.end(), tokens.begin(), tokens.end());
    }
    const bool solve = density_.has_value();
    const auto pad = count_tokens(segments, Role::pad);
    const PricedMask mask = make_mask(grid, record.tokens(), record.tokens() - pad, solve);
    std::vector<std::uint8_t> valid;
    for (std::size_t p = 0; record.key_valid != nullptr && p < order.size(); ++p) {
      valid.push_back(record.key_valid[order[p]]);
    }
    head.kept = solve ? keep_density(mask, *density_, options_.row_seed, valid, "Radial Attention")
                      : keep_at(mask, 0.0);
    head.forced = forced_part(mask, head.kept);
    head.q_offsets = head.k_offsets = mask.q_offsets;
    if (video.start != 0) {
      head.q_order = head.k_order = std::make_shared<const std::vector<std::int32_t>>(order);
    }
    const std::vector<HeadPlan> heads(static_cast<std::size_t>(record.heads()), head);
    Plan plan = join_heads(heads, record.tokens());
    if (solve) plan.nominal_density = *density_;
    return plan;
  }

  // Distant frames are left out whatever the decay factor.
  bool dense_at_full_budget() const override { return false; }

 private:
  // Prices by the knob that is solved for; at the authors' setting 0 = kept, +inf = not.
  // `real`: tokens before the padding, which only text and padding queries see.
  PricedMask make_mask(const Grid& grid, std::int64_t tokens, std::int64_t real, bool solve) const {
    const auto offsets = uniform_offsets(tokens, block_);
    PricedMask mask = priced_mask(offsets, offsets);
    // Text starts where whole blocks of video end.
    const auto border = grid.video() / grid.block * grid.block;
    const bool text = tokens > grid.video();
    const auto is_text = [&](std::int64_t p) { return p >= border && p < real; };
    if (text) force_positions(mask, false, true, is_text);
    if (text) force_positions(mask, true, false, [&](std::int64_t p) { return p >= border; });
    check_fits(grid, tokens);
    Windows2d windows(grid);
    for (std::int64_t i = 0; i < grid.frames; ++i) {
      for (std::int64_t j = 0; j < grid.frames; ++j) {
        add_pair(grid, i, j, windows.of(remainder(grid, i), remainder(grid, j)), solve, mask);
      }
    }
    return mask;
  }

  static std::int64_t remainder(const Grid& grid, std::int64_t frame) {
    return frame * grid.frame_size % grid.block;
  }

  // The code writes ceil(H*W / block) blocks from where a frame starts; past the last whole block of
  // the sequence the shapes disagree and it raises.
  void check_fits(const Grid& grid, std::int64_t tokens) const {
    const auto last = (grid.frames - 1) * grid.frame_size / grid.block + grid.blocks_of_frame();
    if (keep_ragged_ || last <= tokens / grid.block) return;
    throw Unsupported(
        "Radial Attention's released code raises on " + std::to_string(grid.frames) +
        " frames of " + std::to_string(grid.frame_size) + " tokens with blocks of " +
        std::to_string(grid.block) +
        ": the video does not end with a block; `ragged: clip` (ours) clips the mask there");
  }

  void add_pair(const Grid& grid, std::int64_t i, std::int64_t j,
                const std::vector<std::int64_t>& least, bool solve, PricedMask& mask) const {
    const auto n = grid.blocks_of_frame();
    const auto row0 = i * grid.frame_size / grid.block;
    const auto column0 = j * grid.frame_size / grid.block;
    for (std::int64_t a = 0; a < n && row0 + a < mask.rows(); ++a) {
      for (std::int64_t b = 0; b < n && column0 + b < mask.columns(); ++b) {
        const auto needed = least[static_cast<std::size_t>(a * n + b)];
        if (needed < 0) continue;
        const auto place = static_cast<std::size_t>((row0 + a) * mask.columns() + column0 + b);
        const double price = price_of(grid, i, j, needed, solve);
        if (price < 0.0) mask.forced.mask[place] = 1;
        mask.prices[place] = std::min(mask.prices[place], std::max(price, 0.0));
      }
    }
  }

  // Below 0: kept whatever the knob.
  double price_of(const Grid& grid, std::int64_t i, std::int64_t j, std::int64_t needed,
                  bool solve) const {
    constexpr double kNever = std::numeric_limits<double>::infinity();
    const auto distance = std::abs(i - j);
    if (wan_ && j == 0) return -1.0;
    if (!grid.pair_kept(distance)) return kNever;
    const double length = grid.decay_length(distance);
    const auto floor = static_cast<double>(grid.block);
    const double window =
        distance <= 1 ? static_cast<double>(grid.frame_size) : std::max(length * decay_, floor);
    const auto least = static_cast<double>(needed);
    if (!solve) return least <= window ? 0.0 : kNever;
    if (solve_width_) return least / window;
    if (distance <= 1 || least <= floor) return -1.0;
    return least / length;
  }

  MethodOptions options_;
  bool wan_ = true, solve_width_ = false, keep_ragged_ = false;
  int block_ = 128;
  double decay_ = 0.2;
  std::optional<double> density_;  // the windows are solved for it
};

std::vector<ParamSpec> params() {
  return {{.name = "preset",
           .type = ParamType::choice,
           .default_value = "wan",
           .help = "wan: keys of frame 0 are a sink; hunyuan: no sink",
           .choices = {"wan", "hunyuan"}},
          {.name = "block",
           .type = ParamType::integer,
           .default_value = 128,
           .help = "tokens per block, also the floor of the windows (scripts: 128; Wan2.2 64)",
           .min = 1,
           .max = 65536},
          {.name = "decay_factor",
           .type = ParamType::real,
           .default_value = 0.2,
           .help = "width of the windows at distances of two frames and more (scripts: Wan2.1 0.2, "
                   "Wan2.2 0.8, Hunyuan 0.95)",
           .min = 0.0},
          solved_density_param(),
          {.name = "solve",
           .type = ParamType::choice,
           .default_value = "decay",
           .help = "what density moves: the decay factor, or (ours) all windows in proportion",
           .choices = {"decay", "width"}},
          {.name = "ragged",
           .type = ParamType::choice,
           .default_value = "refuse",
           .help = "a video that does not end with a block: the released code raises; clip is ours",
           .choices = {"refuse", "clip"}}};
}

}  // namespace

MethodEntry radial_method() {
  return {
      {"radial",
       "static bands per frame pair, narrower and rarer with distance in time",
       "Radial Attention, arXiv 2506.19852, section 4; released attn_mask.py",
       params(),
       {{"wan", {{"decay_factor", 0.2}}}, {"hunyuan", {{"decay_factor", 0.95}}}},
       "The released rule, not the paper's eq. 4: the next power of two of H*W halves with each "
       "doubling of the\ndistance in time, times decay_factor, no less than one block; beyond, "
       "frames are subsampled; a vote\nper block turns tokens into blocks. No full budget: "
       "distant frames are left out at any decay_factor.\n`density` with solve: decay moves "
       "decay_factor (about 0.25 to 0.43 on 18x3840) and is infeasible\nbelow; solve: width is "
       "ours and scales all windows."},
      [](const json& given, const MethodOptions& options) -> std::unique_ptr<Method> {
        return std::make_unique<Radial>(given, options);
      }};
}

}  // namespace raingauge
