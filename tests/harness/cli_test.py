# SPDX-License-Identifier: Apache-2.0
"""The program as people and other programs use it: files, exit codes, messages, resuming.

Runs the binary named by $RAINGAUGE on small captures; checks what it writes with h5py and numpy.
"""
import json
import os
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest

PROGRAM = os.environ["RAINGAUGE"]
SYNTH = "{grid: [4, 10, 9], text_tokens: 6, heads: 3, head_dim: 16, layers: 2, steps: 2, seed: 3}"


def run(*args, code=0, cwd=None):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=300, cwd=cwd)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "synthetic.h5"
    run("capture", "synth", SYNTH, "--out", path)
    return path


def experiment(folder, capture, extra="", arms=None, captures=None):
    text = f"""schema: raingauge/1
name: test
captures: [{captures or capture}]
arms:
  {arms or "rf2: {method: rainfusion2, block: 32, density: 0.6}"}
{extra}
"""
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


MATRIX = """matrix:
  rf2.order: [raster, frame_window, {window3d: {window: [2, 4, 4]}}]
  rf2.sink: [none, both]
  rf2.density: [0.6, 0.7]
controls: {arms: [random, oracle_row], heads: all}
rows: {sample: 64, seed: 0}
metrics: [recall, oracle_gap, rel_l2, cosine]
"""


def rows_of(folder, stream):
    path = folder / f"{stream}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def numpy_attention(q, k, v, scale):
    s = scale * q @ k.T
    m = s.max(1, keepdims=True)
    p = np.exp(s - m)
    return (p @ v) / p.sum(1, keepdims=True), np.log(p.sum(1)) + m[:, 0]


def test_help_and_lists():
    assert "Exit codes" in run("--help").stdout
    for what in ("methods", "orders", "selectors", "scores", "metrics", "kernels", "devices"):
        rows = json.loads(run("list", what, "--json").stdout)
        assert rows, what
    assert "cuda" in run("list", "kernels").stdout  # listed even where it is not built
    assert "mindie-v2" in run("explain", "rainfusion2").stdout
    for entry in json.loads(run("list", "methods", "--json").stdout):
        run("explain", entry["name"])


@pytest.mark.parametrize("arguments", [["--nonsense"], ["run"], ["run", "missing.yaml"], ["list", "metods"],
                                       ["explain", "rainfuson2"], ["capture", "info", "missing.h5"],
                                       ["frames", "a.npy", "b.npy"]])
def test_wrong_usage_is_exit_code_1(arguments):
    done = run(*arguments, code=1)
    assert done.stderr.strip() or done.stdout.strip()


@pytest.mark.parametrize("extra,arms,needles", [
    ("rows: {sampel: 3}", None, ["experiment.yaml:6", "sampel", "sample"]),
    ("metrics: [recal]", None, ["experiment.yaml:6", "recall"]),
    ("", "rf2: {method: rainfusion2, sinkk: both}", ["experiment.yaml:5", "sink"]),
    ("", "rf2: {method: rainfusion2, density: 1.5}", ["experiment.yaml:5", "density", "(0, 1]"]),
    ("", "rf2: {method: rainfusion3}", ["experiment.yaml:5", "rainfusion2"]),
    ("", "rf2: {method: rainfusion2, order: {window3d: {windw: [2, 2, 2]}}}", ["experiment.yaml:5", "window"]),
])
def test_wrong_experiments_name_file_line_and_nearest_name(tmp_path, capture, extra, arms, needles):
    done = run("run", experiment(tmp_path, capture, extra, arms), "--out", tmp_path / "run", code=1)
    for needle in needles:
        assert needle in done.stderr, done.stderr
    assert not (tmp_path / "run" / "fidelity.jsonl").exists()


def test_nothing_matched_is_exit_code_3(tmp_path, capture):
    done = run("run", experiment(tmp_path, capture, "select: {layers: [77]}"), "--out", tmp_path / "run", code=3)
    assert "layers 0, 1" in done.stderr


