# SPDX-License-Identifier: Apache-2.0
"""The authors' own Wan2.1 and Wan2.2 repositories, whose attention is `wan.modules.model.flash_attention`."""

import sys

import torch
import torch.nn.functional as F

from . import models
from .errors import CaptureError
from .hook import Interceptor, ModelCall

_HALF = (torch.float16, torch.bfloat16)


def is_wan(source):
    """A WanModel of the repositories, or one of their generators (WanT2V, WanI2V ...)."""
    found = [source] + [getattr(source, name, None) for name in ("model", "high_noise_model", "low_noise_model")]
    return any(type(m).__name__ == "WanModel" and isinstance(m, torch.nn.Module) for m in found)


class WanInterceptor(Interceptor):
    """Steps are told by the timestep, which changes once a step; the first pass of a step is cond, the second
    uncond. q and k arrive in float32 there and are rounded as the repository rounds them."""

    def __init__(self, source, handler, *, grids=None):
        super().__init__(source, handler, grids=grids)
        self.step, self._timestep = -1, None

    def models(self):
        if isinstance(self.source, torch.nn.Module):
            return [("", self.source)]
        experts = [name for name in ("high_noise_model", "low_noise_model") if hasattr(self.source, name)]
        return [(name, getattr(self.source, name)) for name in experts] or [("", self.source.model)]

    def _layers(self, model):
        found = [(n, m) for n, m in model.named_modules() if n.endswith("self_attn")]
        for name, module in found:
            if "forward" in module.__dict__:
                raise CaptureError(f"{name}: its forward was replaced (sequence parallel?); run with ulysses_size 1")
        return found

    def _hook_calls(self):
        for module in {sys.modules[type(models.unwrap(model)).__module__] for _, model in self.models()}:
            original = module.flash_attention
            self.callback(setattr, module, "flash_attention", original)
            module.flash_attention = self._wrap(original)

    def _hook_scheduler(self):
        pass  # made inside generate()

    def _place(self, model, expert, args, kwargs):
        x = kwargs.get("x", args[0] if args else None)
        timestep = float(torch.as_tensor(kwargs["t"] if "t" in kwargs else args[1]).max())
        if self._timestep is None or timestep > self._timestep:  # they fall from step to step
            self.step, self.generations = -1, self.generations + 1
        if timestep != self._timestep:
            self.step, self._timestep, self._numbers = self.step + 1, timestep, {}
        number = self._numbers[""] = self._numbers.get("", -1) + 1
        patch = tuple(model.patch_size)
        grid = tuple(side // p for side, p in zip(x[0].shape[1:], patch))
        return ModelCall(model, expert, self.step, "uncond" if number else "cond", self.grids or [grid], timestep,
                         len(x), 0)

    def _wrap(self, original):
        def flash_attention(q, k, v, q_lens=None, k_lens=None, dropout_p=0.0, softmax_scale=None, q_scale=None,
                            causal=False, window_size=(-1, -1), deterministic=False, dtype=torch.bfloat16, version=None):
            out_dtype = q.dtype
            v_half = v if v.dtype in _HALF else v.to(dtype)
            q_half, k_half = (x.to(x.dtype if x.dtype in _HALF else dtype).to(v_half.dtype) for x in (q, k))
            if q_scale is not None:
                q_half = q_half * q_scale
            mask = None
            if k_lens is not None and int(k_lens.min()) < k.shape[1]:
                mask = (torch.arange(k.shape[1], device=q.device) < k_lens.to(q.device)[:, None])[:, None, None]

            def run():
                if q.is_cuda and _has_flash(original):
                    return original(q, k, v, q_lens, k_lens, dropout_p, softmax_scale, q_scale, causal, window_size,
                                    deterministic, dtype, version)
                out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q_half, k_half, v_half)), mask,
                                                     dropout_p, causal, scale=softmax_scale)
                return out.transpose(1, 2).type(out_dtype)
            self._depth += 1  # the SDPA inside is not another call
            try:
                if not self._names or self.call is None:
                    return run()
                if tuple(window_size) != (-1, -1):
                    raise CaptureError(f"layer {self._names[-1]}: sliding-window attention {window_size}; a capture holds "
                                       "full attention only")
                options = {"attn_mask": mask, "scale": softmax_scale, "is_causal": causal, "dropout_p": dropout_p}
                call = self._attention_call(options, q_half, k_half, v_half)
                return self.handler.attention(call, run).type(out_dtype)
            finally:
                self._depth -= 1
        return flash_attention


def _has_flash(original):
    names = original.__globals__
    return names.get("FLASH_ATTN_2_AVAILABLE", False) or names.get("FLASH_ATTN_3_AVAILABLE", False)


def load_text_to_video(repository, checkpoint, task, device=0):
    """The generator of a cloned repository: wan.WanT2V with its configuration `task` (t2v-14B, t2v-A14B ...)."""
    sys.path.insert(0, str(repository))
    import wan
    from wan.configs import WAN_CONFIGS
    if task not in WAN_CONFIGS or "t2v" not in task:
        raise CaptureError(f"--wan-task {task}: allowed are {', '.join(t for t in WAN_CONFIGS if 't2v' in t)} (use Recorder as a "
                           "library for image-to-video)")
    return wan.WanT2V(config=WAN_CONFIGS[task], checkpoint_dir=str(checkpoint), device_id=device)
