# SPDX-License-Identifier: Apache-2.0
"""RainFusion2.0 put together from FlashAttention-4 and torch pieces: what its author would write today.

Attention is fa4.py's. The phase `plan` is the prediction in torch: block means of the permuted Q and K,
their products, top-k, lists sorted into the form that FlashAttention-4 reads. It keeps as many blocks
as the widest row of the plan does; attention runs on the plan's own lists, like every other kernel.
"""

import torch
from fa4 import *  # noqa: F401,F403
from fa4 import BLOCK, PACKAGES, State, VERSION as FA4_VERSION  # noqa: F401

NAME = "FlashAttention-4 + torch pieces"
VERSION = FA4_VERSION + ", torch " + torch.__version__


def prepare(plan):
    state = State(plan)
    if not plan.dense:
        grid = plan.uniform(BLOCK)
        state.keep = min(grid.k.blocks, int((grid.full_counts + grid.partial_counts).max()))
    return state


def block_means(x):
    heads, tokens, dim = x.shape
    whole = tokens // BLOCK * BLOCK
    means = x[:, :whole].view(heads, -1, BLOCK, dim).mean(2)
    if whole == tokens:
        return means
    return torch.cat([means, x[:, whole:].mean(1, keepdim=True)], 1)


def predict(state, q, k):
    scores = block_means(q) @ block_means(k).transpose(1, 2)
    kept = scores.topk(state.keep, -1).indices.sort(-1).values
    counts = torch.full(kept.shape[:2], state.keep, dtype=torch.int32, device=q.device)
    return counts[None], kept.to(torch.int32)[None]