def test_dense_steps_and_layers_of_an_arm_are_dense_in_a_replay(tmp_path, capture):
    """Layers 0 and 1, steps 0 and 1: step 0 and layer 1 dense leave one record to the method. A schedule keeps that."""
    arms = "rf2: {method: rainfusion2, block: 32, density: 0.6, dense_steps: 1, dense_layers: [1]}"
    out = tmp_path / "run"
    latency = "latency: {kernels: [cpu], warmup: 0, min_samples: 1, max_seconds: 0.1, records: all}"
    run("run", experiment(tmp_path, capture, "rows: {sample: 64, seed: 0}\nmetrics: [recall, rel_l2]\n" + latency, arms), "--out", out)
    for row in rows_of(out, "fidelity"):
        dense = row["step"] == 0 or row["layer"] == 1
        assert row.get("dense_site", False) == dense and row["params"]["dense_steps"] == [0]
        if dense:
            assert row["density_pairs"] == 1 and abs(row["metrics"]["recall"]["value"] - 1) < 1e-5
            assert row["metrics"]["rel_l2"]["value"] < 1e-5
        else:
            assert abs(row["density_pairs"] - 0.6) < 32 * 32 / 366 ** 2 and row["metrics"]["recall"]["value"] < 0.999
    timed = {(r["step"], r["layer"]): r["density_pairs"] for r in rows_of(out, "latency") if r["arm"] == "rf2"}
    assert len(timed) == 4 and [place for place, density in timed.items() if density < 1] == [(1, 0)]
    assert all(r["outcome"] == "ok" for r in rows_of(out, "conformance"))
    run("schedule", out, "--max-error", "rel_l2=9", "--out", tmp_path / "s.json")
    plan = lambda record: json.loads(run("plan", capture, "--record", record, "--arm", f"{{method: schedule, path: {tmp_path}/s.json}}",  # noqa: E731
                                         "--match", "density", "--out", tmp_path / f"p{record}.h5", "--json").stdout)
    densities = sorted(np.mean(plan(record)["density_pairs"]) for record in range(4))
    assert densities[1:] == [1, 1, 1] and abs(densities[0] - 0.6) < 0.01


def test_host_phases_can_be_sampled_less_often(tmp_path, capture):
    latency = "latency: {kernels: [cpu, reference], warmup: 2, min_samples: 5, max_noise: 9, max_seconds: 0.1, host_samples: 2}"
    out = tmp_path / "run"
    run("run", experiment(tmp_path, capture, latency), "--out", out)
    for row in rows_of(out, "latency"):
        assert row["attend_ms"]["n"] == 5 and row["prepare_ms"]["n"] == 2 and row["total_ms"]["n"] == 2
        assert row["launch_hidden"] is None  # the host launches nothing
        if row["arm"] == "rf2":
            assert row["plan_ms"]["n"] == 2 and row["total_given_prepare_ms"]["n"] == 2
        else:
            assert row["plan_ms"] is None and row["total_given_prepare_ms"]["n"] == 5
    done = run("run", experiment(tmp_path, capture, latency.replace("host_samples: 2", "host_samples: 0")), "--out", tmp_path / "no", code=1)
    assert "host_samples" in done.stderr


def test_run_writes_rows_tables_and_manifest(tmp_path, capture):
    path = experiment(tmp_path, capture, MATRIX +
                      "latency: {kernels: [cpu, reference], warmup: 0, min_samples: 2, max_seconds: 0.1}")
    out = tmp_path / "run"
    done = run("run", path, "--out", out)
    fidelity = rows_of(out, "fidelity")
    arms = [r for r in fidelity if "control" not in r]
    assert len(arms) == 12 * 4 * 3 and all(r["outcome"] == "ok" for r in fidelity)
    for row in arms:
        assert abs(row["density_pairs"] - row["nominal_density"]) < 32 * 32 / 366 ** 2
        assert 0 < row["metrics"]["recall"]["value"] <= 1 + 1e-6
        assert row["metrics"]["recall"]["lo"] <= row["metrics"]["recall"]["value"] <= row["metrics"]["recall"]["hi"]
        assert row["metrics"]["oracle_gap"]["value"] >= -1e-6
    conformance = rows_of(out, "conformance")
    assert conformance and all(r["outcome"] == "ok" for r in conformance)
    latency = rows_of(out, "latency")
    assert {r["kernel"] for r in latency} == {"cpu", "reference"}
    assert all(r["attend_ms"]["n"] >= 2 for r in latency)
    assert (out / "report.md").read_text().count("rf2.raster.none") >= 2
    assert "fidelity,rf2.raster.none" in (out / "summary.csv").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["reproduce"].startswith("raingauge run")
    assert "rf2.raster.none" in done.stdout

    before = {s: (out / f"{s}.jsonl").read_bytes() for s in ("fidelity", "conformance", "latency")}
    run("run", path, "--out", out)
    assert before == {s: (out / f"{s}.jsonl").read_bytes() for s in before}, "a second run computed again"


