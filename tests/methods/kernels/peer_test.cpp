// SPDX-License-Identifier: Apache-2.0
// Peers in Python: right ones pass the gate that every kernel passes, and whatever a wrong one does is
// an outcome with a reason, after which the next request finds a working process.
#include "methods/kernels/peer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "data/error.h"
#include "methods/kernels/conformance.h"
#include "methods/kernels/registry.h"
#include "tests/methods/kernels/plans.h"

namespace raingauge {
namespace {

using namespace testing_kernels;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

// Attention in record order by explicit masks, numpy only.
constexpr const char* kByMask = R"py(
import numpy as np
TENSORS = "numpy"
NAME, VERSION = "by mask", "1.0"
def prepare(plan):
    n, heads = plan.tokens, plan.heads
    rows = plan.q_offsets.shape[1] - 1
    sees = np.zeros((heads, n, n), bool)
    line = lambda x, h: x[h if x.shape[0] > 1 else 0]
    for h in range(heads):
        qo = np.arange(n) if plan.q_order is None else line(plan.q_order, h)
        ko = np.arange(n) if plan.k_order is None else line(plan.k_order, h)
        qs, ks = line(plan.q_offsets, h), line(plan.k_offsets, h)
        for b in range(rows):
            r = h * rows + b
            for c in plan.columns[plan.row_offsets[r]:plan.row_offsets[r + 1]]:
                sees[h][np.ix_(qo[qs[b]:qs[b + 1]], ko[ks[c]:ks[c + 1]])] = True
    if plan.key_valid is not None:
        sees &= plan.key_valid.astype(bool)
    return plan.scale, sees
def attend(state, q, k, v):
    scale, sees = state
    s = np.where(sees, scale * (q @ k.transpose(0, 2, 1)), -np.inf)
    top = np.where(sees.any(-1), s.max(-1), 0)[..., None]
    w = np.exp(s - top)
    total = w.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    return (w @ v) / np.maximum(total, 1e-30), lse
)py";

// Attention in block order over lists of equal blocks, numpy only.
constexpr const char* kByBlocks = R"py(
import numpy as np
TENSORS, LAYOUT, BLOCK = "numpy", "blocks", 32
def supports(plan):
    plan.uniform(BLOCK)
def prepare(plan):
    return plan
def attend(plan, q, k, v):
    grid = plan.uniform(BLOCK)
    assert q.shape[1] == grid.q.length and k.shape[1] == grid.k.length
    o = np.zeros_like(q)
    lse = np.full(q.shape[:2], -np.inf, np.float32)
    for h in range(plan.heads):
        for b in range(grid.q.blocks):
            rows = slice(b * BLOCK, min((b + 1) * BLOCK, grid.q.length))
            keys, usable = [], []
            for counts, indices, masked in (
                    (grid.full_counts, grid.full_indices, False),
                    (grid.partial_counts, grid.partial_indices, True)):
                for c in indices[h, b, :counts[h, b]]:
                    at = np.arange(c * BLOCK, min((c + 1) * BLOCK, grid.k.length))
                    valid = grid.k.valid
                    if masked:
                        valid = valid[h if valid.shape[0] > 1 else 0][at]
                    elif valid is not None:
                        assert valid[h if valid.shape[0] > 1 else 0][at].all()
                        valid = np.ones(len(at), bool)
                    else:
                        valid = np.ones(len(at), bool)
                    keys.append(at)
                    usable.append(valid)
            if not keys or not np.concatenate(usable).any():
                continue
            at = np.concatenate(keys)[np.concatenate(usable)]
            s = plan.scale * (q[h, rows] @ k[h, at].T)
            top = s.max(-1, keepdims=True)
            w = np.exp(s - top)
            o[h, rows] = (w @ v[h, at]) / w.sum(-1, keepdims=True)
            lse[h, rows] = (np.log(w.sum(-1)) + top[:, 0])
    return o, lse
)py";

