// SPDX-License-Identifier: Apache-2.0
// The floor: seeded noise. Depends on seed, record, head and position alone.
#include "data/random.h"
#include "methods/scores/score.h"

namespace raingauge {
namespace {

ScoreMatrix random_scores(const ScoreRequest& request) {
  ScoreMatrix scores;
  scores.rows = request.q_blocks.blocks;
  scores.columns = request.k_blocks.blocks;
  scores.values.resize(static_cast<std::size_t>(scores.rows * scores.columns));
  const auto& info = *request.record.info;
  const auto original_head = static_cast<std::uint64_t>(info.heads.at(std::size_t(request.head)));
  const auto stream =
      hash_seed({request.seed, static_cast<std::uint64_t>(info.number), original_head});
  for (std::size_t i = 0; i < scores.values.size(); ++i) {
    scores.values[i] = static_cast<float>(uniform01(mix64(stream ^ mix64(i))));
  }
  return scores;
}

}  // namespace

ScoreEntry random_score() { return {"random", "seeded noise (a floor)", "", {}, random_scores}; }

}  // namespace raingauge
