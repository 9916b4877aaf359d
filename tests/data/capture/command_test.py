# SPDX-License-Identifier: Apache-2.0
"""`raingauge-capture` as it is typed: a saved pipeline in a folder, and a folder like the authors' Wan repository."""
import os
import pathlib
import subprocess
import sys

import h5py
import torch
from raingauge_capture import CaptureReader, cli
from wan_stand_in import ATTENTION, CONFIGS, GENERATOR, STAND_IN

PACKAGE = pathlib.Path(__file__).resolve().parents[3] / "data/capture"
SMALL = ["--height", "112", "--width", "144", "--frames", "9", "--num-steps", "3"]


def capture(*arguments, code=0):
    """What it said. Another process, without a network to ask."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{PACKAGE}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-m", "raingauge_capture", *map(str, arguments)], capture_output=True, text=True,
                          timeout=300, env=environment)
    assert done.returncode == code and "Traceback" not in done.stderr, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def refused(capsys, *arguments):
    """What it says, in this process."""
    assert cli.main([str(argument) for argument in arguments]) == 1
    return capsys.readouterr().err


def test_a_saved_pipeline_is_recorded(tmp_path, wan_folder, raingauge):
    out = tmp_path / "cat.h5"
    capture("--model", wan_folder, "--prompt", "a cat on a skateboard", "--seed", "1", *SMALL, "--device", "cpu", "--decode", "--out", out)
    raingauge("capture", "validate", out)
    with CaptureReader(out) as file:
        assert file.complete and file.attributes["prompt"] == "a cat on a skateboard" and file.attributes["seed"] == 1
        assert file.attributes["model_id"] == str(wan_folder) and file.attributes["pipeline"] == "WanPipeline"
        assert [(r.attributes["step"], r.attributes["layer_index"], r.attributes["branch"]) for r in file.records] == [
            (s, layer, "cond") for s in range(3) for layer in range(2)]
        assert all(str(r.segments[0]) == "video 3x7x9" and r.dtype == torch.bfloat16 for r in file.records)
    with h5py.File(out) as file:
        assert file["frames/dense"].shape == (9, 112, 144, 3)


def test_a_dry_run_records_nothing(tmp_path, wan_folder, capsys):
    out = tmp_path / "cat.h5"
    assert cli.main(["--model", str(wan_folder), "--prompt", "a cat", *SMALL, "--device", "cpu", "--out", str(out), "--dry-run"]) == 0
    assert "6 records" in capsys.readouterr().err and not out.exists()


def test_what_is_no_pipeline_is_said_in_a_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "empty", tmp_path / "nowhere"):
        said = refused(capsys, "--model", model, "--out", tmp_path / "x.h5")
        assert "cannot be loaded as a pipeline of diffusers" in said and not (tmp_path / "x.h5").exists()


def test_query_rows_are_not_subsampled(tmp_path, capsys):
    said = refused(capsys, "--tiny", "wan", "--q-rows", "blocks:16:0", "--out", tmp_path / "x.h5")
    assert "holds every query row" in said and "--heads" in said


def wan_repository(folder):
    files = {"wan/__init__.py": GENERATOR, "wan/configs/__init__.py": CONFIGS, "wan/modules/__init__.py": "",
             "wan/modules/attention.py": ATTENTION, "wan/modules/model.py": STAND_IN}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_authors_repository_is_recorded(tmp_path, raingauge, capsys):
    repository = wan_repository(tmp_path / "Wan2.1")
    command = ["--wan-repo", repository, "--wan-checkpoint", tmp_path, "--prompt", "a cat", "--height", "64", "--width", "80",
               "--frames", "9", "--layers", "all", "--heads", "all", "--steps", "all", "--branch", "both"]
    out = tmp_path / "wan.h5"
    capture(*command, "--num-steps", "3", "--out", out)
    raingauge("capture", "validate", out)
    with CaptureReader(out) as file:
        assert file.complete and [(r.attributes["step"], r.attributes["branch"], r.attributes["layer_index"]) for r in file.records] == [
            (s, b, layer) for s in range(3) for b in ("cond", "uncond") for layer in range(2)]
        assert all(str(r.segments[0]) == "video 3x4x5" for r in file.records)
    assert "--num-steps" in refused(capsys, *command, "--out", tmp_path / "y.h5")
    assert "t2v-14B" in capture(*command, "--num-steps", "3", "--wan-task", "i2v-14B", "--out", tmp_path / "y.h5", code=1)
