# SPDX-License-Identifier: Apache-2.0
"""The child process behind `kernels: ["python:FILE"]`: runs one peer file for raingauge.

A peer file defines
    prepare(plan) -> state
    attend(state, q, k, v) -> (o, lse or None)
and may define
    supports(plan) -> None or the reason why not
    predict(state, q, k): the peer's own way of deciding which blocks to keep, from what attend()
        gets. It is timed as the phase `plan`; what it returns is not used: every kernel attends the
        same lists
    NAME, VERSION: text for the result rows
    TENSORS = "torch" (default) or "numpy" (every type becomes float32, exactly)
    LAYOUT = "record" (default): q, k, v are [heads, tokens, head_dim] in the record's token order
           = "blocks": in block order, as plan.uniform(BLOCK) lays them out; this process gathers
             before and scatters after (the phases permute and unpermute)
    BLOCK = 128: the block of LAYOUT = "blocks"; None: blocks as the plan has them
    DENSE_ONLY, ROUNDS_SCORES = False: as in `raingauge list kernels`
    DEVICES = ("cpu", "cuda")
    PACKAGES = {"module": "distribution"}: what a missing import is called in the message
o has the shape of q, in any floating-point type; lse is [heads, tokens]: natural logarithm, of
scaled scores.

Tensors come through shared memory (descriptor 4), are copied to the device once, before anything is
timed, and results go back that way only when they are checked. What is timed is timed here: with CUDA
events on the current stream, or with the monotonic clock on a CPU.
"""

import ast
import ctypes
import importlib.util
import json
import mmap
import os
import signal
import socket
import sys
import time
import traceback

PROTOCOL = 1
FLUSH_BYTES = 512 << 20  # more than any L2
FLUSHES = 4  # together they give the host, Python above all, a head start over the device


class Unsupported(Exception):
    """What a peer does not cover: an outcome, not a failure."""


def leave_with_parent():
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass


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
        import numpy as np
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
        import numpy as np
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
        import numpy as np
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
        import numpy as np
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
        import numpy as np
        padded = np.ones((self.k.valid.shape[0], self.k.blocks * self.block), bool)
        padded[:, :self.k.length] = self.k.valid
        return padded.reshape(padded.shape[0], self.k.blocks, self.block).all(-1)

    @staticmethod
    def _listed(row, columns, chosen, shape):
        import numpy as np
        row, columns = row[chosen], columns[chosen]
        counts = np.bincount(row, minlength=shape[0] * shape[1])
        widest = max(1, int(counts.max(initial=0)))
        indices = np.zeros((shape[0] * shape[1], widest), np.int32)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        indices[row, np.arange(len(row)) - np.repeat(starts, counts)] = columns
        return (counts.astype(np.int32).reshape(shape), indices.reshape(*shape, widest))


class Clock:
    """Milliseconds between marks on the host."""

    def __init__(self):
        self.marks = [time.perf_counter()]

    def mark(self):
        self.marks.append(time.perf_counter())

    def phases(self):
        return [1000 * (b - a) for a, b in zip(self.marks, self.marks[1:])]


class CudaClock:
    """Milliseconds between marks on the current stream, after a flush of L2."""

    flush = None

    def __init__(self, torch):
        self.torch = torch
        if CudaClock.flush is None:
            CudaClock.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        for _ in range(FLUSHES):
            CudaClock.flush.zero_()
        self.events = []
        self.mark()

    def mark(self):
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        self.events.append(event)

    def phases(self):
        self.torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in zip(self.events, self.events[1:])]


class TorchTensors:
    """Q, K, V as torch tensors on the device."""

    def __init__(self, device):
        import torch
        self.torch = torch
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"
        if self.cuda:
            torch.cuda.set_device(self.device)
        torch.set_grad_enabled(False)

    def set_threads(self, threads):
        if threads > 0:
            self.torch.set_num_threads(threads)

    def view(self, memory, offset, shape, dtype):
        torch = self.torch
        kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
        count = shape[0] * shape[1] * shape[2]
        flat = torch.frombuffer(memory, dtype=kind, count=count, offset=offset)
        tensor = flat.view(*shape)
        # Host tensors are copied as well: the memory may be mapped anew while they are in use.
        return tensor.to(self.device) if self.cuda else tensor.clone()

    def clock(self):
        return CudaClock(self.torch) if self.cuda else Clock()

    def settle(self):
        if self.cuda:
            self.torch.cuda.synchronize()

    def index(self, places):
        return None if places is None else self.torch.from_numpy(places).to(self.device)

    def gather(self, x, places):
        """x [H, N, ...] at places [P, S] -> [H, S, ...]; None: as it is."""
        if places is None:
            return x
        if places.shape[0] == 1:
            return x.index_select(1, places[0])
        if x.dim() == 2:
            return x.gather(1, places)
        return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))

    def describe(self, x):
        return list(x.shape) if self.torch.is_tensor(x) else None

    def store(self, x, memory, offset):
        import numpy as np
        flat = x.detach().to(self.torch.float32).contiguous().cpu().numpy().reshape(-1)
        np.frombuffer(memory, np.float32, flat.size, offset)[:] = flat


