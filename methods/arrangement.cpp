// SPDX-License-Identifier: Apache-2.0
#include "methods/arrangement.h"

#include <algorithm>

#include "data/error.h"
#include "methods/orders/registry.h"

namespace raingauge {
namespace {

struct Region {
  std::vector<std::int32_t> tokens;
  BlockRole role = BlockRole::visual;
  bool ordered = false;
};

// The segment whose frame 0 is a candidate for the sink: the first video with more than one frame.
const Segment* video_with_frames(const Segments& segments) {
  for (const auto& segment : segments) {
    if (segment.role == Role::video && segment.frames > 1) return &segment;
  }
  return nullptr;
}

std::vector<std::int32_t> ordered_grid(const ArrangementSpec& spec, int frames, int height,
                                       int width, bool has_frame0,
                                       std::optional<Windows>* windows) {
  OrderRequest request;
  request.frames = frames;
  request.height = height;
  request.width = width;
  request.seed = spec.seed;
  request.has_frame0 = has_frame0;
  request.params = spec.order.at("params");
  const auto name = spec.order.at("name").get<std::string>();
  if (find_order(name).from_content()) {  // token_orders() reorders what is raster here
    request.params = nullptr;
    return make_order("raster", request).index;
  }
  Order order = make_order(name, request);
  if (windows != nullptr) *windows = order.windows;
  return std::move(order.index);
}

// The order acts on all frames but `pinned`, which stays raster in a region of its own.
void add_segregated(const Segment& segment, int pinned, const ArrangementSpec& spec,
                    std::vector<Region>& regions, Region& pinned_region,
                    std::optional<Windows>* windows) {
  const auto frame_size = segment.frame_size();
  Region rest;
  rest.ordered = true;
  for (const auto source :
       ordered_grid(spec, segment.frames - 1, segment.height, segment.width, false, windows)) {
    std::int64_t frame = source / frame_size;
    if (frame >= pinned) ++frame;
    rest.tokens.push_back(
        static_cast<std::int32_t>(segment.start + frame * frame_size + source % frame_size));
  }
  regions.push_back(std::move(rest));
  pinned_region.role = BlockRole::pinned_frame;
  for (std::int64_t i = 0; i < frame_size; ++i) {
    pinned_region.tokens.push_back(
        static_cast<std::int32_t>(segment.start + pinned * frame_size + i));
  }
}

Region ordered_segment(const Segment& segment, const ArrangementSpec& spec,
                       std::optional<Windows>* windows) {
  Region region;
  region.ordered = true;
  const bool has_frame0 = segment.role == Role::video && segment.frames > 1;
  for (const auto source :
       ordered_grid(spec, segment.frames, segment.height, segment.width, has_frame0, windows)) {
    region.tokens.push_back(static_cast<std::int32_t>(segment.start + source));
  }
  return region;
}

Region tokens_of_role(const Segments& segments, Role role, BlockRole block_role) {
  Region region;
  region.role = block_role;
  for (const auto& segment : segments) {
    if (segment.role != role) continue;
    for (std::int64_t i = segment.start; i < segment.end(); ++i) {
      region.tokens.push_back(static_cast<std::int32_t>(i));
    }
  }
  return region;
}

// Blocks of `block` tokens; every region starts a new block and may end in a ragged one.
Layout region_layout(const std::vector<Region>& regions, int block, std::vector<BlockRole>& roles) {
  Layout layout;
  layout.offsets = {0};
  for (const auto& region : regions) {
    const auto start = layout.offsets.back();
    const auto size = static_cast<std::int32_t>(region.tokens.size());
    for (std::int32_t done = 0; done < size; done += block) {
      layout.offsets.push_back(start + std::min<std::int32_t>(done + block, size));
      roles.push_back(region.role);
    }
  }
  layout.blocks = static_cast<std::int64_t>(layout.offsets.size()) - 1;
  return layout;
}

Orders concatenate(const std::vector<Region>& regions, std::int64_t tokens) {
  Orders order;
  order.tokens = tokens;
  order.index.reserve(static_cast<std::size_t>(tokens));
  for (const auto& region : regions) {
    order.index.insert(order.index.end(), region.tokens.begin(), region.tokens.end());
  }
  order.identity = true;
  for (std::size_t i = 0; i < order.index.size() && order.identity; ++i) {
    order.identity = order.index[i] == static_cast<std::int32_t>(i);
  }
  if (order.identity) order.index.clear();
  return order;
}

std::vector<OrderedRun> ordered_runs(const std::vector<Region>& regions) {
  std::vector<OrderedRun> runs;
  std::int32_t position = 0;
  for (const auto& region : regions) {
    const auto end = position + static_cast<std::int32_t>(region.tokens.size());
    if (region.ordered && end > position) runs.push_back({position, end});
    position = end;
  }
  return runs;
}

// In place: the blocks that hold any token of the pinned frame. Fine while the frame lies in one
// run of positions; an order that mixes frames spreads it over many blocks.
void mark_frame(const Orders& order, const Layout& layout, const Segment& video, int frame,
                bool from_content, std::vector<BlockRole>& roles, std::string& problem) {
  const auto first = video.start + frame * video.frame_size();
  std::int64_t low = order.tokens;
  std::int64_t high = -1;
  for (std::int64_t position = 0; position < order.tokens; ++position) {
    const auto token = order.token(0, position);
    if (token < first || token >= first + video.frame_size()) continue;
    low = std::min(low, position);
    high = std::max(high, position);
  }
  if (from_content || high - low + 1 != video.frame_size()) {
    problem = "the order mixes frames, so with frame0: in_place frame " + std::to_string(frame) +
              " has no blocks of its own; use frame0: segregated";
    return;
  }
  for (std::int64_t block = 0; block < layout.blocks; ++block) {
    const bool overlaps = layout.begin(0, block) <= high && layout.end(0, block) > low;
    auto& role = roles[static_cast<std::size_t>(block)];
    if (overlaps && role == BlockRole::visual) role = BlockRole::pinned_frame;
  }
}

void refuse_what_mindie_refuses(const Segments& segments, const Segment& video) {
  int visual = 0;
  for (const auto& segment : segments) visual += segment.visual() ? 1 : 0;
  if (visual != 1) {
    throw Unsupported("the released RainFusion2.0 code takes one video or image, this record has " +
                      describe(segments));
  }
  if (video.height < 8 || video.width < 8) {
    throw Unsupported(
        "the released RainFusion2.0 code raises when height or width is below 8 (grid " +
        describe(segments) + "); preset `fixed` handles it");
  }
  if (video.frames == 1 && (video.height % 8 != 0 || video.width % 8 != 0)) {
    throw Unsupported(
        "the released RainFusion2.0 code raises on one frame whose height or width is not a "
        "multiple "
        "of 8 (grid " +
        describe(segments) + "); preset `fixed` handles it");
  }
}

Arrangement arrange_mindie(const Segments& segments, std::int64_t tokens,
                           const ArrangementSpec& spec) {
  const auto visual = std::find_if(segments.begin(), segments.end(),
                                   [](const Segment& segment) { return segment.visual(); });
  if (visual == segments.end()) throw Unsupported("no visual tokens in this record");
  refuse_what_mindie_refuses(segments, *visual);
  if (count_tokens(segments, Role::pad) > 0) {
    throw Unsupported(
        "pad tokens have no place in the released RainFusion2.0 code; trim them first");
  }
  if (find_order(spec.order.at("name").get<std::string>()).from_content()) {
    throw Unsupported(
        "the released RainFusion2.0 code knows no order made from content; use block_index: "
        "regions");
  }
  Arrangement result;
  std::vector<Region> regions = {ordered_segment(*visual, spec, &result.windows),
                                 tokens_of_role(segments, Role::text, BlockRole::text)};
  result.order = concatenate(regions, tokens);
  result.score_q = region_layout(regions, spec.block_q, result.q_roles);
  const auto frame_blocks = (visual->frame_size() + spec.block_q - 1) / spec.block_q;
  std::fill_n(result.q_roles.begin(), frame_blocks, BlockRole::pinned_frame);
  result.score_k = result.score_q;
  result.k_roles = result.q_roles;
  result.q_blocks = uniform_layout(tokens, spec.block_q);
  result.k_blocks = result.q_blocks;
  return result;
}

std::vector<BlockRole> roles_by_tokens(const Segments& segments, const Layout& layout) {
  std::vector<BlockRole> roles(static_cast<std::size_t>(layout.blocks), BlockRole::visual);
  for (const auto& segment : segments) {
    if (segment.visual()) continue;
    const auto role = segment.role == Role::text ? BlockRole::text : BlockRole::pad;
    for (std::int64_t b = 0; b < layout.blocks; ++b) {
      const bool overlaps = layout.begin(0, b) < segment.end() && layout.end(0, b) > segment.start;
      auto& here = roles[static_cast<std::size_t>(b)];
      if (overlaps && here != BlockRole::text) here = role;
    }
  }
  return roles;
}

Arrangement arrange_sequence(const Segments& segments, std::int64_t tokens,
                             const ArrangementSpec& spec) {
  Arrangement result;
  const Segment* video = video_with_frames(segments);
  std::vector<Region> regions;
  for (const auto& segment : segments) {
    if (segment.visual()) {
      regions.push_back(ordered_segment(segment, spec, nullptr));
      continue;
    }
    Region region;
    for (auto i = segment.start; i < segment.end(); ++i) {
      region.tokens.push_back(static_cast<std::int32_t>(i));
    }
    regions.push_back(std::move(region));
  }
  result.order = concatenate(regions, tokens);
  result.runs = ordered_runs(regions);
  result.q_blocks = uniform_layout(tokens, spec.block_q);
  result.k_blocks = uniform_layout(tokens, spec.block_k);
  result.q_roles = roles_by_tokens(segments, result.q_blocks);
  result.k_roles = roles_by_tokens(segments, result.k_blocks);
  if (video != nullptr) {
    const int pinned = spec.pin_middle_frame ? video->frames / 2 : 0;
    const bool content = find_order(spec.order.at("name").get<std::string>()).from_content();
    mark_frame(result.order, result.q_blocks, *video, pinned, content, result.q_roles,
               result.pin_problem);
    mark_frame(result.order, result.k_blocks, *video, pinned, content, result.k_roles,
               result.pin_problem);
  }
  result.score_q = result.q_blocks;
  result.score_k = result.k_blocks;
  result.phantom_key_blocks = spec.phantom_key_blocks;
  result.score_k.blocks += spec.phantom_key_blocks;
  result.score_k.offsets.insert(result.score_k.offsets.end(),
                                static_cast<std::size_t>(spec.phantom_key_blocks),
                                static_cast<std::int32_t>(tokens));
  result.k_roles.insert(result.k_roles.end(), static_cast<std::size_t>(spec.phantom_key_blocks),
                        BlockRole::pad);
  return result;
}

}  // namespace

Arrangement arrange(const Segments& segments, std::int64_t tokens, const ArrangementSpec& spec) {
  if (spec.mindie) return arrange_mindie(segments, tokens, spec);
  if (spec.whole_sequence) return arrange_sequence(segments, tokens, spec);
  Arrangement result;
  const Segment* video = video_with_frames(segments);
  const int pinned = video != nullptr && spec.pin_middle_frame ? video->frames / 2 : 0;
  std::vector<Region> regions;
  Region pinned_region;
  for (const auto& segment : segments) {
    if (!segment.visual()) continue;
    std::optional<Windows>* windows = &segment == video ? &result.windows : nullptr;
    if (&segment == video && spec.frame0 == Frame0::segregated) {
      add_segregated(segment, pinned, spec, regions, pinned_region, windows);
    } else {
      regions.push_back(ordered_segment(segment, spec, windows));
    }
  }
  regions.push_back(std::move(pinned_region));
  regions.push_back(tokens_of_role(segments, Role::text, BlockRole::text));
  regions.push_back(tokens_of_role(segments, Role::pad, BlockRole::pad));
  result.order = concatenate(regions, tokens);
  result.runs = ordered_runs(regions);
  result.q_blocks = region_layout(regions, spec.block_q, result.q_roles);
  result.k_blocks = region_layout(regions, spec.block_k, result.k_roles);
  if (video != nullptr && spec.frame0 == Frame0::in_place) {
    const bool content = find_order(spec.order.at("name").get<std::string>()).from_content();
    mark_frame(result.order, result.q_blocks, *video, pinned, content, result.q_roles,
               result.pin_problem);
    mark_frame(result.order, result.k_blocks, *video, pinned, content, result.k_roles,
               result.pin_problem);
  }
  result.score_q = result.q_blocks;
  result.score_k = result.k_blocks;
  return result;
}

}  // namespace raingauge
