# SPDX-License-Identifier: Apache-2.0
"""Generate with a raingauge arm in place of a pipeline's own attention.

backend = install(pipe, "{method: rainfusion2, density: 0.3}", dense_steps=2, dense_layers=[0])
clip = pipe(prompt, ...)
print(backend.density())
backend.remove()

Self-attention over the grid goes through torch.ops.raingauge.attention (libraingauge_torch.so: the plans and
kernels of the harness); cross-attention and text refiners stay the model's own.
"""

import itertools
import json
import os
import pathlib

import torch

from . import models
from .errors import CaptureError
from .interceptors import interceptor_for
from .listing import list_layers
from .segments import make_segments, text_range
from .selection import resolve

LIBRARY = "libraingauge_torch.so"
_numbers = itertools.count()


def load_library(path=None):
    """Loads the operators once: `path`, $RAINGAUGE_TORCH_LIBRARY, or the build folder of this checkout."""
    if hasattr(torch.ops.raingauge, "attention"):
        return
    built = pathlib.Path(__file__).resolve().parents[3] / "build" / "release" / "harness" / LIBRARY
    path = pathlib.Path(path or os.environ.get("RAINGAUGE_TORCH_LIBRARY") or built)
    if not path.exists():
        raise CaptureError(f"{path}: there is no such library; build it (`make build`) and give its path, or set "
                           "RAINGAUGE_TORCH_LIBRARY")
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise CaptureError(f"{path}: cannot be loaded into torch {torch.__version__}: {error}; it works with the torch that it "
                           "was built for") from error
    wanted = torch.ops.raingauge.built_for()
    if torch.__version__.split("+")[0] != wanted:
        raise CaptureError(f"{path}: was built for torch {wanted}, this is {torch.__version__}")


def _numbers_of(given, total, what, names=()):
    """A number n means the first n; else a list, or a text of selection.resolve()."""
    if isinstance(given, int):
        if not 0 <= given <= total:
            raise CaptureError(f"dense_{what}s={given}: allowed are 0 to {total}")
        return set(range(given))
    text = given if isinstance(given, str) else ",".join(map(str, given))
    return set(resolve(text, total, what, names)) if text else set()


class Backend:
    """What install() returns. Handler of the hook."""

    def __init__(self, source, arm, *, schedule, dense_steps, dense_layers, dense, kernel, grids, text_pos, steps_total):
        if dense not in ("native", "raingauge"):
            raise CaptureError(f"dense={dense!r}: allowed are 'native' (the model's own kernel) and 'raingauge' (method dense)")
        self.arm, self.schedule, self.dense_steps, self.dense_layers = _yaml(arm), schedule, dense_steps, dense_layers
        self.dense, self.kernel, self.text_pos, self.steps_total = dense, kernel, text_pos, steps_total
        self.source, self.generation, self.table, self.index = source, f"backend {next(_numbers)}", None, {}
        self.native_calls, self.generations = 0, None
        self.hook = interceptor_for(source, self, grids=grids)

    def remove(self):
        """Gives the pipeline its own attention back."""
        self.hook.close()
        torch.ops.raingauge.reset(self.generation)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

    def statistics(self):
        """[{method, kernel, device, calls, calls_planned_on_device, density_pairs, milliseconds}] since install()."""
        return json.loads(torch.ops.raingauge.statistics(self.generation))

    def density(self):
        """Kept pairs / all pairs over all self-attention calls, native dense ones included."""
        done = [(s["calls"], s["density_pairs"]) for s in self.statistics()] + [(self.native_calls, 1.0)]
        calls = sum(n for n, _ in done)
        return sum(n * d for n, d in done) / calls if calls else float("nan")

    # -- handler of the hook ---------------------------------------------------------------------------

    def model_call(self, call, run):
        if self.table is None or self.hook.generations != self.generations:  # another clip may have other steps
            self.generations = self.hook.generations
            self._make_table(call, run)

    def attention(self, call, run):
        if not call.self_attention():
            return run()
        key = (self.index.get(call.layer), call.model.step)
        if key not in self.table:
            raise CaptureError(f"layer {call.layer}, step {call.model.step}: was not seen before the first step; pass steps_total")
        arm = self.table[key]
        if arm is None:
            self.native_calls += call.q.shape[0]
            return run()
        return self._attend(call, arm, key[0])

    # -- what runs where -------------------------------------------------------------------------------

    def _make_table(self, call, run):
        layers = [layer.name for layer in list_layers(run)]
        scheduler = getattr(self.source, "scheduler", None)
        total = self.steps_total or getattr(scheduler, "num_inference_steps", None) or len(scheduler.timesteps)
        self.index = {name: i for i, name in enumerate(layers)}
        steps = _numbers_of(self.dense_steps, total, "step")
        dense = _numbers_of(self.dense_layers, len(layers), "layer", layers)
        rules = [(_numbers_of(rule.get("layers", "all"), len(layers), "layer", layers),
                  _numbers_of(rule.get("steps", "all"), total, "step"), _yaml(rule["arm"])) for rule in self.schedule]
        instead = None if self.dense == "native" else "{method: dense}"
        self.table = {(layer, step): instead if step in steps or layer in dense else
                      next((arm for ls, ss, arm in rules if layer in ls and step in ss), self.arm)
                      for layer in range(len(layers)) for step in range(total)}

    def _attend(self, call, arm, layer):
        branches = models.branches_of(self.source, call.model)
        single = call.model.batch > 1 and call.q.shape[0] == 1
        result = torch.zeros_like(call.q)
        for b in range(call.q.shape[0]):
            branch, item = branches[call.n_of_layer if single else b]
            valid, tokens = call.valid_keys(b), call.q.shape[1]
            if valid is not None and bool(valid[: int(valid.sum())].all()):
                tokens, valid = int(valid.sum()), None  # rows of masked tokens stay 0: nothing attends them
            segments = make_segments(call.model.grids, tokens, self.text_pos or models.text_pos_of(call.model.model))
            q, k, v = (x[b, :tokens].transpose(0, 1) for x in (call.q, call.k, call.v))
            output = torch.ops.raingauge.attention(
                q, k, v, [side for grid in call.model.grids for side in grid], text_range(segments), arm, call.model.step,
                layer, scale=call.scale, branch=branch, expert=call.model.expert, batch_item=item, key_valid=valid,
                kernel=self.kernel, generation=self.generation)
            result[b, :tokens] = output.transpose(0, 1)
        return result


