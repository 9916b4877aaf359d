# SPDX-License-Identifier: Apache-2.0
"""FlashInfer's block-sparse attention: blocks of any size, lists by head. Its planning runs on the host
and is part of the phase prepare."""

import importlib.metadata
import math

import numpy as np
import torch
from flashinfer.sparse import VariableBlockSparseAttentionWrapper

PACKAGES = {"flashinfer": "flashinfer-python", "tvm_ffi": "apache-tvm-ffi"}
NAME = "FlashInfer"
VERSION = importlib.metadata.version("flashinfer-python")
LAYOUT = "blocks"
BLOCK = None  # blocks as the plan has them
DEVICES = ("cuda",)
WORKSPACE_BYTES = 128 << 20


def supports(plan):
    if plan.dtype == "f32":
        return "f32 is not covered; allowed are bf16 and f16"
    if plan.key_valid is not None:
        return "keys ruled out are not covered"
    return None


def sizes(offsets, heads, device):
    lengths = torch.from_numpy(np.diff(offsets, axis=1).astype(np.int32)).to(device)
    return lengths.expand(heads, -1).contiguous()


class State:
    def __init__(self, plan):
        device = torch.device(plan.device)
        rows, columns = plan.q_offsets.shape[1] - 1, plan.k_offsets.shape[1] - 1
        mask = np.zeros((plan.heads * rows, columns), bool)
        mask[np.repeat(np.arange(len(mask)), np.diff(plan.row_offsets)), plan.columns] = True
        mask = torch.from_numpy(mask).view(plan.heads, rows, columns).to(device)
        workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self.wrapper = VariableBlockSparseAttentionWrapper(workspace)
        dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[plan.dtype]
        self.wrapper.plan(mask, sizes(plan.q_offsets, plan.heads, device),
                          sizes(plan.k_offsets, plan.heads, device), plan.heads, plan.heads,
                          plan.head_dim, sm_scale=plan.scale, q_data_type=dtype)


def prepare(plan):
    return State(plan)


def attend(state, q, k, v):
    o, lse = state.wrapper.run(q, k, v, return_lse=True)
    return o, lse * math.log(2.0)  # FlashInfer counts in powers of 2