class Peers : public ::testing::Test {
 protected:
  void SetUp() override {
    // The tests' Python, with numpy and, where the whole set was fetched, torch.
    setenv("RAINGAUGE_PYTHON", RAINGAUGE_SOURCE_DIR "/harness/setup/python.sh", 0);
    folder_ = fs::temp_directory_path() / ("raingauge-peer-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::unique_ptr<Kernel> peer(const std::string& text, double seconds = 60.0) {
    const fs::path path = folder_ / "it.py";
    std::ofstream(path) << text;
    return make_kernel("python:" + path.string(),
                       {.threads = 1, .isa = "", .answer_seconds = seconds});
  }
  // A peer that attends by mask, with `body` in front of its attend().
  std::unique_ptr<Kernel> with(const std::string& body, double seconds = 60.0) {
    return peer(std::string(kByMask) + "right = attend\ndef attend(state, q, k, v):\n    " + body +
                    "\n    return right(state, q, k, v)\n",
                seconds);
  }

  Conformance judge(Kernel& kernel, const Plan& plan, Tensors& tensors) {
    Outputs outputs(tensors.h, tensors.n, tensors.d);
    const auto prepared = kernel.prepare(plan, tensors.inputs);
    AttendOutputs view = outputs.view();
    kernel.attend(*prepared, tensors.inputs, view);
    if (!kernel.gives_lse()) view.lse = nullptr;
    return check_conformance(kernel.spec(), plan, tensors.inputs, view, {.blocks = 1000});
  }

  std::string failure(Kernel& kernel) {
    try {
      small();
      const Conformance verdict = judge(kernel, plan_, *tensors_);
      return verdict.ok ? "passed" : "judged: " + verdict.reason;
    } catch (const Unsupported& error) {
      return std::string("unsupported: ") + error.what();
    } catch (const Error& error) {
      return std::string("failed: ") + error.what();
    }
  }

  void small() {
    std::mt19937 engine(5);
    tensors_ = std::make_unique<Tensors>(DType::f32, 2, 70, 16);
    tensors_->randomise(engine);
    plan_ = random_plan(2, 70, 32, {.keep = 0.5}, engine);
  }

  fs::path folder_;
  std::unique_ptr<Tensors> tensors_;
  Plan plan_;
};

TEST_F(Peers, AttendsEveryPlanInRecordOrder) {
  const auto kernel = peer(kByMask);
  std::mt19937 engine(1);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const bool per_head : {false, true}) {
      Tensors tensors(dtype, 2, 150, 16, Tensors::Form::interleaved);
      tensors.randomise(engine);
      const Plan plan = random_plan(2, 150, 32,
                                    {.orders = true,
                                     .per_head = per_head,
                                     .ragged = true,
                                     .empty_blocks = true,
                                     .keep = 0.4,
                                     .empty_lists = true},
                                    engine);
      const Conformance verdict = judge(*kernel, plan, tensors);
      EXPECT_TRUE(verdict.ok) << name_of(dtype) << " " << per_head << ": " << verdict.reason;
    }
  }
  EXPECT_EQ(kernel->spec().name, "it");
  EXPECT_EQ(kernel->detail(), "by mask 1.0");
}

TEST_F(Peers, IsGivenBlockOrderAndEqualBlocks) {
  const auto kernel = peer(kByBlocks);
  std::mt19937 engine(2);
  for (const std::int64_t tokens : {96, 150}) {
    for (const bool orders : {false, true}) {
      for (const bool per_head : {false, true}) {
        // Blocks of 1 to 32 tokens: every one but those of 32 is padded.
        for (const bool ragged : {false, true}) {
          Tensors tensors(DType::f32, 2, tokens, 16);
          tensors.randomise(engine);
          const Plan plan = random_plan(2, tokens, ragged ? 16 : 32,
                                        {.orders = orders,
                                         .per_head = per_head,
                                         .ragged = ragged,
                                         .empty_blocks = ragged,
                                         .keep = 0.5,
                                         .empty_lists = true},
                                        engine);
          std::vector<std::uint8_t> valid(at(tokens), 1);
          for (auto& x : valid) x = engine() % 5 != 0;
          valid[0] = 1;
          for (const bool masked : {false, true}) {
            tensors.inputs.key_valid = masked ? valid.data() : nullptr;
            const Conformance verdict = judge(*kernel, plan, tensors);
            EXPECT_TRUE(verdict.ok)
                << tokens << orders << per_head << ragged << masked << ": " << verdict.reason;
          }
        }
      }
    }
  }
}

