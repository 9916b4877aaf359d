// SPDX-License-Identifier: Apache-2.0
// Records with planted structure at any shape: which head attends where is known beforehand, so
// that methods can be tested at full size without anybody's weights. Nothing is claimed about real
// models.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/record.h"

namespace raingauge {

// Where a head puts most of its softmax mass, for queries on visual tokens.
enum class HeadKind {
  local,     // a neighbourhood of about one token in frame, row and column
  temporal,  // its own row and column in every frame
  sink,      // the first frame (three quarters), spread over a wide neighbourhood there
  textural,  // tokens of its own content cluster, scattered over the clip
  random,    // nowhere: near-Gaussian Q and K
};

std::string_view name_of(HeadKind kind);
HeadKind parse_head_kind(std::string_view name);  // throws Error naming the five

// Zero, or -1 where zero means something, stands for "as the model has it"; without a model the
// shape must be given.
struct SyntheticSpec {
  std::string model;  // a name of model_shapes(), or empty
  int frames = 0, height = 0, width = 0;
  int text_tokens = -1;
  int text_first = -1;  // 1: before the visual tokens, 0: after them
  int references = -1;  // further images of the same size after the first, as in image editing
  int heads = 0;
  int head_dim = 0;
  int layers = 1;  // records are made for layers 0 … layers - 1
  int layers_total = 0;
  int steps = 1;
  int generations = 1;
  std::uint64_t seed = 0;
  std::string dtype;  // "" = the model's, bf16 without one
  std::vector<HeadKind> kinds{HeadKind::local, HeadKind::temporal, HeadKind::sink,
                              HeadKind::textural, HeadKind::random};  // head h has kinds[h % size]
  // Standard deviation of the content noise on each channel of Q and of K (1 in `random` heads).
  double noise = 0.5;
  // Share of a visual query's mass that text gets, where there is text (`random` heads: its fair
  // share).
  double text_mass = 0.05;
};

// The same with the model's values filled in. Throws Error for what no record can have.
SyntheticSpec complete(const SyntheticSpec& spec);

// By generation, step and layer, in this order; numbered from 0.
std::vector<RecordInfo> list_synthetic(const SyntheticSpec& spec);

// Same arguments, same bits: any number of threads (0 = all), any subset of heads. `heads` are
// original numbers, empty means all. Throws Error when an index lies outside the spec.
std::unique_ptr<Record> make_synthetic_record(const SyntheticSpec& spec, int generation, int step,
                                              int layer, std::span<const int> heads = {},
                                              int threads = 0);

// Content cluster of every visual token, in token order: what `textural` heads attend by.
std::vector<int> synthetic_clusters(const SyntheticSpec& spec, int generation);

}  // namespace raingauge
