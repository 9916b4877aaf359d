// SPDX-License-Identifier: Apache-2.0
#include "data/demo/demo.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/demo/renderer.h"
#include "data/error.h"
#include "data/sha256.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

ClipRequest tiny_request(Mode mode = Mode::image_to_video) {
  return {.seed = 9, .mode = mode, .frames = 3, .grid_h = 3, .grid_w = 4, .steps = 2};
}

class DemoTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TemporaryFolder;
    write_weights(*folder_ / "toy.safetensors", toy_weights());
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::filesystem::path path() { return *folder_ / "toy.safetensors"; }
  static Demo load() { return Demo::load(path().string(), {}, 1); }

  static TemporaryFolder* folder_;
};
TemporaryFolder* DemoTest::folder_ = nullptr;

// In double, straight from the definition.
void exact_attention(const AttentionCall& call) {
  const auto value = [&](const std::uint16_t* data, std::int64_t head, std::int64_t token,
                         std::int64_t d) {
    return static_cast<double>(
        bf16_to_float(data[(head * call.tokens + token) * call.head_dim + d]));
  };
  std::vector<double> p(static_cast<std::size_t>(call.tokens));
  for (std::int64_t h = 0; h < call.heads; ++h) {
    for (std::int64_t i = 0; i < call.tokens; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < call.tokens; ++j) {
        double score = 0;
        for (std::int64_t d = 0; d < call.head_dim; ++d) {
          score += value(call.q, h, i, d) * value(call.k, h, j, d);
        }
        p[static_cast<std::size_t>(j)] = std::exp(call.scale * score);
        sum += p[static_cast<std::size_t>(j)];
      }
      for (std::int64_t d = 0; d < call.head_dim; ++d) {
        double o = 0;
        for (std::int64_t j = 0; j < call.tokens; ++j) {
          o += p[static_cast<std::size_t>(j)] * value(call.v, h, j, d);
        }
        call.o[(h * call.tokens + i) * call.head_dim + d] = static_cast<float>(o / sum);
      }
    }
  }
}

struct Seen {
  AttentionCall call;
  std::vector<std::uint16_t> q, k, v;
  std::vector<float> o;

  explicit Seen(const AttentionCall& seen) : call(seen) {
    const std::int64_t count = seen.heads * seen.tokens * seen.head_dim;
    q.assign(seen.q, seen.q + count);
    k.assign(seen.k, seen.k + count);
    v.assign(seen.v, seen.v + count);
    o.assign(seen.o, seen.o + count);
  }
};

double rms_difference(const Frames& a, const Frames& b) {  // in levels of 8 bits
  EXPECT_EQ(a.rgb.size(), b.rgb.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) sum += std::pow(int{a.rgb[i]} - int{b.rgb[i]}, 2);
  return std::sqrt(sum / static_cast<double>(a.rgb.size()));
}

TEST_F(DemoTest, DescribesItself) {
  const Demo demo = load();
  EXPECT_EQ(demo.layers(), 2);
  EXPECT_EQ(demo.heads(), 2);
  EXPECT_EQ(demo.head_dim(), 64);
  EXPECT_EQ(demo.text_tokens(), 8);
  EXPECT_EQ(demo.scale(), 0.125);
  EXPECT_EQ(demo.weights_path(), path().string());
  EXPECT_EQ(demo.weights_sha256(), sha256_file(path().string()));
  const Segments segments = demo.segments(tiny_request());
  EXPECT_EQ(describe(segments), "video 3x3x4 + text 8");
  EXPECT_NO_THROW(check_segments(segments, 3 * 3 * 4 + 8, "demo"));
  const std::vector<double> times = demo.timesteps(tiny_request());
  ASSERT_EQ(times.size(), 3u);
  EXPECT_EQ(times.front(), 1.0);
  EXPECT_NEAR(times[1], 0.75, 1e-15);
  EXPECT_EQ(times.back(), 0.0);
}

TEST_F(DemoTest, GeneratesTheSameClipFromTheSameSeed) {
  const Demo demo = load();
  for (const Mode mode : {Mode::image_to_video, Mode::text_to_video}) {
    ClipRequest request = tiny_request(mode);
    const Frames first = demo.generate(request);
    EXPECT_EQ(first.frames, 3);
    EXPECT_EQ(first.height, 24);
    EXPECT_EQ(first.width, 32);
    ASSERT_EQ(first.rgb.size(), 3u * 24 * 32 * 3);
    EXPECT_EQ(first.rgb, demo.generate(request).rgb);
    request.seed = 10;
    EXPECT_NE(first.rgb, demo.generate(request).rgb);
  }
}