TEST_F(Peers, SaysWhichBlocksAreTooLarge) {
  const auto kernel = peer(kByBlocks);
  std::mt19937 engine(3);
  Tensors tensors(DType::f32, 1, 200, 16);
  tensors.randomise(engine);
  const Support reason = kernel->supports(dense_plan(1, 200, 64), tensors.inputs);
  ASSERT_TRUE(reason.has_value());
  EXPECT_THAT(*reason, HasSubstr("blocks of up to 64 tokens; at most 32"));
}

// A plan of all pairs made by a peer that was given some: its outputs are right for another question.
TEST_F(Peers, IgnoringTheListsIsIncorrect) {
  const auto kernel = with("state[1][:] = True");
  EXPECT_THAT(failure(*kernel), HasSubstr("judged: row error"));
}

TEST_F(Peers, NaNIsJudgedNotFinite) {
  const auto kernel = peer(std::string(kByMask) +
                           "right = attend\n"
                           "def attend(state, q, k, v):\n"
                           "    o, lse = right(state, q, k, v)\n"
                           "    o[1, 69, 3] = np.nan\n"
                           "    return o, lse\n");
  small();
  EXPECT_EQ(judge(*kernel, plan_, *tensors_).outcome, ConformanceOutcome::not_finite);
}

TEST_F(Peers, WithoutLse) {
  const auto kernel = peer(std::string(kByMask) +
                           "right = attend\n"
                           "def attend(state, q, k, v):\n"
                           "    return right(state, q, k, v)[0], None\n");
  EXPECT_EQ(failure(*kernel), "passed");
  EXPECT_FALSE(kernel->gives_lse());
}

TEST_F(Peers, WrongShapesAndTypesAreFailures) {
  EXPECT_THAT(failure(*with("return q[:, :-1], None")),
              HasSubstr("returned o of shape [2, 69, 16], expected [2, 70, 16]"));
  EXPECT_THAT(failure(*with("return q, q")), HasSubstr("returned lse of shape"));
  EXPECT_THAT(failure(*with("return q")), HasSubstr("returned ndarray, expected (o, lse or None)"));
  EXPECT_THAT(failure(*with("return 'no', None")), HasSubstr("returned o of shape None"));
}

TEST_F(Peers, AnExceptionIsAFailureWithItsPlaceAndTheProcessLivesOn) {
  const auto kernel = with(
      "if not hasattr(prepare, 'again'):\n"
      "        prepare.again = True\n"
      "        raise ValueError('not today')");
  EXPECT_THAT(failure(*kernel), HasSubstr("ValueError: not today (it.py:"));
  EXPECT_EQ(failure(*kernel), "passed");
}

TEST_F(Peers, ACrashIsAFailureAndTheNextCallFindsANewProcess) {
  const auto mark = (folder_ / "crashed").string();
  const auto kernel = with(
      "import os, signal, sys\n"
      "    if not os.path.exists('" +
      mark +
      "'):\n"
      "        open('" +
      mark +
      "', 'w').close()\n"
      "        print('about to fall', flush=True)\n"
      "        os.kill(os.getpid(), signal.SIGSEGV)");
  const std::string first = failure(*kernel);
  EXPECT_THAT(first, HasSubstr("died of signal 11"));
  EXPECT_THAT(first, HasSubstr("about to fall"));
  EXPECT_EQ(failure(*kernel), "passed");
}

