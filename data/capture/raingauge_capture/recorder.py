# SPDX-License-Identifier: Apache-2.0
"""Records what a model feeds its self-attention while it generates.

with Recorder("clip.h5", pipe, preset_name="probe") as recorder:
    pipe(prompt, ...)          # stops after the last wanted step, unless stop_early=False

The first forward pass is made once beforehand with attention left out, to learn the layers, heads and
lengths: what cannot be recorded as asked is an error before anything is generated.
"""

import contextlib
import datetime
import json
import sys
import time

import torch

from . import models
from .errors import CaptureError
from .file import CaptureWriter, check_target, is_finite
from .interceptors import interceptor_for
from .listing import list_layers
from .segments import make_segments
from .selection import GIGABYTE, make_plan, preset, wants_branch, wants_item


class StopCapture(BaseException):
    """Leaves the pipeline after the last wanted step, or after a dry run. Recorder catches it."""


class Recorder:
    """path: the file to write. source: a diffusers pipeline, or any torch module together with `grids`.

    preset_name, layers, steps, heads, branch, batch_items: see selection.Selection. max_gb: refuses a larger plan
    (default: the preset's). dry_run: stop once the plan is known. output: also store the model's own output
    `o`. dtype: round to it; by default elements stay as computed. trim: leave masked text out instead of
    marking it in key_valid. grids, text_pos: override what the model's call says. steps_total: of the
    sampler, for modules. attributes: root attributes of the file (prompt, seed, ...). progress: called with a
    line of text. Raises CaptureError.
    """

    def __init__(self, path, source, *, preset_name="probe", layers=None, steps=None, heads=None, branch=None,
                 batch_items=None, max_gb=None, dry_run=False, output=False, dtype=None, trim=True, grids=None,
                 text_pos=None, steps_total=None, attributes=None, overwrite=False, compress=False, stop_early=True,
                 allow_nonfinite=False, progress=None):
        self.selection, limit = preset(preset_name, layers=layers, steps=steps, heads=heads, branch=branch,
                                       batch_items=batch_items)
        wants_branch(self.selection, "cond")
        self.path, self.source, self.max_gb = path, source, limit if max_gb is None else max_gb
        self.dry_run, self.output, self.dtype, self.trim = dry_run, output, dtype, trim
        self.text_pos, self.steps_total, self.stop_early = text_pos, steps_total, stop_early
        self.attributes, self.overwrite, self.compress = dict(attributes or {}), overwrite, compress
        self.allow_nonfinite, self.progress = allow_nonfinite, progress or (lambda line: None)
        self.hook = interceptor_for(source, self, grids=grids)
        self.plan, self.writer, self.records, self._done, self._began = None, None, 0, set(), None

    # -- around a run ----------------------------------------------------------------------------------

    def __enter__(self):
        if not self.dry_run:
            check_target(self.path, 0, self.overwrite)
        self.hook.__enter__()
        return self

    def __exit__(self, kind, error, trace):
        self.hook.__exit__(None, None, None)
        stopped = kind is not None and issubclass(kind, StopCapture)
        if self.writer is not None:
            if kind is None or stopped:
                self._finish()
            else:
                self.writer.close()
        elif kind is None and not self.dry_run:
            raise CaptureError("the model was never called with self-attention over its grid; nothing is recorded")
        return stopped

    def _finish(self):
        if not self.records:
            self.writer.close()
            raise CaptureError(f"{self.path}: none of the wanted steps, layers and branches "
                               f"({self.selection.branch}) came by; the file holds no record")
        self.writer.finish()

    def at(self, *, step, branch="cond"):
        """The place of the calls inside, for a module that is no pipeline of diffusers."""
        return self.hook.at(step=step, context=branch)

    def write_frames(self, arm, frames):
        """Decoded frames, uint8 [F, H, W, 3], before the end of the `with`."""
        self.writer.write_frames(arm, frames)

    # -- handler of the hook ---------------------------------------------------------------------------

    def model_call(self, call, run):
        if self.plan is None:
            self._make_plan(call, run)
            self._generation = self.hook.generations
        if self.hook.generations != self._generation:
            raise CaptureError(f"{self.path}: a second generation began; one file is one generation: use one Recorder for each")
        if self.stop_early and call.step > self.plan.steps[-1]:
            raise StopCapture
        if call.step == self.plan.steps_total:
            raise CaptureError(f"the sampler makes more than the {self.plan.steps_total} steps of its schedule")

    def attention(self, call, run):
        output = run()
        index = self._index.get(call.layer)
        if call.self_attention() and index in self.plan.heads and call.model.step in self._steps:
            self._record(call, index, output)
        return output

    # -- the plan --------------------------------------------------------------------------------------

    def _make_plan(self, call, run):
        layers = list_layers(run)
        if not layers:
            raise CaptureError(f"{type(call.model).__name__}: no attention call covers its grid {call.grids}; is the "
                               "grid right (--grid F,H,W in tokens)?")
        for layer in layers:
            for tokens in set(layer.tokens):
                self._segments(call, tokens)
        scheduler = getattr(self.source, "scheduler", None)
        total = self.steps_total or getattr(scheduler, "num_inference_steps", None) or len(scheduler.timesteps)
        branches = models.branches_of(self.source, call)
        explicit = call.context not in (None, "cond_uncond")  # a pass holds one branch
        passes = 2 if explicit and self.selection.branch == "both" else 1
        items = [i for i, (branch, item) in enumerate(branches)
                 if wants_item(self.selection, item) and (explicit or wants_branch(self.selection, branch))]
        if not items:
            raise CaptureError(f"--branch {self.selection.branch} --batch-items {self.selection.batch_items}: the batch "
                               f"holds {branches} only")
        element = None if self.dtype is None else torch.empty((), dtype=self.dtype).element_size()
        self.plan = make_plan(layers, self.selection, int(total), passes, items, self.output, element)
        self._index = {layer.name: i for i, layer in enumerate(layers)}
        self._steps = set(self.plan.steps)
        grids = " + ".join("x".join(map(str, grid)) for grid in call.grids)
        for line in [f"{type(call.model).__name__}: grid {grids}", *self.plan.lines]:
            self.progress(line)
        self._check_plan()
        if self.dry_run:
            raise StopCapture
        self._open(call)

    def _check_plan(self):
        size = self.plan.bytes / GIGABYTE
        if size > self.max_gb:
            raise CaptureError(f"the plan is {size:.3f} GB, more than --max-gb {self.max_gb:g}; record fewer heads, layers, "
                               "steps or a smaller clip, or raise --max-gb")
        if not self.dry_run:
            check_target(self.path, self.plan.bytes, self.overwrite)

    def _open(self, call):
        scheduler = getattr(self.source, "scheduler", None)
        attributes = {
            "pipeline": type(self.source).__name__, "scheduler": type(scheduler).__name__ if scheduler else None,
            "steps": self.plan.steps_total, "patch": models.patch_of(call.model),
            "config": json.dumps(dict(getattr(call.model, "config", {})), default=str),
            "libraries": json.dumps(_libraries()), "command": " ".join(sys.argv),
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
        self.writer = CaptureWriter(self.path, attributes | self.attributes, overwrite=self.overwrite,
                                    compress=self.compress)
        if scheduler is not None:
            sigmas = getattr(scheduler, "sigmas", None)
            self.writer.set_schedule([float(t) for t in scheduler.timesteps], [] if sigmas is None else [float(s) for s in sigmas])
        self._began = time.monotonic()

    # -- one record ------------------------------------------------------------------------------------

    def _segments(self, call, tokens):
        return make_segments(call.grids, tokens, self.text_pos or models.text_pos_of(call.model))

    def _record(self, call, index, output):
        branches = models.branches_of(self.source, call.model)
        single = call.model.batch > 1 and call.q.shape[0] == 1
        for b in range(call.q.shape[0]):
            branch, item = branches[call.n_of_layer if single else b]
            if not (wants_branch(self.selection, branch) and wants_item(self.selection, item)):
                continue
            site = (call.model.step, call.model.expert, branch, item, index)
            if site not in self._done:  # samplers of second order and the like call a step twice
                self._done.add(site)
                self._write(call, b, index, branch, item, output)

    def _write(self, call, b, index, branch, item, output):
        valid = call.valid_keys(b)
        tokens = call.q.shape[1]
        if valid is not None and self.trim and bool(valid[: int(valid.sum())].all()):
            tokens, valid = int(valid.sum()), None
        heads = self.plan.heads[index]
        segments = self._segments(call.model, tokens)
        sigmas = getattr(getattr(self.source, "scheduler", None), "sigmas", None)
        step = call.model.step
        attributes = {
            "layer_index": index, "step": step, "branch": branch, "scale": float(call.scale), "layer": call.layer,
            "layers_total": len(self.plan.layers), "expert": call.model.expert, "timestep": call.model.timestep,
            "sigma": float(sigmas[step]) if sigmas is not None and step < len(sigmas) else None, "batch_item": item,
            "kind": "joint" if any(s.role == "text" for s in segments) else "self", "heads": heads,
            "heads_total": call.q.shape[2], "rope_applied": 1}
        tensors = {"q": call.q, "k": call.k, "v": call.v} | ({"o": output} if self.output else {})

        def by_head():
            for head in heads:
                yield {name: self._element(tensor[b, :tokens, head]) for name, tensor in tensors.items()}

        def check(name, index, elements):
            if not is_finite(elements):
                raise CaptureError(f"step {step}, layer {call.layer}, head {heads[index]}: {name} holds NaN or Inf as "
                                   f"{elements.dtype}; the model overflows (use bfloat16), or pass --allow-nonfinite")
        self.writer.write(by_head(), attributes, segments, check=None if self.allow_nonfinite else check,
                          key_valid=None if valid is None else valid.to("cpu", torch.uint8).numpy())
        self.records += 1
        self._tell(step)

    def _element(self, tensor):
        return tensor.detach().to(self.dtype or tensor.dtype)

    def _tell(self, step):
        seconds = time.monotonic() - self._began
        last = self.plan.steps[-1]
        left = seconds * (last - step) / (step + 1) if step < last else 0.0
        self.progress(f"step {step} of {last}: {self.records} of {self.plan.records} records, "
                      f"{self.writer.bytes / GIGABYTE:.3f} of {self.plan.bytes / GIGABYTE:.3f} GB, "
                      f"{datetime.timedelta(seconds=int(seconds))} gone, about {datetime.timedelta(seconds=int(left))} left")


def _libraries():
    import importlib.metadata
    found = {}
    for name in ("torch", "diffusers", "transformers", "h5py", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