def test_kill_and_run_again_equals_an_uninterrupted_run(tmp_path):
    big = tmp_path / "big.h5"
    run("capture", "synth", "{grid: [6, 20, 20], heads: 4, head_dim: 32, layers: 6, steps: 3, seed: 5}", "--out", big)
    path = experiment(tmp_path, big, MATRIX)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("run", path, "--out", whole)
    total = len(rows_of(whole, "fidelity"))
    kills = 0
    for _ in range(4):
        process = subprocess.Popen([PROGRAM, "run", str(path), "--out", str(killed)],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        start = len((killed / "fidelity.jsonl").read_bytes()) if (killed / "fidelity.jsonl").exists() else 0
        while process.poll() is None:
            stream = killed / "fidelity.jsonl"
            if stream.exists() and stream.stat().st_size > start + 20000:
                process.send_signal(signal.SIGKILL)
                kills += 1
            time.sleep(0.002)
        process.wait()
    assert kills >= 1, "the run ended before it could be killed"
    run("run", path, "--out", killed)

    def content(folder):
        rows = rows_of(folder, "fidelity")
        return sorted(json.dumps(r, sort_keys=True) for r in rows)

    assert len(rows_of(killed, "fidelity")) == total
    assert content(killed) == content(whole)


def test_captures_and_plans_are_plain_hdf5(tmp_path, capture):
    with h5py.File(capture) as file:
        assert file.attrs["format"] in ("raingauge-capture", b"raingauge-capture") and file.attrs["complete"] == 1
        record = file["records/000000"]
        q, k, v = (record[name][...].astype(np.float64) for name in "qkv")
        scale = record.attrs["scale"]
        assert q.shape == (3, 366, 16)
    plan = tmp_path / "plan.h5"
    run("plan", capture, "--record", 0, "--arm", "{method: rainfusion2, block: 32, density: 0.6}", "--out", plan)
    out = tmp_path / "o.h5"
    run("attend", capture, "--record", 0, "--arm", "{method: plan_file, path: %s}" % plan, "--out", out)
    with h5py.File(plan) as file, h5py.File(out) as result:
        order = file["q_order"][...][0]
        q_offsets, k_offsets = file["q_offsets"][...][0], file["k_offsets"][...][0]
        offsets, columns = file["row_offsets"][...], file["columns"][...]
        assert sorted(order) == list(range(366))
        for head in range(3):
            kept = 0
            for block in range(len(q_offsets) - 1):
                rows = order[q_offsets[block]:q_offsets[block + 1]]
                blocks = columns[offsets[head, block]:offsets[head, block + 1]]
                keys = np.concatenate([file["k_order"][...][0][k_offsets[b]:k_offsets[b + 1]] for b in blocks])
                kept += len(rows) * len(keys)
                o, lse = numpy_attention(q[head][rows], k[head][keys], v[head][keys], scale)
                # bf16 probabilities: 2^-9 relative each; o is of order 1.
                assert np.abs(result["o"][...][head][rows] - o).max() < 2e-2
                assert np.abs(result["lse"][...][head][rows] - lse).max() < 1e-3
            assert abs(kept / 366 ** 2 - file["density_pairs"][...][head]) < 1e-12


def test_a_plan_made_by_h5py_runs_as_a_method(tmp_path, capture):
    path = tmp_path / "foreign.h5"
    rng = np.random.default_rng(1)
    n, blocks = 366, 12
    bounds = np.linspace(0, n, blocks + 1).astype(np.int32)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"] = "raingauge-plan", 1
        file["q_order"] = rng.permutation(n).astype(np.int32)[None]
        file["k_order"] = rng.permutation(n).astype(np.int32)[None]
        file["q_offsets"] = file["k_offsets"] = bounds[None]
        lists = [np.sort(rng.choice(blocks, 4, replace=False)) for _ in range(3 * blocks)]
        starts = np.arange(0, 4 * 3 * blocks + 1, 4)
        file["row_offsets"] = np.stack([starts[h * blocks:(h + 1) * blocks + 1] for h in range(3)]).astype(np.int64)
        file["columns"] = np.concatenate(lists).astype(np.int32)
        file["heads"] = np.arange(3, dtype=np.int32)
    yaml = experiment(tmp_path, capture, "metrics: [recall]", "mine: {method: plan_file, path: foreign.h5}")
    run("run", yaml, "--out", tmp_path / "run")
    assert all(r["outcome"] == "ok" and 0.2 < r["density_pairs"] < 0.5 for r in rows_of(tmp_path / "run", "fidelity"))
    with h5py.File(path, "r+") as file:
        file["columns"][0] = 99
    done = subprocess.run([PROGRAM, "run", str(yaml), "--out", str(tmp_path / "run2")], capture_output=True,
                          text=True)
    assert done.returncode in (1, 2) and "foreign.h5" in done.stderr + done.stdout


def test_damaged_captures_are_clear_errors(tmp_path, capture):
    whole = capture.read_bytes()
    (tmp_path / "text.h5").write_text("not hdf5")
    (tmp_path / "short.h5").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "empty.h5").write_bytes(b"")
    for name in ("text.h5", "short.h5", "empty.h5"):
        done = run("capture", "info", tmp_path / name, code=1)
        assert name in done.stderr, done.stderr
    for name, damage in {"nan.h5": lambda f: f["records/000000/q"].id.write(
                             h5py.h5s.ALL, h5py.h5s.ALL, np.full((3, 366, 16), 0x7FC0, "u2"),
                             mtype=f["records/000000/q"].id.get_type()),
                         "segments.h5": lambda f: f["records/000000"].__delitem__("segments")}.items():
        path = tmp_path / name
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            damage(file)
        done = subprocess.run([PROGRAM, "run", str(experiment(tmp_path, path)), "--out", str(tmp_path / name[:-3])],
                              capture_output=True, text=True)
        assert done.returncode in (1, 2) and name in done.stderr + done.stdout, (name, done.stderr, done.stdout)