TEST_F(Peers, LeavingIsAFailure) {
  EXPECT_THAT(failure(*with("import os; os._exit(3)")), HasSubstr("ended with status 3"));
}

TEST_F(Peers, AHangIsEnded) {
  const auto kernel = with("import time; time.sleep(1000)", 1.5);
  EXPECT_THAT(failure(*kernel), HasSubstr("no answer within 1.5 s"));
}

// What a peer prints on its standard output is no answer.
TEST_F(Peers, MayPrint) {
  EXPECT_EQ(failure(*with("print('{\"ok\": true}', flush=True)")), "passed");
}

TEST_F(Peers, AMissingPackageIsUnsupportedAndNamed) {
  const auto kernel =
      peer("import no_such_package.inner\nPACKAGES = {'no_such_package': 'its-name'}\n");
  EXPECT_THAT(failure(*kernel),
              HasSubstr("unsupported: peer `it`: package its-name not installed"));
  EXPECT_THAT(failure(*kernel), HasSubstr("not installed"));
}

TEST_F(Peers, AFileThatIsNoPeerFails) {
  EXPECT_THAT(failure(*peer("def prepare(plan): pass\n")),
              HasSubstr("defines no function attend()"));
  EXPECT_THAT(failure(*peer("this is no Python\n")), HasSubstr("SyntaxError"));
  EXPECT_THROW(make_kernel("python:" + (folder_ / "none.py").string()), Error);
}

TEST_F(Peers, APeersOwnRefusalIsUnsupported) {
  const auto kernel =
      peer(std::string(kByMask) + "def supports(plan): return 'not on Wednesdays'\n");
  EXPECT_THAT(failure(*kernel), HasSubstr("unsupported: peer `it`: not on Wednesdays"));
}

TEST_F(Peers, ADenseOnlyPeerIsNotGivenSparsePlans) {
  const auto kernel = peer(std::string(kByMask) + "DENSE_ONLY = True\n");
  small();
  const Support reason = kernel->supports(plan_, tensors_->inputs);
  ASSERT_TRUE(reason.has_value());
  EXPECT_THAT(*reason, HasSubstr("is dense"));
  EXPECT_FALSE(kernel->supports(dense_plan(2, 70, 32), tensors_->inputs).has_value());
}

TEST_F(Peers, APythonThatIsNotThereIsUnsupported) {
  const char* former = std::getenv("RAINGAUGE_PYTHON");
  const std::string kept = former == nullptr ? "" : former;
  setenv("RAINGAUGE_PYTHON", "/no/such/python", 1);
  const auto kernel = peer(kByMask);
  EXPECT_THAT(failure(*kernel), HasSubstr("unsupported: peer `it`: cannot start"));
  setenv("RAINGAUGE_PYTHON", kept.c_str(), 1);
}

TEST_F(Peers, TimesItsPhases) {
  small();
  std::mt19937 engine(4);
  const Plan moved = random_plan(2, 70, 32, {.orders = true}, engine);
  const auto kernel = peer(std::string(kByBlocks) + "def predict(state, q, k): return q\n");
  Outputs outputs(2, 70, 16);
  const auto in_place = kernel->open_run(plan_, tensors_->inputs, outputs.view());
  const auto permuted = kernel->open_run(moved, tensors_->inputs, outputs.view());
  for (int i = 0; i < 2; ++i) {
    const PhaseSample a = in_place->sample();
    EXPECT_GT(a.attend, 0.0);
    EXPECT_GE(a.prepare, 0.0);
    EXPECT_GE(a.plan, 0.0);
    EXPECT_TRUE(std::isnan(a.permute));
    EXPECT_TRUE(std::isnan(a.unpermute));
    const PhaseSample b = permuted->sample();
    EXPECT_GE(b.permute, 0.0);
    EXPECT_GE(b.unpermute, 0.0);
  }
  EXPECT_FALSE(in_place->sample(false).prepared_before);
  // Nothing that is only timed is brought back.
  EXPECT_EQ(outputs.o[0], Outputs::kUnwritten);
}

