# SPDX-License-Identifier: Apache-2.0
"""libraingauge_torch.so and its place in diffusers pipelines: same plans and kernels as the program, on ten pipelines."""
import json
import os

import h5py
import numpy as np
import pytest
import torch
from raingauge_capture import CaptureError, CaptureReader, Recorder, cli, tiny
from raingauge_capture.diffusers_backend import install, load_library
from raingauge_capture.segments import text_range

load_library(os.environ["RAINGAUGE_TORCH_LIBRARY"])
attention = torch.ops.raingauge.attention
DEVICE = os.environ.get("RAINGAUGE_TEST_DEVICE", "cpu")


def qkv(heads=2, tokens=130, dim=16, seed=0, dtype=torch.float32, batch=()):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*batch, heads, tokens, dim, generator=generator).to(dtype) for _ in range(3)]


def dense(q, k, v, scale=None):
    q, k, v = (x.double() for x in (q, k, v))
    return torch.softmax(q @ k.mT * (scale or q.shape[-1] ** -0.5), -1) @ v


# -- the operator ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 1.6e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("dim", [8, 10, 12, 64, 128])
def test_dense_is_attention(dtype, tolerance, dim):
    """Tolerance: 2 (V and O rounded, P rounded) to 4 units of the dtype's rounding, outputs of order 1."""
    q, k, v = (x.to(DEVICE) for x in qkv(dim=dim, dtype=dtype))
    if DEVICE != "cpu" and dtype == torch.float32:
        with pytest.raises(RuntimeError, match="f32 is not covered"):
            attention(q, k, v, [2, 5, 13], [], "{method: dense}", 0, 0)
        return
    out = attention(q, k, v, [2, 5, 13], [], "{method: dense}", 0, 0)
    assert out.dtype == dtype and out.shape == q.shape and out.device == q.device
    assert torch.allclose(out.double(), dense(q, k, v), rtol=0, atol=tolerance)
    kernel = "reference" if DEVICE == "cpu" else "cuda"
    out = attention(q, k, v, [2, 5, 13], [], "{method: dense}", 0, 0, scale=0.3, kernel=kernel)
    assert torch.allclose(out.double(), dense(q, k, v, 0.3), rtol=0, atol=tolerance)


def test_layouts_and_batches_are_the_same():
    """Views of [B, N, H, D] (no copy) and contiguous tensors give the same bits; so do the items of a batch."""
    arm = "{method: rainfusion2, block: 16, sink: none, density: 0.4}"
    packed = torch.randn(3, 130, 3, 2, 16 if DEVICE == "cpu" else 64, generator=torch.Generator().manual_seed(1))
    packed = packed if DEVICE == "cpu" else packed.to(DEVICE, torch.bfloat16)
    q, k, v = (packed[:, :, i].transpose(1, 2) for i in range(3))
    assert not q.is_contiguous()
    together = attention(q, k, v, [2, 5, 13], [], arm, 0, 0, generation="a")
    for b in range(3):
        alone = attention(*(x[b].contiguous() for x in (q, k, v)), [2, 5, 13], [], arm, 0, 0, generation="b")
        assert torch.equal(together[b], alone)
    assert not torch.allclose(together.double(), dense(q, k, v), atol=1e-3 if DEVICE == "cpu" else 3e-2)