class NumpyTensors:
    """Q, K, V as numpy arrays in host memory."""

    cuda = False

    def __init__(self, device):
        if device != "cpu":
            raise Unsupported(f"numpy arrays are host memory; the device is {device}")

    def set_threads(self, threads):
        pass

    def view(self, memory, offset, shape, dtype):
        import numpy as np
        count = shape[0] * shape[1] * shape[2]
        if dtype == "bf16":
            bits = np.frombuffer(memory, np.uint16, count, offset).astype(np.uint32)
            return (bits << 16).view(np.float32).reshape(shape)
        kind = np.float32 if dtype == "f32" else np.float16
        return np.frombuffer(memory, kind, count, offset).reshape(shape).astype(np.float32)

    def clock(self):
        return Clock()

    def settle(self):
        pass

    def index(self, places):
        return places

    def gather(self, x, places):
        import numpy as np
        if places is None:
            return x
        if places.shape[0] == 1:
            return x[:, places[0]]
        return np.stack([x[h, places[h]] for h in range(x.shape[0])])

    def describe(self, x):
        return list(x.shape) if hasattr(x, "shape") else None

    def store(self, x, memory, offset):
        import numpy as np
        flat = np.ascontiguousarray(x, np.float32).reshape(-1)
        np.frombuffer(memory, np.float32, flat.size, offset)[:] = flat


def missing_package(error, packages):
    module = (error.name or str(error)).split(".")[0]
    return f"package {packages.get(module, module)} not installed"


