# SPDX-License-Identifier: Apache-2.0
"""Every attention call of a model while it runs, with the place it comes from.

Models of diffusers reach attention by two paths: the registry behind `dispatch_attention_fn`
([B, N, H, D]) and `F.scaled_dot_product_attention` itself ([B, H, N, D]). `Interceptor` stands in both; q
and k are after QK-norm and RoPE there, joined with text. Anything else that calls SDPA is seen as well.
"""

import contextlib
import functools
import sys
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from . import models
from .errors import CaptureError

EXPERTS = ("transformer", "transformer_2")
_SDPA = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


@dataclass
class ModelCall:
    """One forward pass of a transformer. `number`: passes of this model so far, from 0."""

    model: object
    expert: str
    step: int
    context: str | None
    grids: list
    timestep: float | None
    batch: int
    number: int
    seen: dict = field(default_factory=dict)  # layer name -> attention calls so far


@dataclass
class AttentionCall:
    """q, k, v [B, N, H, D]; k and v expanded to the query heads. `n_of_layer` counts calls of the layer
    within the model call (Mochi: one call per batch item)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    mask: torch.Tensor | None
    scale: float
    causal: bool
    dropout: float
    layer: str
    n_of_layer: int
    model: ModelCall

    def self_attention(self):
        """Self or joint attention over the whole grid: not cross-attention, not a text refiner."""
        video = sum(f * h * w for f, h, w in self.model.grids)
        return self.q.shape[1] == self.k.shape[1] and self.q.shape[1] >= video

    def check(self):
        where = f"layer {self.layer}"
        if self.causal:
            raise CaptureError(f"{where}: causal attention; a capture holds full attention only")
        if self.dropout:
            raise CaptureError(f"{where}: attention with dropout {self.dropout}; call eval() on the model")
        if self.mask is not None and self.mask.dtype != torch.bool and bool((self.mask != 0).any()):
            raise CaptureError(f"{where}: attention with an additive bias; a capture holds masks of whole keys only")

    def valid_keys(self, item):
        """Bool [N] of one batch item, or None when every key is valid. Also for masks that are the outer
        product of a validity with itself (HunyuanVideo-1.5)."""
        if self.mask is None or self.mask.dtype != torch.bool:
            return None
        mask = self.mask.reshape((1,) * (4 - self.mask.ndim) + tuple(self.mask.shape))
        mask = mask[item if mask.shape[0] > 1 else 0, 0]  # [1 or N, N]
        valid = mask.any(dim=0)
        rows = mask[mask.any(dim=1)]
        if not bool((rows == valid).all()):
            raise CaptureError(f"layer {self.layer}: its mask differs between queries; a capture holds masks of whole keys only")
        return None if bool(valid.all()) else valid


class Interceptor(contextlib.ExitStack):
    """`with Interceptor(pipe, handler): pipe(...)`.

    handler has model_call(ModelCall, run), told of every forward pass before it starts (run(handler) makes
    the same pass with another handler and drops its result), and attention(AttentionCall, run) -> output
    [B, N, H, D], where run() is the model's own attention.

    source: a diffusers pipeline, or any module together with `grids`, its token grids.
    """

    def __init__(self, source, handler, *, grids=None):
        super().__init__()
        self.source, self.handler, self.grids = source, handler, grids
        self.step, self.context, self.call = 0, None, None
        self.generations = 0  # runs of the sampler begun so far, where they can be told
        self._names, self._depth, self._numbers, self._inner = [], 0, {}, False
        self._mode = _SdpaMode(self)

    @contextlib.contextmanager
    def at(self, *, step, context=None):
        """The place of the passes inside, for loops that are not a diffusers pipeline's."""
        before = self.context
        self.step, self.context = step, context
        try:
            yield
        finally:
            self.context = before

    # -- installing ------------------------------------------------------------------------------------

    def __enter__(self):
        super().__enter__()
        try:
            self._hook_calls()
            for expert, model in self.models():
                models.check_supported(model, expert or type(model).__name__)
                self._hook_model(model, expert)
            self._hook_scheduler()
        except BaseException:
            self.close()
            raise
        return self

    def models(self):
        if isinstance(self.source, torch.nn.Module):
            return [("", self.source)]
        found = [(e, getattr(self.source, e)) for e in EXPERTS if getattr(self.source, e, None) is not None]
        if not found:
            raise CaptureError(f"{type(self.source).__name__} has no transformer: this tool records diffusion transformers")
        return [(expert if len(found) > 1 else "", model) for expert, model in found]

    def _hook_calls(self):
        if not (module := sys.modules.get("diffusers.models.attention_dispatch")):
            return  # not a model of diffusers
        registry = module._AttentionBackendRegistry
        saved = dict(registry._backends)
        self.callback(registry._backends.update, saved)
        for name, function in saved.items():
            registry._backends[name] = self._wrap_backend(function)

    def _wrap_backend(self, function):
        def wrapped(*args, **kwargs):
            if args or not self._names or self.call is None:
                return function(*args, **kwargs)

            def run():
                self._depth += 1
                try:
                    return function(**kwargs)
                finally:
                    self._depth -= 1
            call = self._attention_call(kwargs, kwargs["query"], kwargs["key"], kwargs["value"])
            return self.handler.attention(call, run)
        return wrapped

    def _attention_call(self, options, q, k, v):
        layer = self._names[-1]
        number = self.call.seen.get(layer, 0)
        self.call.seen[layer] = number + 1
        if q.shape[2] != k.shape[2]:  # grouped queries
            k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for x in (k, v))
        scale = options.get("scale")
        return AttentionCall(q, k, v, options.get("attn_mask"), q.shape[-1] ** -0.5 if scale is None else float(scale),
                             bool(options.get("is_causal")), float(options.get("dropout_p") or 0.0), layer, number, self.call)

    def _layers(self, model):
        """(name, module) of what may be a layer: diffusers' attention modules, or else every module."""
        found = [(n, m) for n, m in model.named_modules() if hasattr(m, "processor") and hasattr(m, "to_q")]
        return found or list(model.named_modules())

    def _hook_model(self, model, expert):
        for name, module in self._layers(model):
            self.callback(module.register_forward_pre_hook(lambda m, a, name=name: self._names.append(name)).remove)
            # A hook that returns a value replaces the output: this one returns None.
            self.callback(module.register_forward_hook(lambda m, a, o: (self._names.pop(), None)[1], always_call=True).remove)
        self.callback(model.register_forward_pre_hook(
            lambda m, a, kw: self._begin(model, expert, a, kw), with_kwargs=True).remove)
        self.callback(model.register_forward_hook(lambda m, a, kw, o: self._end(), with_kwargs=True, always_call=True).remove)
        if hasattr(model, "cache_context"):
            self._hook_context(model)

    def _hook_context(self, model):
        original = model.cache_context

        @contextlib.contextmanager
        def cache_context(name, *args, **kwargs):
            before, self.context = self.context, name
            try:
                with original(name, *args, **kwargs):
                    yield
            finally:
                self.context = before
        model.cache_context = cache_context
        self.callback(model.__dict__.pop, "cache_context", None)

    def _hook_scheduler(self):
        scheduler = getattr(self.source, "scheduler", None)
        if scheduler is None or isinstance(self.source, torch.nn.Module):
            return
        step, set_timesteps = scheduler.step, scheduler.set_timesteps

        @functools.wraps(set_timesteps)  # pipelines ask for its parameters
        def begun(*args, **kwargs):
            self.step, self.generations = 0, self.generations + 1
            self._numbers.clear()
            return set_timesteps(*args, **kwargs)

        @functools.wraps(step)
        def counted(*args, **kwargs):
            result = step(*args, **kwargs)
            self.step += 1  # calls of the model before the first return belong to step 0
            self._numbers.clear()
            return result
        scheduler.step, scheduler.set_timesteps = counted, begun
        self.callback(scheduler.__dict__.pop, "step", None)
        self.callback(scheduler.__dict__.pop, "set_timesteps", None)

    # -- while it runs ---------------------------------------------------------------------------------

    def _place(self, model, expert, args, kwargs):
        """The ModelCall of a forward pass with these arguments."""
        named = dict(kwargs)
        if args and "hidden_states" not in named:
            named["hidden_states"] = args[0]
        grids = self.grids or models.grids_of(model, named)
        x = named.get("hidden_states")
        batch = int(x.shape[0]) if torch.is_tensor(x) and x.ndim else 1
        key = (expert, self.context)
        number = self._numbers[key] = self._numbers.get(key, -1) + 1
        return ModelCall(model, expert, self.step, self.context, grids, models.timestep_of(named), batch, number)

    def _begin(self, model, expert, args, kwargs):
        if self.call is not None:
            return  # the same pass, made for a handler
        self.call = self._place(model, expert, args, kwargs)
        self._mode.__enter__()
        try:
            self.handler.model_call(self.call, lambda handler: self._run_for(handler, model, args, kwargs))
        except BaseException:
            self._end()
            raise

    def _run_for(self, handler, model, args, kwargs):
        kept = self.handler, self._names, self.call
        self.handler, self._names, self._inner = handler, [], True
        try:
            with torch.no_grad():
                model(*args, **kwargs)
        finally:
            self.handler, self._names, self.call = kept
            self._inner = False
            self.call.seen = {}

    def _end(self):
        if self.call is not None and not self._inner:
            self.call = None
            self._mode.__exit__(None, None, None)

    def close(self):
        self._end()
        super().close()


class _SdpaMode(TorchFunctionMode):
    def __init__(self, owner):
        super().__init__()
        self.owner = owner

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, owner = kwargs or {}, self.owner
        if function is not F.scaled_dot_product_attention or owner._depth or not owner._names or owner.call is None:
            return function(*args, **kwargs)
        options = dict(zip(_SDPA, args)) | kwargs

        if options["query"].ndim != 4:
            return function(*args, **kwargs)  # [N, D] of one head: no layout that a model of ours has
        q, k, v = (options[name].transpose(1, 2) for name in _SDPA[:3])
        call = owner._attention_call(options, q, k, v)
        return owner.handler.attention(call, lambda: function(*args, **kwargs).transpose(1, 2)).transpose(1, 2)