@pytest.mark.parametrize("name", ["wan", "cogvideox", "hunyuan"])
@pytest.mark.parametrize("arm", ["{method: rainfusion2, block: 16, density: 0.7}", "{method: local_window, block: 16, text: none, density: 0.5}"])
def test_plans_and_kernels_are_those_of_the_program(name, arm, tmp_path, raingauge):
    pipe, arguments = tiny.build(name)
    with Recorder(tmp_path / "x.h5", pipe, layers="all", steps="1", heads="all", branch="cond"):
        pipe(**arguments)
    with CaptureReader(tmp_path / "x.h5") as capture:
        record = capture.records[1]
        q, k, v = (record.tensor(x) for x in "qkv")
        grid = [side for s in record.segments if s.frames for side in (s.frames, s.height, s.width)]
        out = attention(q, k, v, grid, text_range(record.segments), arm, 1, 1, kernel="reference", generation=f"{name} {arm}")
        density = json.loads(torch.ops.raingauge.statistics(f"{name} {arm}"))[0]["density_pairs"]
    padded = record.head_dim % 8 == 0
    raingauge("attend", tmp_path / "x.h5", "--record", 1, "--arm", arm, "--match", "density", "--kernel", "reference", "--out", tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5") as file:
        expected = file["o"][()]
    if padded:
        assert np.array_equal(out.numpy(), expected)
    assert np.allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)
    plan = json.loads(raingauge("plan", tmp_path / "x.h5", "--record", 1, "--arm", arm, "--match", "density", "--out", tmp_path / "p.h5", "--json"))
    assert density == pytest.approx(np.mean(plan["density_pairs"]), rel=1e-9) and density < 1


def test_masked_keys():
    q, k, v = qkv(tokens=36)
    valid = torch.ones(36, dtype=torch.bool)
    valid[30:33] = False
    out = attention(q, k, v, [1, 5, 6], [30, 6], "{method: dense}", 0, 0, key_valid=valid)
    assert torch.allclose(out.double(), dense(q, k[:, valid], v[:, valid]), atol=1e-5)


@pytest.mark.parametrize("change, message", [
    (dict(grid=[2, 5, 12]), "grid and text"), (dict(grid=[2, 5]), "frames, height, width"), (dict(text=[3]), "start, length"),
    (dict(method="{method: rainfusion3}"), "rainfusion2"), (dict(method="{method: rainfusion2, densty: 0.2}"), "density"),
    (dict(kernel="fast"), "kernel"), (dict(text=[7, 3]), "grid and text"), (dict(kernel="torch_sdpa", method=
     "{method: rainfusion2, block: 16, sink: none, density: 0.3}"), "torch_sdpa is dense")])
def test_bad_calls_of_the_operator(change, message):
    settings = dict(grid=[2, 5, 13], text=[], method="{method: dense}", kernel="") | change
    with pytest.raises(RuntimeError, match=message):
        attention(*qkv(), settings["grid"], settings["text"], settings["method"], 0, 0, kernel=settings["kernel"])


def test_bad_tensors():
    q, k, v = qkv()
    for wrong, message in ((q[:, :8], "three equal"), (q.double(), "one dtype")):
        with pytest.raises(RuntimeError, match=message):
            attention(wrong, k, v, [2, 5, 13], [], "{method: dense}", 0, 0)
    with pytest.raises(RuntimeError, match="allowed are float32"):
        attention(q.double(), k.double(), v.double(), [2, 5, 13], [], "{method: dense}", 0, 0)


# -- pipelines -------------------------------------------------------------------------------------------

def generate(name, arm=None, steps=2, **settings):
    """(output, backend's density or None)"""
    gpu = DEVICE != "cpu"
    pipe, arguments = tiny.build(name, steps=steps, device=DEVICE, **(dict(head_dim=64, dtype=torch.bfloat16) if gpu else {}))
    if arm is None:
        return pipe(**arguments)[0], None
    with install(pipe, arm, **settings) as backend:
        output = pipe(**arguments)[0]
        if gpu and not settings:  # what a device can decide is decided there
            assert all(s["device"] == "cuda:0" and s["calls_planned_on_device"] == s["calls"] > 0 for s in backend.statistics())
        return output, backend.density()


# Of the tiny pipelines at the size that GPU kernels take, those in which attention is not drowned in bf16's rounding.
@pytest.fixture(scope="module", params=tiny.NAMES if DEVICE == "cpu" else ["cogvideox", "mochi", "hunyuan", "flux"])
def native(request):
    return request.param, generate(request.param)[0]


def relative(output, reference):
    assert torch.isfinite(output).all()
    return float((output.double() - reference.double()).norm() / reference.double().norm())


