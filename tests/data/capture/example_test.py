# SPDX-License-Identifier: Apache-2.0
"""The README's worked example as written there, on a saved pipeline of toy size: record, replay, pick the operating point,
generate with it, compare the frames. Only the model's name, the size of the clip, device and dtype are other ones."""
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


def blocks():
    """{first line: text} of the code blocks of the section, in order."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("### Record from your own model"):text.index("Other programs' arrays come in")]
    found = re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)
    assert len(found) == 3, "the worked example is commands, sweep.yaml and generate.py"
    return found


@pytest.fixture
def place(tmp_path, wan_folder):
    """A folder with the example's files, and a way to run its commands."""
    def local(text):
        for there, here in (("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", str(wan_folder)), ("480", "128"), ("832", "192"), ("81", "41"),
                            ("torch.bfloat16", "torch.float32"), ('"cuda"', '"cpu"')):
            text = text.replace(there, here)
        return text
    commands, sweep, generate = map(local, blocks())
    (tmp_path / "sweep.yaml").write_text(sweep)
    (tmp_path / "generate.py").write_text(generate)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("raingauge", f'exec "{os.environ["RAINGAUGE"]}" "$@"'),
                       ("raingauge-capture", f'exec "{sys.executable}" -m raingauge_capture "$@"'),
                       ("python3", f'exec "{sys.executable}" "$@"'), ("less", "cat"), ("column", "cat")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1",
                                "PYTHONPATH": f"{ROOT / 'data/capture'}:{os.environ.get('PYTHONPATH', '')}"}

    def run():
        return subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, env=environment, capture_output=True,
                              text=True, timeout=900)
    return tmp_path, run


def test_the_worked_example_runs_as_written(place):
    folder, run = place
    done = run()
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    rows = [json.loads(line) for line in (folder / "sweep" / "fidelity.jsonl").read_text().splitlines()]
    ok = [r for r in rows if r["outcome"] == "ok"]
    assert {r["arm"] for r in ok} >= {"rf2.0.2", "rf2.0.3", "rf2.0.5"}
    loss = [np.mean([r["metrics"]["rel_l2"]["value"] for r in ok if r["arm"] == f"rf2.{d}"]) for d in (0.2, 0.3, 0.5)]
    assert loss[0] > loss[1] > loss[2] > 0
    dense, sparse = (np.load(folder / f"{name}.npy") for name in ("dense", "sparse"))
    assert dense.shape == sparse.shape == (41, 128, 192, 3) and (dense != sparse).any()
    density = [float(line) for line in done.stdout.splitlines() if re.fullmatch(r"0\.\d+", line)]
    # 5 of 50 steps and one of two layers are dense, the rest is 0.3.
    assert density == [pytest.approx(1 - 0.9 * 0.5 * 0.7, abs=0.02)]
    assert "psnr" in done.stdout
