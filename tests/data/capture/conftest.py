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
def wan_folder(tmp_path_factory):
    """A whole Wan pipeline at toy size as save_pretrained() leaves it: random weights, a tokenizer of five words."""
    from raingauge_capture import tiny
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel
    pipe, _ = tiny.build("wan")
    words = ["<pad>", "</s>", "<unk>", "a", "cat", "on", "skateboard"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    encoder = UMT5EncoderModel(UMT5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).eval()
    pipe.register_modules(text_encoder=encoder, tokenizer=PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"))
    folder = tmp_path_factory.mktemp("models") / "wan"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def raingauge():
    """Runs the program; fails unless it exits with `code`."""
    def run(*arguments, code=0):
        done = subprocess.run([os.environ["RAINGAUGE"], *map(str, arguments)], capture_output=True, text=True, timeout=300)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout
    return run