def test_unsupported_infeasible_and_strict(tmp_path, capture):
    arms = "a: {method: rainfusion2, preset: mindie-v2, score: fp32, density: 0.5}\n" \
           "  b: {method: rainfusion2, block: 32, density: 0.05}"
    wide = tmp_path / "thin.h5"
    run("capture", "synth", "{grid: [3, 6, 20], heads: 1, head_dim: 16, layers: 1, steps: 1}", "--out", wide)
    path = experiment(tmp_path, wide, arms=arms)
    run("run", path, "--out", tmp_path / "run")
    outcomes = {r["arm"]: r for r in rows_of(tmp_path / "run", "fidelity")}
    assert outcomes["a"]["outcome"] == "unsupported" and "8" in outcomes["a"]["reason"]
    assert outcomes["b"]["outcome"] == "infeasible" and outcomes["b"]["least_density"] > 0.05
    run("run", path, "--out", tmp_path / "run", "--strict", code=2)
    done = run("plan", wide, "--arm", "{method: rainfusion2, preset: mindie-v2}", "--out", tmp_path / "p.h5", code=2)
    assert "unsupported" in done.stderr


def test_frames_of_identical_and_different_clips(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 16, 20, 3), dtype=np.uint8)
    b = a.copy()
    b[1] = np.clip(b[1].astype(int) + 4, 0, 255).astype(np.uint8)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    scores = json.loads(run("frames", tmp_path / "a.npy", tmp_path / "b.npy", "--json").stdout)
    mse = np.mean((a[1].astype(float) - b[1]) ** 2)
    assert scores["psnr"]["per_frame"][0] is None and scores["psnr"]["infinite"] == 1
    assert abs(scores["psnr"]["per_frame"][1] - 10 * np.log10(255 ** 2 / mse)) < 1e-9
    assert abs(scores["ssim_uniform7"]["per_frame"][0] - 1) < 1e-12


def test_dry_run_computes_nothing(tmp_path, capture):
    done = run("run", experiment(tmp_path, capture, MATRIX), "--out", tmp_path / "run", "--dry-run")
    assert "48 fidelity cells" in done.stdout and "peak memory" in done.stdout
    assert not (tmp_path / "run").exists()


def test_set_overrides_and_validates(tmp_path, capture):
    path = experiment(tmp_path, capture)
    run("run", path, "--out", tmp_path / "run", "--set", "rf2.density=0.7")
    assert {r["nominal_density"] for r in rows_of(tmp_path / "run", "fidelity")} == {0.7}
    run("run", path, "--out", tmp_path / "run2", "--set", "rf2.densty=0.7", code=1)


