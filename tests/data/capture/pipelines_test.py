# SPDX-License-Identifier: Apache-2.0
"""Ten pipelines of diffusers with random weights: recorded without changing a bit of their output; grids, text,
branches and experts as these models have them; every record validates and replays."""
import json

import h5py
import numpy as np
import pytest
import torch
from raingauge_capture import CaptureReader, Recorder, tiny

# name: (grid, text tokens of cond, of uncond (None: no such branch), side, layers, heads, head_dim)
EXPECTED = {
    "wan": ("3x7x9", 0, 0, None, ["blocks.0.attn1", "blocks.1.attn1"], 2, 12),
    "wan22": ("3x7x9", 0, 0, None, ["blocks.0.attn1", "blocks.1.attn1"], 2, 12),
    "hunyuan": ("3x8x10", 11, None, "back", ["transformer_blocks.0.attn", "single_transformer_blocks.0.attn"], 2, 10),
    "hunyuan15": ("4x7x9", 17, 11, "back", ["transformer_blocks.0.attn"], 2, 8),
    "cogvideox": ("3x7x9", 16, 16, "front", ["transformer_blocks.0.attn1", "transformer_blocks.1.attn1"], 4, 8),
    "mochi": ("3x7x9", 13, 6, "back", ["transformer_blocks.0.attn1", "transformer_blocks.1.attn1"], 2, 8),
    "ltx": ("4x7x9", 0, 0, None, ["transformer_blocks.0.attn1", "transformer_blocks.1.attn1"], 4, 8),
    "qwen": ("1x13x18", 12, 5, "front", ["transformer_blocks.0.attn", "transformer_blocks.1.attn"], 3, 16),
    "flux": ("1x13x18", 20, None, "front", ["transformer_blocks.0.attn", "single_transformer_blocks.0.attn"], 2, 16),
    # attn2 of the first block sees the image alone
    "sd3": ("1x13x18", 15, 15, "back", ["transformer_blocks.0.attn", "transformer_blocks.0.attn2",
                                        *(f"transformer_blocks.{i}.attn" for i in (1, 2, 3))], 4, 8)}


@pytest.fixture(scope="module", params=tiny.NAMES)
def recorded(request, tmp_path_factory):
    """(name, path, output without the hook, output with it)"""
    name = request.param
    pipe, arguments = tiny.build(name)
    plain = pipe(**arguments)[0]
    pipe, arguments = tiny.build(name)
    path = tmp_path_factory.mktemp("captures") / f"{name}.h5"
    with Recorder(path, pipe, layers="all", steps="all", heads="all", branch="both", output=True, stop_early=False,
                  attributes={"prompt": "a test", "seed": 0, "model_id": f"tiny-{name}"}):
        hooked = pipe(**arguments)[0]
    return name, path, plain, hooked


def test_output_is_bit_identical(recorded):
    _, _, plain, hooked = recorded
    assert plain.dtype == hooked.dtype and torch.equal(plain, hooked)
    assert bool(torch.isfinite(plain).all()) and float(plain.std()) > 0


def expected_segments(grid, text, side):
    visual = f"{'image' if grid.startswith('1x') else 'video'} {grid}"
    if not text:
        return [visual]
    return [f"text {text}", visual] if side == "front" else [visual, f"text {text}"]


def test_sites_grids_text_and_branches(recorded):
    name, path, _, _ = recorded
    grid, cond, uncond, side, layers, heads, head_dim = EXPECTED[name]
    texts = {"cond": cond} if uncond is None else {"cond": cond, "uncond": uncond}
    with CaptureReader(path) as capture:
        assert capture.complete and capture.attributes["steps"] == 2
        seen = set()
        for record in capture.records:
            a = record.attributes
            seen.add((a["step"], a["branch"], a["layer_index"]))
            text = 0 if a["layer"].endswith("attn2") else texts[a["branch"]]
            assert [str(s) for s in record.segments] == expected_segments(grid, text, side)
            assert a["layer"] == layers[a["layer_index"]] and a["layers_total"] == len(layers)
            assert (record.heads, record.head_dim) == (heads, head_dim) and a["kind"] == ("joint" if text else "self")
            assert a["scale"] == pytest.approx(head_dim ** -0.5) and a["batch_item"] == 0
            assert a.get("expert") == ({0: "transformer", 1: "transformer_2"}[a["step"]] if name == "wan22" else None)
        assert seen == {(s, b, i) for s in (0, 1) for b in texts for i in range(len(layers))}
        assert len(capture.records) == len(seen)
        assert capture.records[0].attributes["timestep"] != capture.records[-1].attributes["timestep"]


def test_every_record_is_what_attention_saw(recorded):
    """softmax(scale QK^T) V in float64 gives the model's own output: right tensors, scale, mask and order."""
    _, path, _, _ = recorded
    with CaptureReader(path) as capture:
        for record in capture.records:
            q, k, v, o = (record.tensor(x).double() for x in "qkvo")
            expected = torch.softmax(q @ k.transpose(1, 2) * record.attributes["scale"], -1) @ v
            # float32 attention: rounding of scores up to |s| and sums over the tokens
            assert torch.allclose(o, expected, rtol=1e-4, atol=1e-5 * float(v.abs().max()))


def test_every_record_validates(recorded, raingauge):
    _, path, _, _ = recorded
    findings = json.loads(raingauge("capture", "validate", path, "--json"))
    assert findings["valid"] and not [f for f in findings["findings"] if f["severity"] != "note"], findings


def test_every_record_replays(recorded, raingauge, tmp_path):
    _, path, _, _ = recorded
    experiment = tmp_path / "replay.yaml"
    experiment.write_text(f"""schema: raingauge/1
name: replay
captures: [{path}]
arms:
  dense: {{method: dense}}
  rf2: {{method: rainfusion2, block: 16, sink: none, density: 0.6}}
match: nominal
rows: all
metrics: [recall, rel_l2]
""")
    raingauge("run", experiment, "--out", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "fidelity.jsonl").read_text().splitlines()]
    with CaptureReader(path) as capture:
        wanted = {(i, head) for i, record in enumerate(capture.records) for head in record.head_numbers}
    for arm in ("dense", "rf2"):
        own = [row for row in rows if row["arm"] == arm]
        assert {(row["record"], row["head"]) for row in own} == wanted
        assert {row["outcome"] for row in own} == {"ok"}
    assert all(row["metrics"]["recall"]["value"] == pytest.approx(1, abs=1e-6) for row in rows if row["arm"] == "dense")
    assert all(0 < row["metrics"]["recall"]["value"] < 1 for row in rows if row["arm"] == "rf2")


def test_replay_gives_the_models_own_output(recorded, raingauge, tmp_path):
    _, path, _, _ = recorded
    raingauge("attend", path, "--record", 1, "--arm", "{method: dense}", "--kernel", "reference", "--out", tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5") as attended, CaptureReader(path) as capture:
        record = capture.records[1]
        assert np.allclose(attended["o"][()], record.tensor("o").numpy(), rtol=1e-4, atol=1e-5)
