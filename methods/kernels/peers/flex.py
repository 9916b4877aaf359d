# SPDX-License-Identifier: Apache-2.0
"""FlexAttention (torch) on the same block lists: the block-sparse attention that everyone has.

Compiled on a GPU and for long sequences. Short ones on a CPU run uncompiled: there torch reads the mask
function alone and holds all scores, so the lists go into that function.
"""

import torch
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

NAME = "FlexAttention"
VERSION = "torch " + torch.__version__
LAYOUT = "blocks"
BLOCK = 128
DEVICES = ("cpu", "cuda")
LONGEST_UNCOMPILED = 2048  # tokens

# Every shape is compiled on its own; more than the usual eight may come.
torch._dynamo.config.recompile_limit = 256
compiled = torch.compile(flex_attention, dynamic=False)


def supports(plan):
    plan.uniform(BLOCK)
    if plan.head_dim < 16:
        return f"head_dim {plan.head_dim}: at least 16 is needed"
    return None


def lists(counts, indices, columns, device):
    """[1, heads, rows], [1, heads, rows, columns] on the device."""
    wide = torch.zeros(*indices.shape[:2], columns, dtype=torch.int32)
    wide[..., :indices.shape[2]] = torch.from_numpy(indices[..., :columns])
    return torch.from_numpy(counts)[None].to(device), wide[None].to(device)


def kept_blocks(grid, device):
    """bool [heads, rows, columns]."""
    kept = torch.zeros(*grid.full_counts.shape, grid.k.blocks, dtype=torch.bool)
    for counts, indices in ((grid.full_counts, grid.full_indices),
                            (grid.partial_counts, grid.partial_indices)):
        listed = torch.arange(indices.shape[2])[None, None] < torch.from_numpy(counts)[..., None]
        head, row, place = listed.nonzero(as_tuple=True)
        kept[head, row, torch.from_numpy(indices)[head, row, place].long()] = True
    return kept.to(device)


# What the mask functions read: set by attend(). Functions of their own for every plan would be compiled
# anew for every plan.
valid = kept = None


def key_is_valid(b, h, q, k):
    return valid[0, k]


def key_is_valid_by_head(b, h, q, k):
    return valid[h, k]


def pair_is_kept(b, h, q, k):
    return kept[h, q // BLOCK, k // BLOCK]


def pair_is_kept_and_valid(b, h, q, k):
    return kept[h, q // BLOCK, k // BLOCK] & valid[0, k]


def pair_is_kept_and_valid_by_head(b, h, q, k):
    return kept[h, q // BLOCK, k // BLOCK] & valid[h, k]


class State:
    def __init__(self, plan):
        device = torch.device(plan.device)
        grid = plan.uniform(BLOCK)
        self.scale = plan.scale
        self.eager = device.type == "cpu" and max(grid.q.length, grid.k.length) <= LONGEST_UNCOMPILED
        partial = lists(grid.partial_counts, grid.partial_indices, grid.k.blocks, device)
        full = lists(grid.full_counts, grid.full_indices, grid.k.blocks, device)
        self.mask = BlockMask.from_kv_blocks(
            *partial, *full, BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=self._mask(grid, device),
            seq_lengths=(grid.q.length, grid.k.length), compute_q_blocks=False)

    def _mask(self, grid, device):
        """Which of the functions above says what a pair of slots sees, and what it reads."""
        self.valid = None if grid.k.valid is None else torch.from_numpy(grid.k.valid).to(device)
        self.kept = kept_blocks(grid, device) if self.eager else None
        by_head = self.valid is not None and self.valid.shape[0] > 1
        if self.eager:
            if self.valid is None:
                return pair_is_kept
            return pair_is_kept_and_valid_by_head if by_head else pair_is_kept_and_valid
        if self.valid is None:
            return None
        return key_is_valid_by_head if by_head else key_is_valid


def prepare(plan):
    return State(plan)


def attend(state, q, k, v):
    global valid, kept
    valid, kept = state.valid, state.kept
    run = flex_attention if state.eager else compiled
    o, aux = run(q[None], k[None], v[None], block_mask=state.mask, scale=state.scale,
                 return_aux=AuxRequest(lse=True))
    return o[0], aux.lse[0]
