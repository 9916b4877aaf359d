// SPDX-License-Identifier: Apache-2.0
// The demo DiT for code that knows nothing of libtorch: clips from a seed, with anybody's attention
// in place of the model's own, and the true clip to judge them by.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/capture.h"
#include "data/segments.h"
#include "data/site.h"
#include "data/tensor_view.h"

namespace raingauge::demo {

enum class Mode { image_to_video, text_to_video };

std::string_view name_of(Mode mode);     // "image_to_video", "text_to_video"
Mode parse_mode(std::string_view name);  // throws Error naming the two

// Training saw grids of 16 x 24 and 18 x 22 tokens and all 21 frames; others run, less well.
struct ClipRequest {
  std::uint64_t seed = 1;  // below 2^63; names a scene that training never saw, and the noise
  Mode mode = Mode::image_to_video;
  int frames = 21;
  int grid_h = 16, grid_w = 24;  // tokens; a token is 8 x 8 pixels of one frame
  int steps = 8;
  double guidance = 1.0;  // other than 1: a second pass a step without the prompt, branch `uncond`
};

// One attention call of one batch item. Host memory on a CPU. On a CUDA device, memory of that
// device whose contents are ordered by its default stream (stream 0): work that uses another stream
// has to wait for that one, and that one for it.
struct AttentionCall {
  Site site;
  std::int64_t heads = 0, tokens = 0, head_dim = 0;
  double scale = 0.0;     // softmax(scale * q.k)
  double timestep = 0.0;  // the time that the model is told, 1 … 0: in this flow the same as
  double sigma = 0.0;     // the share of noise
  // Bits of bf16, [heads, tokens, head_dim] contiguous, after QK norm and RoPE.
  const std::uint16_t *q = nullptr, *k = nullptr, *v = nullptr;
  float* o = nullptr;  // the output, same shape and kind of memory
  Device device;

  TensorView view(const std::uint16_t* data) const {
    return contiguous_view(data, DType::bf16, heads, tokens, head_dim, device);
  }
};
using AttentionHook = std::function<void(const AttentionCall&)>;

struct ClipOptions {
  AttentionHook attention;  // fills all of `o`; empty: the model's own attention
  AttentionHook observe;    // sees the same call with `o` computed, and leaves it as it is
  std::function<void(int done, int steps)> progress;
};

class Demo {
 public:
  // `weights`: a file, or empty for the one that ships with the project. `threads`: of the tensor
  // library on the CPU; 0 leaves its own choice. Throws Error.
  static Demo load(const std::string& weights = "", const Device& device = {}, int threads = 0);
  Demo(Demo&&) noexcept;
  Demo& operator=(Demo&&) noexcept;
  ~Demo();

  // Throws Error for a request out of range, NotFinite where the attention made NaN or Inf (or left
  // part of its output unwritten); what a hook throws passes through.
  Frames generate(const ClipRequest& request, const ClipOptions& options = {}) const;

  Frames truth(const ClipRequest& request) const;  // the clip as rendered
  Frames codec_truth(
      const ClipRequest& request) const;  // and through the codec: a sample's ceiling

  int layers() const;
  int heads() const;
  int head_dim() const;
  int text_tokens() const;
  double scale() const;
  std::vector<double> timesteps(const ClipRequest& request) const;  // steps + 1 sigmas, 1 … 0
  Segments segments(const ClipRequest& request) const;              // the video, then the text
  std::string weights_path() const;
  std::string weights_sha256() const;                         // of the file
  std::string prompt_text(const ClipRequest& request) const;  // JSON: mode, camera, objects

 private:
  struct Impl;
  explicit Demo(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace raingauge::demo
