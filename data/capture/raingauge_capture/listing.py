# SPDX-License-Identifier: Apache-2.0
"""Which self-attention layers a model has, from one forward pass with attention left out."""

import torch

from .selection import Layer


class _Listing:
    def __init__(self):
        self.layers = {}

    def attention(self, call, run):
        if not call.self_attention():
            return run()
        call.check()
        tokens = []
        for item in range(call.q.shape[0]):  # models that call once per batch item add theirs call by call
            valid = call.valid_keys(item)
            tokens.append(call.q.shape[1] if valid is None else int(valid.sum()))
        layer = self.layers.setdefault(call.layer, Layer(call.layer, call.q.shape[2], call.q.shape[3],
                                                         call.q.element_size(), []))
        layer.tokens += tokens
        return torch.zeros_like(call.q)


def list_layers(run):
    """[selection.Layer] in execution order; `run` is what hook.Interceptor gives model_call(). What cannot be
    captured (bias, causal or per-query masks) raises CaptureError."""
    listing = _Listing()
    run(listing)
    return list(listing.layers.values())
