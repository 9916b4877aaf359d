# SPDX-License-Identifier: Apache-2.0
"""The recorder: selections, refusals before anything is generated, other torch code, the command line."""
import types

import h5py
import pytest
import torch
import torch.nn.functional as F
from raingauge_capture import CaptureError, CaptureReader, Recorder, cli, tiny
from raingauge_capture.file import is_finite
from raingauge_capture.selection import resolve

ALL = dict(layers="all", steps="all", heads="all", branch="both")


def steps_made(pipe):
    """Counts the sampler's steps from now on."""
    made, step = [], pipe.scheduler.step
    pipe.scheduler.step = lambda *a, **k: (made.append(1), step(*a, **k))[1]
    return made


def refused(tmp_path, name, match, change=None, **settings):
    """The pipeline is refused with this message, makes no step, and leaves no file."""
    pipe, arguments = tiny.build(name)
    if change:
        change(pipe)
    made = steps_made(pipe)
    path = settings.pop("path", tmp_path / "x.h5")
    with pytest.raises(CaptureError, match=match):
        with Recorder(path, pipe, **(ALL | settings)):
            pipe(**arguments)
    assert not made
    return path


def test_unknown_layer(tmp_path):
    assert not refused(tmp_path, "wan", "there is no layer 9; the model has 2", layers="0,9").exists()
    refused(tmp_path, "wan", "names blocks.0.attn1", layers="blocks.7.attn1")


@pytest.mark.parametrize("wrong, match", [
    (dict(steps="5"), "there is no step 5"), (dict(heads="0,2"), "there is no head 2"), (dict(branch="both sides"), "--branch"),
    (dict(batch_items="x"), "--batch-items"), (dict(layers="every:0"), "allowed are"), (dict(preset_name="huge"), "no preset"),
    (dict(grids=[(3, 7, 10)]), "grid"), (dict(max_gb=1e-5), "more than --max-gb")])
def test_wrong_selection_grid_or_budget(tmp_path, wrong, match):
    assert not refused(tmp_path, "wan", match, **wrong).exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_element_that_is_not_finite_is_found_anywhere(dtype):
    x = torch.randn(301, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    x[7, 3], x[8, 3], x[9, 3] = torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).smallest_normal / 2
    assert is_finite(x)
    for place in (0, 1, 2400, 4815):
        for value in (float("nan"), float("inf"), -float("inf")):
            y = x.clone().view(-1)
            y[place] = value
            assert not is_finite(y.view(301, 16))


def test_existing_file(tmp_path):
    path = tmp_path / "there.h5"
    path.write_text("mine")
    refused(tmp_path, "ltx", "exists already", path=path)
    assert path.read_text() == "mine"


def test_no_space_left(tmp_path, monkeypatch):
    monkeypatch.setattr("raingauge_capture.file.shutil.disk_usage", lambda folder: types.SimpleNamespace(free=1000))
    refused(tmp_path, "ltx", "no space left")


def test_compiled_model_and_feature_cache(tmp_path):
    def compile_it(pipe):
        pipe.transformer = torch.compile(pipe.transformer)
    refused(tmp_path, "ltx", "compiled", compile_it)
    refused(tmp_path, "ltx", "compiled", lambda pipe: pipe.transformer.compile())
    from diffusers import FirstBlockCacheConfig
    refused(tmp_path, "wan", "feature cache", lambda pipe: pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1)))


def test_unknown_text_position(tmp_path, monkeypatch):
    monkeypatch.setattr("raingauge_capture.models.TEXT_POS", {})
    refused(tmp_path, "qwen", "--text-pos")


def test_not_finite(tmp_path):
    def break_it(pipe):
        pipe.transformer.transformer_blocks[0].attn1.to_v.weight.data[0, 0] = float("nan")
    pipe, arguments = tiny.build("ltx")
    break_it(pipe)
    with pytest.raises(CaptureError, match="step 0, layer transformer_blocks.0.attn1, head 0: v holds NaN"):
        with Recorder(tmp_path / "x.h5", pipe, **ALL):
            pipe(**arguments)


def test_a_second_generation_is_refused(tmp_path):
    pipe, arguments = tiny.build("ltx")
    with pytest.raises(CaptureError, match="second generation"):
        with Recorder(tmp_path / "x.h5", pipe, stop_early=False, **ALL):
            pipe(**arguments)
            pipe(**arguments)


def test_everything_is_put_back(tmp_path):
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as registry
    before = dict(registry._backends)
    pipe, arguments = tiny.build("wan")
    with pytest.raises(ZeroDivisionError):
        with Recorder(tmp_path / "x.h5", pipe, **ALL):
            assert registry._backends != before
            pipe(**arguments, callback_on_step_end=lambda *a: 1 / 0)
    assert registry._backends == before
    assert not ({"step", "set_timesteps"} & pipe.scheduler.__dict__.keys()) and "cache_context" not in pipe.transformer.__dict__
    assert not pipe.transformer._forward_pre_hooks and not pipe.transformer.blocks[0].attn1._forward_hooks
    assert not torch.overrides._get_current_function_mode_stack()
    with CaptureReader(tmp_path / "x.h5") as capture:  # interrupted, with what came before
        assert not capture.complete and len(capture.records) == 4


