// SPDX-License-Identifier: Apache-2.0
// Where in a generation one attention call happens. Replay (a record of a capture) and `generate`
// (the live model) name their calls by the same site, so that one method serves both.
#pragma once

#include <string>

namespace raingauge {

struct Site {
  int step = 0;                 // index of the sampler's step, 0 = the noisiest
  int layer = 0;                // index of the self-attention layer in execution order
  std::string expert;           // which of several models (Wan2.2: high / low noise); empty for one
  std::string branch = "cond";  // `cond`, `uncond`, `cond_uncond` …
  int batch_item = 0;
};

}  // namespace raingauge