TEST_F(DemoTest, FirstFrameIsTheTrueOneThroughTheCodec) {
  const Demo demo = load();
  const Frames clip = demo.generate(tiny_request()), truth = demo.codec_truth(tiny_request());
  const auto frame = static_cast<std::ptrdiff_t>(clip.rgb.size() / 3);
  int differing = 0;
  for (std::ptrdiff_t i = 0; i < frame; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const int difference = std::abs(int{clip.rgb[at]} - int{truth.rgb[at]});
    EXPECT_LE(difference, 1);  // frame 0 is rendered alone: its last bits may differ
    differing += difference;
  }
  EXPECT_LE(differing, frame / 100);
  EXPECT_FALSE(std::equal(clip.rgb.begin() + frame, clip.rgb.end(), truth.rgb.begin() + frame));
}

TEST_F(DemoTest, TruthIsTheRenderedHeldOutScene) {
  const Demo demo = load();
  const Frames truth = demo.truth(tiny_request());
  const at::Tensor pixels = render({9 | kHeldOutBit}, full_view(3, 3, 4), at::kCPU).pixels;
  EXPECT_EQ(truth.rgb, to_rgb8(pixels));
  EXPECT_EQ(truth.rgb, demo.truth(tiny_request(Mode::text_to_video)).rgb);
  const double loss = rms_difference(truth, demo.codec_truth(tiny_request()));
  EXPECT_GT(loss, 0.0);
  // 25 dB: on so small a grid the scene's waves are a few pixels long, and the codec drops some.
  EXPECT_LT(loss, 255.0 / std::pow(10.0, 25.0 / 20.0));
}

TEST_F(DemoTest, HooksComeInOrderWithTheirSites) {
  const Demo demo = load();
  ClipRequest request = tiny_request();
  request.guidance = 1.5;
  std::vector<std::string> sites;
  std::vector<std::pair<int, int>> progress;
  ClipOptions options;
  options.attention = [&](const AttentionCall& call) {
    sites.push_back(std::to_string(call.site.step) + " " + call.site.branch + " " +
                    std::to_string(call.site.layer));
    EXPECT_EQ(call.site.batch_item, 0);
    EXPECT_EQ(call.heads, 2);
    EXPECT_EQ(call.tokens, 3 * 3 * 4 + 8);
    EXPECT_EQ(call.head_dim, 64);
    EXPECT_EQ(call.scale, 0.125);
    EXPECT_NEAR(call.sigma, call.site.step == 0 ? 1.0 : 0.75, 1e-15);
    EXPECT_EQ(call.timestep, call.sigma);
    EXPECT_EQ(call.device, Device{});
    exact_attention(call);
  };
  options.progress = [&](int done, int steps) { progress.emplace_back(done, steps); };
  demo.generate(request, options);
  EXPECT_EQ(sites, (std::vector<std::string>{"0 cond 0", "0 cond 1", "0 uncond 0", "0 uncond 1",
                                             "1 cond 0", "1 cond 1", "1 uncond 0", "1 uncond 1"}));
  EXPECT_EQ(progress, (std::vector<std::pair<int, int>>{{1, 2}, {2, 2}}));
}

TEST_F(DemoTest, ExactAttentionInTheHookGivesTheNativeClip) {
  const Demo demo = load();
  for (const Mode mode : {Mode::image_to_video, Mode::text_to_video}) {
    ClipOptions options;
    options.attention = exact_attention;
    // Differences of 1e-6 turn some bf16 roundings of later layers and steps: well under a level.
    EXPECT_LT(rms_difference(demo.generate(tiny_request(mode), options),
                             demo.generate(tiny_request(mode))),
              0.5);
    options.attention = [](const AttentionCall& call) {
      std::fill_n(call.o, call.heads * call.tokens * call.head_dim, 0.0f);
    };
    EXPECT_GT(rms_difference(demo.generate(tiny_request(mode), options),
                             demo.generate(tiny_request(mode))),
              1.0);
  }
}

TEST_F(DemoTest, ObserverSeesWhatAHookSees) {
  const Demo demo = load();
  std::vector<Seen> observed, hooked;
  ClipOptions observing, hooking;
  observing.observe = [&](const AttentionCall& call) { observed.emplace_back(call); };
  hooking.attention = [&](const AttentionCall& call) {
    exact_attention(call);
    hooked.emplace_back(call);
  };
  const Frames clip = demo.generate(tiny_request(), observing);
  EXPECT_EQ(clip.rgb, demo.generate(tiny_request()).rgb) << "observing must not change the clip";
  demo.generate(tiny_request(), hooking);
  ASSERT_EQ(observed.size(), 4u);
  ASSERT_EQ(hooked.size(), 4u);
  EXPECT_EQ(observed[0].q, hooked[0].q);
  EXPECT_EQ(observed[0].k, hooked[0].k);
  EXPECT_EQ(observed[0].v, hooked[0].v);
  for (std::size_t i = 0; i < observed[0].o.size(); ++i) {
    // fp32 sums of 64 products and of 44 keys: 64 * 8 * 2^-24 relative, |o| < 8.
    ASSERT_LE(std::abs(observed[0].o[i] - hooked[0].o[i]), 8 * 64 * 8 * 0x1p-24f);
  }
  EXPECT_EQ(observed[3].call.site.step, 1);
  EXPECT_EQ(observed[3].call.site.layer, 1);
}

