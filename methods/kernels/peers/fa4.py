# SPDX-License-Identifier: Apache-2.0
"""FlashAttention-4 (CuTe DSL): its dense path for dense plans, its block-sparse path for the others."""

import importlib.metadata

import cutlass
import cutlass.cute as cute
import torch
from flash_attn.cute import utils
from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch
from flash_attn.cute.interface import _flash_attn_fwd

PACKAGES = {"flash_attn": "flash-attn-4", "cutlass": "nvidia-cutlass-dsl", "quack": "quack-kernels",
            "tvm_ffi": "apache-tvm-ffi"}
NAME = "FlashAttention-4"
VERSION = importlib.metadata.version("flash-attn-4")
LAYOUT = "blocks"
BLOCK = 128
DEVICES = ("cuda",)


@cute.jit
def key_is_valid(batch, head, q_idx, kv_idx, seqlen_info, aux_tensors):
    """Slots of a ragged block that hold no key. aux_tensors[0]: int32 [keys], 1 = a key."""
    valid = utils.scalar_to_ssa(aux_tensors[0][kv_idx[0]], cutlass.Int32)
    return valid == utils.scalar_to_ssa(1, cutlass.Int32)


def supports(plan):
    if plan.dtype == "f32":
        return "f32 is not covered; allowed are bf16 and f16"
    if plan.head_dim not in (64, 128):
        return f"head_dim {plan.head_dim} is not covered; allowed are 64, 128"
    if plan.dense:
        return "keys ruled out are not covered" if plan.key_valid is not None else None
    grid = plan.uniform(BLOCK)
    if grid.k.valid is not None and grid.k.valid.shape[0] > 1:
        return "ragged blocks that differ from head to head are not covered"
    return None


class State:
    def __init__(self, plan):
        self.arguments = {"softmax_scale": plan.scale, "return_lse": True}
        if plan.dense:
            return
        device = torch.device(plan.device)
        grid = plan.uniform(BLOCK)
        tensors = [torch.from_numpy(x)[None].contiguous().to(device)
                   for x in (grid.partial_counts, grid.partial_indices, grid.full_counts,
                             grid.full_indices)]
        self.arguments["block_sparse_tensors"] = BlockSparseTensorsTorch(
            mask_block_cnt=tensors[0], mask_block_idx=tensors[1], full_block_cnt=tensors[2],
            full_block_idx=tensors[3], block_size=(BLOCK, BLOCK))
        if grid.k.valid is not None:
            valid = torch.from_numpy(grid.k.valid[0]).to(device, torch.int32)
            self.arguments.update(mask_mod=key_is_valid, aux_tensors=[valid])


def prepare(plan):
    return State(plan)


def attend(state, q, k, v):
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, tokens, heads, head_dim]
    o, lse = _flash_attn_fwd(q, k, v, **state.arguments)[:2]
    return o[0].transpose(0, 1), lse[0]