# Both kernels are float32 to a few units of rounding; two steps of two layers amplify them little. In bf16 the
# order of summation moves single elements by one unit, 2^-8.
TOLERANCE = 1e-4 if DEVICE == "cpu" else 2e-2


def test_dense_reproduces_the_native_pipeline(native):
    name, reference = native
    output, density = generate(name, "{method: dense}")
    assert relative(output, reference) < TOLERANCE and density == 1


def test_rainfusion2_at_density_1_reproduces_it(native):
    name, reference = native
    output, density = generate(name, {"method": "rainfusion2", "block": 32, "density": 1.0})
    assert relative(output, reference) < TOLERANCE and density == pytest.approx(1)


def test_a_sparse_run_finishes(native):
    name, reference = native
    output, density = generate(name, {"method": "rainfusion2", "block": 16, "sink": "none", "text": "none", "density": 0.3})
    floor = relative(generate(name, "{method: dense}")[0], reference)  # another kernel's rounding
    print(f"{name}: dense {floor:.2e}, sparse {relative(output, reference):.2e}, density {density:.4f}")
    assert 1.5 * floor < relative(output, reference) < 2 and density == pytest.approx(0.3, abs=0.02)


def test_everything_is_put_back():
    pipe, arguments = tiny.build("wan")
    reference = pipe(**arguments)[0]
    backend = install(pipe, "{method: rainfusion2, block: 16, sink: none, density: 0.3}")
    pipe, arguments = pipe, tiny.build("wan")[1]
    assert not torch.equal(pipe(**arguments)[0], reference)
    backend.remove()
    assert torch.equal(pipe(**tiny.build("wan")[1])[0], reference)
    assert not torch.overrides._get_current_function_mode_stack()


def test_dense_steps_layers_and_schedule():
    """Two layers, three steps: the counts by method say what ran where."""
    pipe, arguments = tiny.build("cogvideox", steps=3)
    sparse, other = "{method: rainfusion2, block: 16, sink: none, text: none, density: 0.3}", "{method: local_window, block: 16, density: 0.8}"
    rules = [{"layers": "0", "steps": [2], "arm": other}]
    with install(pipe, sparse, dense_steps=1, dense_layers=[1], schedule=rules) as backend:
        pipe(**arguments)
        counts = {s["method"]: s["calls"] for s in backend.statistics()}
        assert counts == {sparse: 2, other: 2} and backend.native_calls == 8  # two guidance branches a call
    with install(pipe, sparse, dense_steps=1, dense="raingauge") as backend:
        pipe(**tiny.build("cogvideox", steps=3)[1])
        assert {s["method"]: s["calls"] for s in backend.statistics()} == {sparse: 8, "{method: dense}": 4}
        pipe(**tiny.build("cogvideox", steps=5)[1])  # another clip of other length
        assert {s["method"]: s["calls"] for s in backend.statistics()} == {sparse: 24, "{method: dense}": 8}


