# SPDX-License-Identifier: Apache-2.0
"""What a peer is given of a plan: its arrays, and the same plan on a grid of equal blocks.

Loaded by runner.py as the module raingauge_plan.
"""

import numpy as np


class Unsupported(Exception):
    """What a peer does not cover: an outcome, not a failure."""


class Plan:
    """What a method decided. Arrays are numpy's, in host memory; methods/kernels/kernel.h and
    data/plan.h say what they mean."""

    def __init__(self, header, arrays, device):
        for name in ("heads", "tokens", "head_dim", "dtype", "scale", "dense"):
            setattr(self, name, header[name])
        self.device = device
        self.q_order = arrays.get("q_order")  # int32 [1 or heads, tokens]; None: identity
        self.k_order = arrays.get("k_order")
        self.q_offsets = arrays["q_offsets"]  # int32 [1 or heads, query blocks + 1]
        self.k_offsets = arrays["k_offsets"]
        self.row_offsets = arrays["row_offsets"]  # int64 [heads * query blocks + 1]
        self.columns = arrays["columns"]  # int32, ascending in every row
        self.key_valid = arrays.get("key_valid")  # uint8 [tokens]; None: every key
        self._uniform = {}

    def uniform(self, block):
        """The plan on blocks of exactly `block` tokens; see Uniform. Raises Unsupported."""
        if block not in self._uniform:
            self._uniform[block] = Uniform(self, block)
        return self._uniform[block]


class Side:
    """Queries or keys in block order, every block but the last holding exactly `block` slots.

    slots: int64 [P, length], the token that stands in a slot; None: slot = token
    valid: bool [P, length], False where a slot holds nothing (its token is 0 then); None: all hold
    """

    def __init__(self, order, offsets, tokens, block, key_valid):
        sizes = np.diff(offsets.astype(np.int64), axis=1)
        if block is not None and sizes.size and sizes.max() > block:
            raise Unsupported(f"blocks of up to {sizes.max()} tokens; at most {block} are covered")
        rows = offsets.shape[0] if order is None else max(order.shape[0], offsets.shape[0])
        self.blocks = sizes.shape[1]
        packed = block is None or bool((sizes[:, :-1] == block).all()) and bool((sizes[:, -1] > 0).all())
        if packed:
            self.length = tokens
            self.slots = None if order is None else order.astype(np.int64)
            self.valid = None
        else:
            self.length = self.blocks * block
            self._pad(order, offsets, sizes, block, rows)
        if key_valid is not None:
            keys = self.slots if self.slots is not None else np.arange(self.length)[None]
            usable = key_valid.astype(bool)[keys]
            self.valid = usable if self.valid is None else self.valid & usable
        if self.valid is not None and self.valid.all():
            self.valid = None

    def _pad(self, order, offsets, sizes, block, rows):
        self.slots = np.zeros((rows, self.length), np.int64)
        self.valid = np.zeros((rows, self.length), bool)
        inside = np.arange(block)
        for p in range(rows):
            starts = offsets[p if offsets.shape[0] > 1 else 0][:-1].astype(np.int64)
            count = sizes[p if sizes.shape[0] > 1 else 0]
            valid = (inside[None] < count[:, None]).reshape(-1)
            positions = (starts[:, None] + inside[None]).reshape(-1)[valid]
            line = None if order is None else order[p if order.shape[0] > 1 else 0]
            self.slots[p, valid] = positions if line is None else line[positions]
            self.valid[p] = valid

    def places(self, tokens):
        """int64 [P, tokens]: the slot of every token."""
        if self.slots is None:
            return None
        places = np.zeros((self.slots.shape[0], tokens), np.int64)
        for p in range(self.slots.shape[0]):
            filled = slice(None) if self.valid is None else self.valid[p]
            places[p, self.slots[p, filled]] = np.arange(self.length)[filled]
        return places


class Uniform:
    """A plan on a grid of equal blocks.

    q, k: Side. counts int32 [heads, q.blocks] and indices int32 [heads, q.blocks, widest], of the
    key blocks that hold nothing but valid slots (`full_*`) and of those that need the mask
    k.valid (`partial_*`). Slots beyond k.length are no slots: a ragged last block is full.
    """

    def __init__(self, plan, block):
        self.block = block
        self.q = Side(plan.q_order, plan.q_offsets, plan.tokens, block, None)
        self.k = Side(plan.k_order, plan.k_offsets, plan.tokens, block, plan.key_valid)
        heads, rows = plan.heads, plan.q_offsets.shape[1] - 1
        counts = np.diff(plan.row_offsets)
        row = np.repeat(np.arange(heads * rows), counts)
        partial = np.zeros(len(row), bool)
        if self.k.valid is not None:
            whole = self._whole_blocks()
            head = row // rows if whole.shape[0] > 1 else np.zeros(len(row), np.int64)
            partial = ~whole[head, plan.columns]
        shape = (heads, rows)
        self.full_counts, self.full_indices = self._listed(row, plan.columns, ~partial, shape)
        self.partial_counts, self.partial_indices = self._listed(row, plan.columns, partial, shape)

    def _whole_blocks(self):
        padded = np.ones((self.k.valid.shape[0], self.k.blocks * self.block), bool)
        padded[:, :self.k.length] = self.k.valid
        return padded.reshape(padded.shape[0], self.k.blocks, self.block).all(-1)

    @staticmethod
    def _listed(row, columns, chosen, shape):
        row, columns = row[chosen], columns[chosen]
        counts = np.bincount(row, minlength=shape[0] * shape[1])
        widest = max(1, int(counts.max(initial=0)))
        indices = np.zeros((shape[0] * shape[1], widest), np.int32)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        indices[row, np.arange(len(row)) - np.repeat(starts, counts)] = columns
        return (counts.astype(np.int32).reshape(shape), indices.reshape(*shape, widest))
