# SPDX-License-Identifier: Apache-2.0
"""The calling conventions of the authors' Wan repositories, on a stand-in with the same signatures: list inputs,
`flash_attention` imported by name into the model's module, float32 queries, padded sequences, two experts.

With $WAN_REPO set to a clone, the same test runs on its own wan.modules.model.
"""
import os
import sys
import types

import pytest
import torch
from raingauge_capture import CaptureError, CaptureReader, Recorder
from wan_stand_in import ATTENTION, STAND_IN

def module(name, text, package=False):
    made = types.ModuleType(name)
    if package:
        made.__path__ = []
    made.__package__ = name if package else name.rpartition(".")[0]
    sys.modules[name] = made
    exec(text, made.__dict__)
    return made


@pytest.fixture
def wan_model():
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name == "wan" or name.startswith("wan.")}
    repository = os.environ.get("WAN_REPO")
    if repository:
        for name, folder in (("wan", "wan"), ("wan.modules", "wan/modules")):  # not their __init__: it imports everything
            package = types.ModuleType(name)
            package.__path__ = [os.path.join(repository, folder)]
            sys.modules[name] = package
        from wan.modules.model import WanModel
    else:
        module("wan", "", True), module("wan.modules", "", True), module("wan.modules.attention", ATTENTION)
        WanModel = module("wan.modules.model", STAND_IN).WanModel
    yield lambda: WanModel(dim=32, ffn_dim=32, freq_dim=32, text_dim=16, text_len=16, num_heads=2, num_layers=2).eval()
    for name in [n for n in sys.modules if n == "wan" or n.startswith("wan.")]:
        del sys.modules[name]
    sys.modules.update(kept)


class Generator:
    """What WanT2V does: two passes a step, cond first; Wan2.2 picks one of two models."""

    def __init__(self, make, two):
        torch.manual_seed(1)
        if two:
            self.high_noise_model, self.low_noise_model = make(), make()
        else:
            self.model = make()

    def generate(self):
        latent = torch.randn(16, 3, 8, 10, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            for t in (999.0, 750.0, 300.0):
                model = getattr(self, "model", None) or (self.high_noise_model if t >= 875 else self.low_noise_model)
                cond, uncond = (model([latent], t=torch.tensor([t]), context=[torch.full((5, 16), c)], seq_len=64)[0]
                                for c in (1.0, -1.0))
                latent = latent - 0.1 * (uncond + 5 * (cond - uncond))
        return latent


@pytest.mark.parametrize("two", [False, True])
def test_original_repository(tmp_path, wan_model, two, raingauge):
    source = Generator(wan_model, two)
    with Recorder(tmp_path / "x.h5", source, steps_total=3, layers="all", steps="all", heads="all", branch="both", output=True,
                  stop_early=False):
        source.generate()
    with CaptureReader(tmp_path / "x.h5") as capture:
        seen = [(r.attributes["step"], r.attributes["branch"], r.attributes["layer"], r.attributes.get("expert")) for r in capture.records]
        high, low = ("high_noise_model", "low_noise_model") if two else (None, None)
        assert seen == [(s, b, f"blocks.{i}.self_attn", high if s == 0 else low)
                        for s in range(3) for b in ("cond", "uncond") for i in range(2)]
        for record in capture.records:
            assert [str(s) for s in record.segments] == ["video 3x4x5"]  # 4 padded tokens are left out
            assert record.dtype == torch.bfloat16  # as rounded inside
    raingauge("capture", "validate", tmp_path / "x.h5")


def test_sequence_parallel_is_refused(tmp_path, wan_model):
    source = Generator(wan_model, False)
    attention = source.model.blocks[0].self_attn
    attention.forward = types.MethodType(lambda self, *a: None, attention)
    with pytest.raises(CaptureError, match="ulysses"):
        with Recorder(tmp_path / "x.h5", source, steps_total=3):
            source.generate()