def test_selection_and_early_stop(tmp_path):
    pipe, arguments = tiny.build("cogvideox", steps=6)
    made = steps_made(pipe)
    with Recorder(tmp_path / "x.h5", pipe, layers="1", steps="1,3", heads="0,2", branch="cond", dtype=torch.bfloat16):
        pipe(**arguments)
        pytest.fail("it should have stopped after step 3")
    assert len(made) == 4
    with CaptureReader(tmp_path / "x.h5") as capture:
        assert capture.complete and capture.attributes["steps"] == 6
        assert [(r.attributes["step"], r.attributes["layer_index"], r.attributes["branch"], r.head_numbers, r.dtype)
                for r in capture.records] == [(1, 1, "cond", [0, 2], torch.bfloat16), (3, 1, "cond", [0, 2], torch.bfloat16)]
        assert [float(r.attributes["heads_total"]) for r in capture.records] == [4, 4]
    with h5py.File(tmp_path / "x.h5") as file:
        assert len(file["schedule/timesteps"]) == 6


def test_the_plan_is_what_is_written(tmp_path):
    lines = []
    pipe, arguments = tiny.build("sd3")
    with Recorder(tmp_path / "x.h5", pipe, output=True, progress=lines.append, **ALL) as running:
        pipe(**arguments)
    assert running.plan.bytes == running.writer.bytes and running.plan.records == running.records == 20
    assert any("20 of 20 records" in line and "left" in line for line in lines)


def test_masked_text_can_be_kept(tmp_path, raingauge):
    pipe, arguments = tiny.build("hunyuan")
    with Recorder(tmp_path / "x.h5", pipe, trim=False, output=True, **ALL):
        pipe(**arguments)
    with CaptureReader(tmp_path / "x.h5") as capture:
        assert [str(s) for s in capture.records[0].segments] == ["video 3x8x10", "text 16"]
        assert capture.records[0].group["key_valid"][()].tolist() == [1] * 251 + [0] * 5
    raingauge("capture", "validate", tmp_path / "x.h5")


class Toy(torch.nn.Module):
    """Self-attention in somebody's own code, with [B, H, N, D] and grouped keys."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.ModuleList([torch.nn.Linear(16, 32) for _ in range(2)])

    def forward(self, x):
        for layer in self.inner:
            q, kv = layer(x).split(16, dim=-1)
            q = q.unflatten(-1, (2, 8)).transpose(1, 2)
            k, v = (part.unflatten(-1, (1, 8)).transpose(1, 2) for part in kv.split(8, dim=-1))
            x = x + F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)
        return x


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Toy()

    def forward(self, x):
        return self.attention(x)


def test_any_torch_code(tmp_path, raingauge):
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(Block(), Block()), torch.randn(1, 65, 16)
    with torch.no_grad():
        with Recorder(tmp_path / "x.h5", model, grids=[(3, 4, 5)], text_pos="back", steps_total=3, output=True, stop_early=False,
                      layers="all", steps="0,2", heads="all") as running:
            for step in range(3):
                with running.at(step=step):
                    model(x + step)
    with CaptureReader(tmp_path / "x.h5") as capture:
        assert [(r.attributes["step"], r.attributes["layer"]) for r in capture.records] == [
            (0, "0.attention"), (0, "1.attention"), (2, "0.attention"), (2, "1.attention")]
        assert [str(s) for s in capture.records[0].segments] == ["video 3x4x5", "text 5"]
        assert torch.equal(capture.records[0].head("k", 0), capture.records[0].head("k", 1))  # expanded to query heads
    raingauge("capture", "validate", tmp_path / "x.h5")


def test_resolve():
    assert resolve("spread:4", 40, "layer") == [5, 15, 25, 35] and resolve("every:10", 40, "step") == [0, 10, 20, 30]
    assert resolve("frac:.1,.5,.9", 50, "step") == [5, 25, 45] and resolve("spread:8", 2, "head") == [0, 1]
    assert resolve("b", 3, "layer", ["a", "b", "c"]) == [1]
    with pytest.raises(CaptureError, match="there is no layer -1"):
        resolve("-1", 3, "layer")


def test_command_line(tmp_path, raingauge, capsys):
    out = tmp_path / "wan.h5"
    arguments = ["--tiny", "wan", "--out", str(out), "--preset", "study", "--layers", "all"]
    assert cli.main([*arguments, "--dry-run"]) == 0 and not out.exists()
    assert "8 records, 0.000 GB of q, k, v" in capsys.readouterr().err
    assert cli.main([*arguments, "--decode", "--height", "32", "--width", "48"]) == 0
    assert cli.main(arguments) == 1 and "exists already" in capsys.readouterr().err
    assert cli.main(["--tiny", "wan", "--out", str(tmp_path / "b.h5"), "--layers", "4"]) == 1
    assert "there is no layer 4" in capsys.readouterr().err and not (tmp_path / "b.h5").exists()
    raingauge("capture", "validate", out)
    scores = raingauge("frames", f"{out}:/frames/dense", f"{out}:/frames/dense", "--json", "--metrics", "psnr")
    assert '"infinite": 9' in scores  # nine frames, each equal to itself