// What was prepared is used again where that is asked for, and prepared again by a process that does not
// have it.
TEST_F(Peers, PreparesAgainWhereThatIsNeeded) {
  small();
  const auto mark = (folder_ / "left").string();
  const auto kernel = with("import os\n    if os.path.exists('" + mark +
                           "'):\n        os.remove('" + mark + "')\n        os._exit(3)");
  Outputs outputs(2, 70, 16);
  const auto run = kernel->open_run(plan_, tensors_->inputs, outputs.view());
  const PhaseSample first = run->sample(true);
  EXPECT_FALSE(first.prepared_before);
  EXPECT_GE(first.prepare, 0.0);
  EXPECT_TRUE(first.launch_hidden);  // the host's clock: nothing is launched
  const PhaseSample second = run->sample(true);
  EXPECT_TRUE(second.prepared_before);
  EXPECT_TRUE(std::isnan(second.prepare));
  EXPECT_GT(second.attend, 0.0);
  std::ofstream(mark).put('x');
  EXPECT_THROW(run->sample(true), Error);
  const PhaseSample after = run->sample(true);
  EXPECT_FALSE(after.prepared_before);
  EXPECT_GE(after.prepare, 0.0);
}

// The same number of contents: the same tensors, sent once; another number: sent again.
TEST_F(Peers, SendsTensorsOnceForEveryContents) {
  small();
  const auto kernel = peer(kByMask);
  tensors_->inputs.contents = 7;
  EXPECT_TRUE(judge(*kernel, plan_, *tensors_).ok);
  std::mt19937 engine(9);
  tensors_->randomise(engine);
  EXPECT_FALSE(judge(*kernel, plan_, *tensors_).ok);
  tensors_->inputs.contents = 8;
  EXPECT_TRUE(judge(*kernel, plan_, *tensors_).ok);
}

// The shipped peer that runs on a CPU too.
TEST_F(Peers, FlexAttentionConforms) {
  const auto kernel = make_kernel("python:" RAINGAUGE_SOURCE_DIR "/methods/kernels/peers/flex.py",
                                  {.threads = 2, .isa = ""});
  std::mt19937 engine(6);
  for (const bool ragged : {false, true}) {
    Tensors tensors(DType::bf16, 2, 700, 64);
    tensors.randomise(engine);
    const Plan plan = random_plan(2, 700, ragged ? 64 : 128,
                                  {.orders = true, .ragged = ragged, .keep = 0.5}, engine);
    const Support reason = kernel->supports(plan, tensors.inputs);
    if (reason && reason->find("package torch not installed") != std::string::npos) {
      GTEST_SKIP() << "skipped: " << *reason;
    }
    ASSERT_FALSE(reason.has_value()) << *reason;
    const Conformance verdict = judge(*kernel, plan, tensors);
    EXPECT_TRUE(verdict.ok) << ragged << ": " << verdict.reason;
  }
}

// Where their packages are missing, the other shipped peers say so and nothing else.
TEST_F(Peers, ShippedPeersAreUnsupportedWithoutTheirPackages) {
  small();
  for (const char* name : {"fa4", "fa4_rainfusion2", "flashinfer_sparse"}) {
    const auto kernel = make_kernel(
        std::string("python:" RAINGAUGE_SOURCE_DIR "/methods/kernels/peers/") + name + ".py");
    const Support reason = kernel->supports(plan_, tensors_->inputs);
    ASSERT_TRUE(reason.has_value()) << name;
    EXPECT_TRUE(reason->find(" not installed") != std::string::npos ||
                reason->find("runs on cuda, not on cpu") != std::string::npos)
        << *reason;
  }
}

}  // namespace
}  // namespace raingauge
