# SPDX-License-Identifier: Apache-2.0
"""Captures to and from other programs' files, differences of captures, parity of foreign outputs and masks."""
import json
import os
import subprocess

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

PROGRAM = os.environ["RAINGAUGE"]
SYNTH = "{grid: [4, 10, 9], text_tokens: 6, heads: 3, head_dim: 16, layers: 2, steps: 2, seed: 3}"


def run(*args, code=0):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "a.h5"
    run("capture", "synth", SYNTH, "--out", path)
    return path


@pytest.mark.parametrize("name", ["x.safetensors", "x"])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_round_trip_keeps_bits_and_attributes(capture, tmp_path, name, dtype):
    run("capture", "convert", capture, "--dtype", dtype, "--out", tmp_path / "typed.h5")
    run("capture", "convert", tmp_path / "typed.h5", "--out", tmp_path / name)
    run("capture", "convert", tmp_path / name, "--out", tmp_path / "back.h5")
    rows = json.loads(run("capture", "diff", tmp_path / "typed.h5", tmp_path / "back.h5", "--json"))
    assert rows["within"] and len(rows["rows"]) == 12 and all(row["identical"] for row in rows["rows"])
    assert json.loads(run("capture", "validate", tmp_path / "back.h5", "--json"))["valid"]
    infos = [json.loads(run("capture", "info", tmp_path / f, "--json")) for f in ("typed.h5", "back.h5")]
    assert infos[0]["records"] == infos[1]["records"] and infos[0]["generation"] == infos[1]["generation"]


def test_other_programs_read_what_we_write(capture, tmp_path):
    run("capture", "convert", capture, "--dtype", "f32", "--out", tmp_path / "f.h5")
    run("capture", "convert", tmp_path / "f.h5", "--records", 1, "--heads", "2,0", "--out", tmp_path / "x.safetensors")
    run("capture", "convert", tmp_path / "f.h5", "--records", 1, "--heads", "2,0", "--out", tmp_path / "npy")
    with h5py.File(tmp_path / "f.h5") as file:
        expected = file["records/000001/k"][()][[2, 0]]
    assert np.array_equal(load_file(tmp_path / "x.safetensors")["records/000001/k"], expected)
    assert np.array_equal(np.load(tmp_path / "npy" / "000001_k.npy"), expected)
    assert "exists already" in run("capture", "convert", capture, "--out", tmp_path / "x.safetensors", code=1)


@pytest.mark.parametrize("layout", ["hnd", "nhd"])
def test_arrays_of_other_programs_come_in(tmp_path, layout):
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((3, 366, 16)).astype(np.float16) for _ in range(3))
    stored = {f"layer.7.{n}": np.ascontiguousarray(x if layout == "hnd" else x.transpose(1, 0, 2))[None] for n, x in (("q", q), ("k", k), ("v", v))}
    save_file(stored, tmp_path / "dump.safetensors")
    out = tmp_path / "d.h5"
    assert "give --grid" in run("capture", "convert", tmp_path / "dump.safetensors", "--layout", layout, "--out", out, code=1)
    out = tmp_path / "e.h5"
    assert "--text-pos" in run("capture", "convert", tmp_path / "dump.safetensors", "--grid", "4,10,9", "--out", out, code=1)
    out = tmp_path / "g.h5"
    run("capture", "convert", tmp_path / "dump.safetensors", "--grid", "4,10,9", "--text-pos", "back", "--as-layer", 7, "--as-step", 2, "--out", out)
    with h5py.File(out) as file:
        record = file["records/000000"]
        assert np.array_equal(record["k"][()], k) and record.attrs["layer_index"] == 7 and record.attrs["step"] == 2
        assert [r["role"] for r in record["segments"][()]] == [b"video", b"text"]
    assert json.loads(run("capture", "validate", out, "--json"))["valid"]


def test_an_ambiguous_layout_is_refused(tmp_path):
    for name in "qkv":
        np.save(tmp_path / f"{name}.npy", np.zeros((24, 24, 8), np.float32))
    assert "two layouts" in run("capture", "convert", tmp_path, "--grid", "2,3,4", "--out", tmp_path / "x.h5", code=1)


