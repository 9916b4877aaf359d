# SPDX-License-Identifier: Apache-2.0
"""What the call of a diffusion transformer says about its tokens: grid, text position, timestep."""

import torch

from .errors import CaptureError

# Where text tokens stand in self-attention, by the class of the transformer in diffusers.
TEXT_POS = {
    "FluxTransformer2DModel": "front", "Flux2Transformer2DModel": "front",
    "QwenImageTransformer2DModel": "front", "CogVideoXTransformer3DModel": "front",
    "HunyuanVideoTransformer3DModel": "back", "HunyuanVideo15Transformer3DModel": "back",
    "MochiTransformer3DModel": "back", "SD3Transformer2DModel": "back",
    "WanTransformer3DModel": None, "LTXVideoTransformer3DModel": None}
# diffusers' context names of a guidance pass -> branch of a capture.
BRANCHES = {"pred_cond": "cond", "pred_uncond": "uncond"}


def unwrap(model):
    """The module itself behind torch.compile's wrapper and the like."""
    return getattr(model, "_orig_mod", model)


def check_supported(model, name):
    """Refuses what a hook cannot see into: compiled models, feature caches, split sequences."""
    for path, module in model.named_modules():
        compiled = hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        if compiled:
            raise CaptureError(f"{name}: {path or type(module).__name__} is compiled (torch.compile), so its attention "
                               "calls cannot be seen; load the model without compiling it")
    if getattr(model, "_parallel_config", None) is not None or getattr(model, "_cp_config", None) is not None:
        raise CaptureError(f"{name}: context parallelism splits the sequence over devices; capture on one device")
    if getattr(model, "is_cache_enabled", False):
        raise CaptureError(f"{name}: a feature cache is enabled, which skips attention calls; call disable_cache() first")


def _patch(config):
    size, frames = config.get("patch_size", 1), config.get("patch_size_t") or 1
    return tuple(size) if isinstance(size, (tuple, list)) else (frames, size, size)


def patch_of(model):
    return list(_patch(getattr(model, "config", {})))


def _grids_of_ids(ids):
    """FLUX: (image number, row, column) per token; a reference image has a number of its own."""
    ids = ids.reshape(-1, ids.shape[-1])[:, :3].long().cpu()
    grids = []
    for number in ids[:, 0].unique(sorted=True):
        rows = ids[ids[:, 0] == number]
        low, high = rows.min(0).values, rows.max(0).values
        grids.append((1, int(high[1] - low[1]) + 1, int(high[2] - low[2]) + 1))
    return grids


def grids_of(model, arguments):
    """[(frames, height, width), ...] in tokens, from the keyword arguments of the transformer's call."""
    config, x = getattr(model, "config", {}), arguments.get("hidden_states")
    if arguments.get("img_shapes") is not None:
        return [tuple(int(side) for side in shape) for shape in arguments["img_shapes"][0]]
    if arguments.get("img_ids") is not None:
        return _grids_of_ids(arguments["img_ids"])
    if arguments.get("num_frames") is not None:
        return [(int(arguments["num_frames"]), int(arguments["height"]), int(arguments["width"]))]
    if not torch.is_tensor(x) or x.ndim not in (4, 5):
        raise CaptureError(f"the token grid of {type(model).__name__} cannot be told from its call; give it with "
                           "--grid F,H,W (tokens, after VAE and patch)")
    pt, ph, pw = _patch(config)
    if x.ndim == 4:
        return [(1, x.shape[2] // ph, x.shape[3] // pw)]
    frames, height, width = (x.shape[1], *x.shape[3:]) if type(model).__name__.startswith("CogVideoX") else x.shape[2:]
    return [(frames // pt, height // ph, width // pw)]


def timestep_of(arguments):
    """The largest: Wan2.2-5B passes one per token, 0 for a given first frame. None when there is none."""
    value = arguments.get("timestep")
    return None if value is None else float(value.max()) if torch.is_tensor(value) else float(value)


def text_pos_of(model):
    """`front`, `back`, or None where self-attention holds no text (or the model is unknown)."""
    return TEXT_POS.get(type(unwrap(model)).__name__)


def branches_of(source, call):
    """The guidance branch and the number of every batch item of a pass: [(branch, item), ...].

    A batch that holds both passes of classifier-free guidance is ordered [uncond, cond].
    """
    guided = getattr(source, "do_classifier_free_guidance", None)
    if guided is None:
        guided = float(getattr(source, "guidance_scale", None) or 0) > 1
    if call.context not in (None, "cond_uncond"):
        branch = BRANCHES.get(call.context, call.context)
    elif guided and call.batch % 2 == 0:
        half = range(call.batch // 2)
        return [("uncond", i) for i in half] + [("cond", i) for i in half]
    else:
        # Skip-layer guidance (SD3) makes one more pass, without the uncond half.
        branch = "skip_layers" if guided and call.number > 0 else "cond"
    return [(branch, i) for i in range(call.batch)]