TEST_F(DemoTest, ObserverSeesTheOutputOfTheHook) {
  const Demo demo = load();
  ClipOptions options;
  int seen = 0;
  options.attention = [](const AttentionCall& call) {
    std::fill_n(call.o, call.heads * call.tokens * call.head_dim, 0.25f);
  };
  options.observe = [&](const AttentionCall& call) {
    EXPECT_EQ(call.o[call.heads * call.tokens * call.head_dim - 1], 0.25f);
    ++seen;
  };
  demo.generate(tiny_request(), options);
  EXPECT_EQ(seen, 4);
}

TEST_F(DemoTest, UnwrittenOrBrokenOutputIsAnError) {
  const Demo demo = load();
  ClipOptions options;
  options.attention = [](const AttentionCall& call) {
    exact_attention(call);
    call.o[17] = std::numeric_limits<float>::infinity();
  };
  EXPECT_THROW(demo.generate(tiny_request(), options), NotFinite);
  options.attention = [](const AttentionCall& call) {  // forgets one element, in the last call
    const bool last = call.site.step == 1 && call.site.layer == 1;
    std::fill_n(call.o, call.heads * call.tokens * call.head_dim - (last ? 40 * 64 : 0), 0.1f);
  };
  EXPECT_THROW(demo.generate(tiny_request(Mode::text_to_video), options), NotFinite);
}

TEST_F(DemoTest, ErrorsOfAHookPassThrough) {
  ClipOptions options;
  options.attention = [](const AttentionCall&) { throw Infeasible("too little", 0.3); };
  EXPECT_THROW(load().generate(tiny_request(), options), Infeasible);
}

TEST_F(DemoTest, PromptTextTellsTheScene) {
  const Demo demo = load();
  const auto text = nlohmann::json::parse(demo.prompt_text(tiny_request()));
  const Scene scene = draw_scene(9 | kHeldOutBit);
  EXPECT_EQ(text.at("mode"), "image_to_video");
  EXPECT_NEAR(text.at("camera").at("pan_x").get<double>(), scene.pan_x, 1e-4);
  EXPECT_NEAR(text.at("objects").at(0).at("radius").get<double>(), scene.objects[0].radius, 1e-4);
  std::size_t present = 0;
  for (const SceneObject& object : scene.objects) present += object.present ? 1u : 0u;
  EXPECT_EQ(text.at("objects").size(), present);
  EXPECT_NE(demo.prompt_text(tiny_request()), demo.prompt_text(tiny_request(Mode::text_to_video)));
}

TEST_F(DemoTest, RefusesRequestsOutOfRange) {
  const Demo demo = load();
  const double nan = std::nan("");
  std::vector<ClipRequest> bad(13, tiny_request());
  bad[0].frames = 0;
  bad[1].frames = 22;
  bad[2].grid_h = 0;
  bad[3].grid_w = 65;
  bad[4].grid_w = std::numeric_limits<int>::min();
  bad[5].steps = 0;
  bad[6].steps = 1001;
  bad[7].guidance = nan;
  bad[8].guidance = -1.0;
  bad[9].guidance = std::numeric_limits<double>::infinity();
  bad[10].seed = std::uint64_t{1} << 63;
  bad[11].seed = ~std::uint64_t{0};
  bad[12].grid_h = 1000000;
  for (std::size_t i = 0; i < bad.size(); ++i) {
    EXPECT_THROW(demo.generate(bad[i]), Error) << i;
    EXPECT_THROW(demo.truth(bad[i]), Error) << i;
    EXPECT_THROW(demo.codec_truth(bad[i]), Error) << i;
    EXPECT_THROW(demo.segments(bad[i]), Error) << i;
    EXPECT_THROW(demo.timesteps(bad[i]), Error) << i;
    EXPECT_THROW(demo.prompt_text(bad[i]), Error) << i;
  }
}

TEST_F(DemoTest, RefusesWhatItCannotLoad) {
  EXPECT_THROW(Demo::load((*folder_ / "missing").string()), Error);
  EXPECT_THROW(Demo::load((*folder_ / ".").string()), Error);
  std::ofstream(*folder_ / "text.safetensors") << "these are no weights at all";
  EXPECT_THROW(Demo::load((*folder_ / "text.safetensors").string()), Error);
  EXPECT_THROW(Demo::load(path().string(), {}, -1), Error);
  EXPECT_THROW(parse_mode("video"), Error);
  EXPECT_EQ(parse_mode(name_of(Mode::text_to_video)), Mode::text_to_video);
}

}  // namespace
}  // namespace raingauge::demo