def test_a_schedule_goes_in_as_raingauge_schedule_wrote_it(tmp_path, raingauge):
    """From a capture through `run` and `schedule`: every layer, step and head at what was chosen for it."""
    pipe, arguments = tiny.build("cogvideox")
    with Recorder(tmp_path / "x.h5", pipe, layers="all", steps="all", heads="all", branch="cond"):
        pipe(**arguments)
    (tmp_path / "sweep.yaml").write_text(
        f"schema: raingauge/1\nname: sweep\ncaptures: [{tmp_path}/x.h5]\n"
        "arms: {rf2: {method: rainfusion2, block: 16, sink: none, text: none}}\nmatrix: {rf2.density: [0.2, 0.4, 0.7]}\n"
        "rows: all\nmetrics: [rel_l2]\n")
    raingauge("run", tmp_path / "sweep.yaml", "--out", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "fidelity.jsonl").read_text().splitlines()]
    bound = float(np.median([row["metrics"]["rel_l2"]["value"] for row in rows if row["arm"] == "rf2.0.4"]))
    path = tmp_path / "schedule.json"
    raingauge("schedule", tmp_path / "run", "--max-error", f"rel_l2={bound}", "--out", path)
    schedule = json.loads(path.read_text())
    sites = {(s["layer"], s["step"], s["head"]): s["density"] for s in schedule["sites"]}
    assert len(sites) == 2 * 2 * 4 and len({s["setting"] for s in schedule["sites"]}) > 1
    with install(pipe, schedule=path) as backend:
        pipe(**tiny.build("cogvideox")[1])
        assert sum(s["calls"] for s in backend.statistics()) == 2 * 2 * 2 and backend.native_calls == 0  # both guidance branches
        assert backend.density() == pytest.approx(np.mean(list(sites.values())), abs=0.01)
    # One layer and step of it on its own.
    schedule["sites"] = [s for s in schedule["sites"] if (s["layer"], s["step"]) == (1, 0)]
    path.write_text(json.dumps(schedule))
    with install(pipe, schedule=str(path)) as backend:
        pipe(**tiny.build("cogvideox")[1])
        expected = 3 / 4 + np.mean([s["density"] for s in schedule["sites"]]) / 4
        assert backend.density() == pytest.approx(expected, abs=0.01)


def test_bad_schedules(tmp_path):
    pipe, _ = tiny.build("ltx")
    for arguments, message in (((), "give one"), (("{method: dense}", "s.json"), "give one of them"), ((None, tmp_path / "no.json"), "no such schedule")):
        with pytest.raises(CaptureError, match=message):
            install(pipe, *arguments[:1], **({"schedule": arguments[1]} if arguments[1:] else {}))


@pytest.mark.parametrize("settings, message", [
    (dict(dense_layers=[2]), "there is no layer 2"), (dict(dense_steps=7), "allowed are 0 to 2"), (dict(grids=[(3, 7, 10)]), "grid"),
    (dict(dense="fast"), "native"), (dict(schedule=[{"steps": "4", "arm": "{method: dense}"}]), "there is no step 4")])
def test_bad_calls_of_install(settings, message):
    pipe, arguments = tiny.build("ltx")
    made, step = [], pipe.scheduler.step
    pipe.scheduler.step = lambda *a, **k: (made.append(1), step(*a, **k))[1]
    with pytest.raises(CaptureError, match=message):
        with install(pipe, "{method: dense}", **settings):
            pipe(**arguments)
    assert not made


def test_what_a_method_does_not_cover_is_an_error():
    """mindie-v2 needs 8x8 windows; never a silent dense fallback."""
    pipe, arguments = tiny.build("ltx")
    with pytest.raises(RuntimeError, match="unsupported|8"):
        with install(pipe, "{method: rainfusion2, preset: mindie-v2, density: 0.2}"):
            pipe(**arguments)


def test_frames_of_a_sparse_clip_are_compared(tmp_path, raingauge):
    clips = {}
    for name, arm in (("dense", None), ("sparse", "{method: rainfusion2, block: 16, sink: none, density: 0.3}")):
        pipe, arguments = tiny.build("wan")
        arguments["output_type"] = "np"
        if arm is None:
            clips[name] = cli.frames_of(pipe(**arguments)[0])
        else:
            with install(pipe, arm):
                clips[name] = cli.frames_of(pipe(**arguments)[0])
        np.save(tmp_path / f"{name}.npy", clips[name])
    assert clips["dense"].shape == (9, 112, 144, 3)
    scores = json.loads(raingauge("frames", tmp_path / "dense.npy", tmp_path / "sparse.npy", "--metrics", "psnr,ssim_gauss11", "--json"))
    error = ((clips["dense"].astype(float) - clips["sparse"]) ** 2).mean(axis=(1, 2, 3))
    assert scores["psnr"]["per_frame"] == pytest.approx(list(10 * np.log10(255 ** 2 / error)), rel=1e-6)
    assert 0 < scores["ssim_gauss11"]["mean"] < 1