def declared_packages(path):
    """PACKAGES of a file, or of one that it imports from its folder, whose import failed before it
    was reached."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "PACKAGES":
            return ast.literal_eval(node.value)
        if isinstance(node, ast.ImportFrom) and node.module:
            beside = os.path.join(os.path.dirname(os.path.abspath(path)), node.module + ".py")
            if os.path.exists(beside):
                return declared_packages(beside)
    return {}


class Peer:
    """One peer file and what it was given."""

    def __init__(self, request):
        path = request["file"]
        sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
        sys.modules["raingauge_peer"] = sys.modules["__main__"]
        spec = importlib.util.spec_from_file_location("raingauge_peer_file", path)
        self.module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = self.module  # compilers look functions up by their module
        try:
            spec.loader.exec_module(self.module)
            get = lambda name, default: getattr(self.module, name, default)  # noqa: E731
            for name in ("prepare", "attend"):
                if not callable(get(name, None)):
                    raise TypeError(f"defines no function {name}(): see methods/kernels/peers/runner.py")
            device = request["device"]
            devices = get("DEVICES", ("cpu", "cuda"))
            if device.split(":")[0] not in devices:
                raise Unsupported(f"runs on {', '.join(devices)}, not on {device}")
            kinds = {"torch": TorchTensors, "numpy": NumpyTensors}
            self.tensors = kinds[get("TENSORS", "torch")](device)
            self.tensors.set_threads(request["threads"])
        except ImportError as error:
            raise Unsupported(missing_package(error, declared_packages(path))) from error
        self.device = device
        self.in_blocks = get("LAYOUT", "record") == "blocks"
        self.block = get("BLOCK", 128)
        self.plans, self.states, self.indices = {}, {}, {}
        self.inputs = None

    def about(self):
        get = lambda name, default: getattr(self.module, name, default)  # noqa: E731
        return {"name": get("NAME", ""), "version": str(get("VERSION", "")),
                "dense_only": bool(get("DENSE_ONLY", False)),
                "rounds_scores": bool(get("ROUNDS_SCORES", False)),
                "folds_permutation": not self.in_blocks,
                "predicts": callable(get("predict", None))}

    def take_inputs(self, request, memory):
        shape = (request["heads"], request["tokens"], request["head_dim"])
        self.inputs = None  # frees the former ones first
        self.inputs = [self.tensors.view(memory, request[name], shape, request["dtype"])
                       for name in ("q", "k", "v")]
        self.tensors.settle()

    def take_plan(self, request, memory):
        import numpy as np
        arrays = {}
        for name, (offset, dtype, shape) in request["arrays"].items():
            count = int(np.prod(shape))
            arrays[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape).copy()
        plan = Plan(request["plan"], arrays, self.device)
        check = getattr(self.module, "supports", None)
        reason = check(plan) if check is not None else None
        if reason:
            raise Unsupported(reason)
        if self.in_blocks:
            q = Side(plan.q_order, plan.q_offsets, plan.tokens, self.block, None)
            k = Side(plan.k_order, plan.k_offsets, plan.tokens, self.block, None)
            self.indices[request["id"]] = tuple(
                self.tensors.index(x) for x in (q.slots, k.slots, q.places(plan.tokens)))
        self.plans[request["id"]] = plan

    def prepare(self, key):
        """Its time includes whatever the peer makes of the lists, on the host or the device."""
        plan = self.plans[key]
        plan._uniform.clear()
        self.tensors.settle()
        start = time.perf_counter()
        self.states[key] = self.module.prepare(plan)
        self.tensors.settle()
        return 1000 * (time.perf_counter() - start)

    def run(self, key):
        """One execution: (o, lse, phases in ms)."""
        q, k, v = self.inputs
        plan, state = self.plans[key], self.states[key]
        names = []
        clock = self.tensors.clock()

        def phase(name, work):
            result = work()
            clock.mark()
            names.append(name)
            return result

        moves = self.indices.get(key, (None, None, None))
        if any(x is not None for x in moves[:2]):
            gather = self.tensors.gather
            q, k, v = phase("permute", lambda: (gather(q, moves[0]), gather(k, moves[1]),
                                                gather(v, moves[1])))
        predict = getattr(self.module, "predict", None)
        if predict is not None and not plan.dense:
            phase("plan", lambda: predict(state, q, k))
        answer = phase("attend", lambda: self.module.attend(state, q, k, v))
        o, lse = self._checked(answer, q)
        if moves[2] is not None:
            o, lse = phase("unpermute", lambda: (
                self.tensors.gather(o, moves[2]),
                None if lse is None else self.tensors.gather(lse, moves[2])))
        return o, lse, dict(zip(names, clock.phases()))

    def _checked(self, answer, q):
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(f"attend() returned {type(answer).__name__}, expected (o, lse or None)")
        o, lse = answer
        want = self.tensors.describe(q)
        if self.tensors.describe(o) != want:
            raise TypeError(f"attend() returned o of shape {self.tensors.describe(o)}, "
                            f"expected {want}")
        if lse is not None and self.tensors.describe(lse) != want[:2]:
            raise TypeError(f"attend() returned lse of shape {self.tensors.describe(lse)}, "
                            f"expected {want[:2]}")
        return o, lse

    def drop(self, key):
        for table in (self.plans, self.states, self.indices):
            table.pop(key, None)


class Server:
    def __init__(self):
        self.socket = socket.socket(fileno=3)
        self.peer = None
        self.memory = {4: None, 5: None}

    def mapped(self, descriptor, size):
        """The shared file, mapped again when it has grown."""
        old = self.memory[descriptor]
        if old is None or len(old) < size:
            self.memory[descriptor] = mmap.mmap(descriptor, size)
        return self.memory[descriptor]

    def answer(self, request):
        what = request["do"]
        if what == "load":
            self.peer = Peer(request)
            return {"protocol": PROTOCOL, **self.peer.about()}
        peer = self.peer
        if what == "inputs":
            peer.take_inputs(request, self.mapped(4, request["bytes"]))
        elif what == "plan":
            peer.take_plan(request, self.mapped(5, request["bytes"]))
        elif what == "prepare":
            return {"phases": {"prepare": peer.prepare(request["id"])}}
        elif what == "attend":
            o, lse, phases = peer.run(request["id"])
            memory = self.mapped(4, request["bytes"])
            peer.tensors.store(o, memory, request["o"])
            if lse is not None:
                peer.tensors.store(lse, memory, request["lse"])
            return {"phases": phases, "has_lse": lse is not None}
        elif what == "sample":
            prepare = peer.prepare(request["id"])
            phases = peer.run(request["id"])[2]
            return {"phases": {"prepare": prepare, **phases}}
        elif what == "drop":
            peer.drop(request["id"])
        else:
            raise ValueError(f"unknown request {what}")
        return {}

    def guarded(self, request):
        try:
            return {"ok": True, **self.answer(request)}
        except (Unsupported, NotImplementedError) as error:
            return {"ok": False, "outcome": "unsupported", "reason": str(error)}
        except Exception as error:  # noqa: BLE001: whatever a peer raises is its outcome
            traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            return {"ok": False, "outcome": "failed",
                    "reason": f"{type(error).__name__}: {str(error)[:500]} "
                              f"({os.path.basename(where.filename)}:{where.lineno})"}

    def serve(self):
        stream = self.socket.makefile("rw", encoding="utf-8", newline="\n")
        for line in stream:
            stream.write(json.dumps(self.guarded(json.loads(line))) + "\n")
            stream.flush()


if __name__ == "__main__":
    leave_with_parent()
    Server().serve()
