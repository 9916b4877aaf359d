# SPDX-License-Identifier: Apache-2.0
"""The package under test is the one of this checkout, and nothing is ever downloaded."""
import os
import pathlib
import subprocess
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "data" / "capture"))

import pytest  # noqa: E402

try:
    import diffusers
    import torch
except ImportError as error:
    pytest.exit(f"skipped: {error}; `make test` installs the whole torch set and harness/setup/python.txt", returncode=77)

warnings.simplefilter("ignore")
diffusers.utils.logging.set_verbosity_error()
torch.set_num_threads(2)


@pytest.fixture(scope="session")
def raingauge():
    """Runs the program; fails unless it exits with `code`."""
    def run(*arguments, code=0):
        done = subprocess.run([os.environ["RAINGAUGE"], *map(str, arguments)], capture_output=True, text=True, timeout=300)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout
    return run