def _yaml(arm):
    return arm if isinstance(arm, str) else json.dumps(arm)


def _arm_and_rules(arm, schedule):
    """A file of `raingauge schedule` is an arm of its own: it has a setting for every layer, step and head."""
    if not isinstance(schedule, (str, os.PathLike)):
        if arm is None:
            raise CaptureError("no arm: give one, or schedule=FILE as `raingauge schedule` writes it")
        return arm, list(schedule)
    path = pathlib.Path(schedule).resolve()
    if arm is not None:
        raise CaptureError(f"an arm and the schedule {path}: give one of them; for places that the schedule lacks, the arm "
                           "{method: schedule, path: FILE, elsewhere: nearest} takes the nearest step, the default is dense")
    if not path.is_file():
        raise CaptureError(f"{path}: there is no such schedule; write it with `raingauge schedule RUN --out FILE`")
    return {"method": "schedule", "path": str(path)}, []


def install(source, arm=None, *, schedule=(), dense_steps=0, dense_layers=(), dense="native", kernel="", library=None,
            grids=None, text_pos=None, steps_total=None):
    """Puts `arm` (YAML text or a mapping, as `raingauge run` takes it) into a diffusers pipeline until remove().

    schedule: the file that `raingauge schedule` writes (no arm then: it has a setting for every layer, step and head;
    what it lacks is dense), or rules {layers, steps, arm}; the first that holds for a layer and step replaces `arm`.
    layers and steps are lists or texts as of the recorder (`0,5`, `every:2`, `all`). dense_steps, dense_layers: attended
    densely; a number n means the first n. dense: by the model's own kernel (`native`) or by ours (`raingauge`).
    kernel: a name of `raingauge list kernels`; default by device. What cannot be done as asked raises
    CaptureError before the first step; a method that does not cover a call raises RuntimeError, never a silent
    dense fallback.
    """
    arm, rules = _arm_and_rules(arm, schedule)
    load_library(library)
    backend = Backend(source, arm, schedule=rules, dense_steps=dense_steps, dense_layers=dense_layers, dense=dense,
                      kernel=kernel, grids=grids, text_pos=text_pos, steps_total=steps_total)
    backend.hook.__enter__()
    return backend