def test_broken_files_are_errors(capture, tmp_path):
    run("capture", "convert", capture, "--out", tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        run("capture", "convert", tmp_path / "cut.safetensors", "--out", tmp_path / f"{size}.h5", code=1)
    (tmp_path / "json.safetensors").write_bytes(whole.replace(b'raingauge-capture', b'raingauge-captura'))
    assert "version 1" in run("capture", "convert", tmp_path / "json.safetensors", "--out", tmp_path / "y.h5", code=1)


def test_diff_finds_what_differs(capture, tmp_path):
    run("capture", "slice", capture, "--layers", 0, "--out", tmp_path / "part.h5")
    rows = json.loads(run("capture", "diff", capture, tmp_path / "part.h5", "--json", code=2))["rows"]
    assert sum("only in" in row.get("reason", "") for row in rows) == 2
    run("capture", "convert", capture, "--dtype", "f16", "--out", tmp_path / "half.h5")
    run("capture", "convert", capture, "--dtype", "f32", "--out", tmp_path / "full.h5")
    assert not json.loads(run("capture", "diff", tmp_path / "full.h5", tmp_path / "half.h5", "--json", "--tolerance", 1e-3))["rows"][0]["identical"]
    with h5py.File(tmp_path / "full.h5", "r+") as file:
        before = file["records/000002/v"][1, 5, 3]
        file["records/000002/v"][1, 5, 3] = before + 1
    rows = json.loads(run("capture", "diff", tmp_path / "full.h5", tmp_path / "half.h5", "--json", "--tolerance", 1e-3, code=2))["rows"]
    worst = max(rows, key=lambda row: row["rel_l2"])
    assert worst["tensor"] == "v" and worst["worst_head"] == 1 and worst["max_abs"] == pytest.approx(1, abs=1e-2)


@pytest.fixture(scope="module")
def attended(capture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attended")
    run("attend", capture, "--record", 0, "--arm", "{method: dense}", "--kernel", "reference", "--out", folder / "o.h5")
    run("plan", capture, "--record", 0, "--arm", "{method: rainfusion2, block: 32, density: 0.7}", "--out", folder / "p.h5")
    with h5py.File(folder / "o.h5") as file:
        return folder, file["o"][()]


@pytest.mark.parametrize("make, layout", [
    (lambda o: o, "hnd"), (lambda o: o[None], "hnd"), (lambda o: o.transpose(1, 0, 2), "nhd"),
    (lambda o: o.transpose(1, 0, 2).reshape(1, o.shape[1], -1), "nhd"), (lambda o: o.astype(np.float16), "hnd"), (lambda o: o.astype(np.float64), "hnd")])
@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_parity_tells_the_layout(attended, tmp_path, make, layout, kind):
    folder, o = attended
    theirs = np.ascontiguousarray(make(o))
    path = tmp_path / f"x.{kind}"
    np.save(path, theirs) if kind == "npy" else save_file({"out": theirs}, path)
    result = json.loads(run("parity", folder / "o.h5", path, "--json"))
    assert result["layout"] == layout and result["worst_rel_l2"] < 1e-3
    np.save(tmp_path / "bad.npy", np.ascontiguousarray(make(o * 1.1)))
    result = json.loads(run("parity", folder / "o.h5", tmp_path / "bad.npy", "--json", code=2))
    assert result["worst_rel_l2"] == pytest.approx(0.1, rel=1e-2) and not result["parity"]
    broken = theirs.copy()
    broken.reshape(-1)[7] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    assert not json.loads(run("parity", folder / "o.h5", tmp_path / "nan.npy", "--json", code=2))["parity"]


def test_parity_of_masks(attended, tmp_path):
    folder, o = attended
    with h5py.File(folder / "p.h5") as file:
        rows, columns = file["row_offsets"][()], file["columns"][()]
        mask = np.zeros((len(o), rows.shape[1] - 1, file["k_offsets"].shape[1] - 1), bool)
        for h, i in np.ndindex(*mask.shape[:2]):
            mask[h, i, columns[rows[h, i]:rows[h, i + 1]]] = True
    np.save(tmp_path / "m.npy", mask)
    assert json.loads(run("parity", folder / "p.h5", tmp_path / "m.npy", "--json"))["hamming"] == 0
    mask[1, 0, :2] ^= True
    save_file({"mask": mask}, tmp_path / "m.safetensors")
    result = json.loads(run("parity", folder / "p.h5", tmp_path / "m.safetensors", "--json", code=2))
    assert result["hamming"] == 2 and result["heads"][1]["only_ours"] + result["heads"][1]["only_theirs"] == 2
    np.save(tmp_path / "wrong.npy", mask[:, :, 1:])
    assert "a mask against this plan" in run("parity", folder / "p.h5", tmp_path / "wrong.npy", code=1)


def test_parity_refuses_other_shapes(attended, tmp_path):
    folder, o = attended
    np.save(tmp_path / "x.npy", o[:, 1:])
    assert "ours is 3 heads, 366 tokens" in run("parity", folder / "o.h5", tmp_path / "x.npy", code=1)