PEER = """
import numpy as np
TENSORS = "numpy"
def prepare(plan):
    {prepare}
    return plan
def attend(plan, q, k, v):
    sees = np.zeros((plan.heads, plan.tokens, plan.tokens), bool)
    order = np.arange(plan.tokens) if plan.q_order is None else plan.q_order[0]
    rows = plan.q_offsets.shape[1] - 1
    for r in range(plan.heads * rows):
        q_at = order[plan.q_offsets[0, r % rows]:plan.q_offsets[0, r % rows + 1]]
        for c in plan.columns[plan.row_offsets[r]:plan.row_offsets[r + 1]]:
            sees[r // rows][np.ix_(q_at, order[plan.k_offsets[0, c]:plan.k_offsets[0, c + 1]])] = True
    s = np.where(sees, plan.scale * (q @ k.transpose(0, 2, 1)), -np.inf)
    w = np.exp(s - s.max(-1, keepdims=True))
    total = w.sum(-1, keepdims=True)
    return w @ v / total, (np.log(total) + s.max(-1, keepdims=True))[..., 0]
"""


def test_peers_take_part_and_a_broken_one_stops_nothing(tmp_path, capture):
    (tmp_path / "good.py").write_text(PEER.format(prepare="pass"))
    # Passes the gate, then dies while it is timed.
    (tmp_path / "dies.py").write_text(PEER.format(
        prepare="plan.turns = getattr(plan, 'turns', 0) + 1\n    if plan.turns > 1: import os; os._exit(9)"))
    (tmp_path / "wrong.py").write_text(PEER.format(prepare="plan.scale *= 1.1"))
    (tmp_path / "absent.py").write_text("import no_such_package\n" + PEER.format(prepare="pass"))
    names = ["good", "dies", "wrong", "absent"]
    kernels = ", ".join(["cpu"] + [f'"python:{name}.py"' for name in names])
    latency = f"latency: {{kernels: [{kernels}], warmup: 1, min_samples: 2, max_noise: 9, max_seconds: 1}}\n"
    run("run", experiment(tmp_path, capture, latency), "--out", tmp_path / "run", code=2)
    judged = {(r["kernel"], r["arm"]): r for r in rows_of(tmp_path / "run", "conformance")}
    for arm in ("dense", "rf2"):
        assert judged["good", arm]["outcome"] == "ok", judged["good", arm]["reason"]
        assert judged["wrong", arm]["outcome"] == "incorrect"
        assert judged["absent", arm]["outcome"] == "unsupported"
        assert "package no_such_package not installed" in judged["absent", arm]["reason"]
    timed = {(r["kernel"], r["arm"]): r for r in rows_of(tmp_path / "run", "latency")}
    good = timed["good", "rf2"]
    assert good["outcome"] == "ok" and good["attend_ms"]["n"] == 2 and good["permute_ms"] is None
    assert good["plan_device"] == "cpu" and good["caches"] and good["gpu"] is None
    assert set(good["dense_kernels"]) >= {"cpu", "good"} and good["dense_kernel"] in good["dense_kernels"]
    assert good["dense_ms"] == min(good["dense_kernels"].values())
    assert timed["dies", "rf2"]["outcome"] == "failed"
    assert "ended with status 9" in timed["dies", "rf2"]["reason"]
    assert timed["cpu", "rf2"]["outcome"] == "ok"


def test_a_transformer_block_at_a_small_size(tmp_path):
    if "not built" in run("list", "kernels", "--json").stdout.split("torch_sdpa")[1][:400]:
        pytest.skip("skipped: this build has no libtorch")
    latency = "latency: {kernels: [cpu, torch_sdpa], warmup: 0, min_samples: 2, max_noise: 9, max_seconds: 1}\n"
    for model in ("wan21-14b-720p", "hunyuan-720p"):
        block = f"{{dit_block: {{model: {model}, grid: [3, 8, 9], heads: 2, seed: 1}}}}"
        path = experiment(tmp_path, None, latency, captures=block, arms="rf2: {method: rainfusion2, "
                          "block: 32, sink: none, text: none, density: 0.6}")
        run("run", path, "--out", tmp_path / model)
        row = next(r for r in rows_of(tmp_path / model, "latency") if r["arm"] == "rf2")
        assert row["tokens"] == 216 + (256 if model.startswith("hunyuan") else 0)
        assert row["surroundings_ms"]["n"] == 2 and row["dense_inline_ms"]["n"] == 2
        # all phases but prepare: a model hands its kernel lists in that kernel's own form
        total, rest = row["total_given_prepare_ms"]["median"], row["surroundings_ms"]["median"]
        assert abs(row["block_ms"] - total - rest) < 1e-9
        assert abs(row["attention_share"] - total / (total + rest)) < 1e-9
        gain = (row["dense_ms"] + rest) / (total + rest)
        assert abs(row["block_speedup_vs_dense"] - gain) < 1e-9
