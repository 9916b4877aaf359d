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
events on the current stream while the device is still busy with the flush before, or with the monotonic
clock on a CPU.
"""

import ast
import ctypes
import importlib.machinery
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


def load_text(name, descriptor):
    """A module whose text the process that started this one left open."""
    loader = importlib.machinery.SourceFileLoader(name, f"/dev/fd/{descriptor}")
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def leave_with_parent():
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass


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
                raise plans.Unsupported(f"runs on {', '.join(devices)}, not on {device}")
            kinds = {"torch": tensors.TorchTensors, "numpy": tensors.NumpyTensors}
            self.tensors = kinds[get("TENSORS", "torch")](device)
            self.tensors.set_threads(request["threads"])
        except ImportError as error:
            raise plans.Unsupported(missing_package(error, declared_packages(path))) from error
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
        plan = plans.Plan(request["plan"], arrays, self.device)
        check = getattr(self.module, "supports", None)
        reason = check(plan) if check is not None else None
        if reason:
            raise plans.Unsupported(reason)
        if self.in_blocks:
            q = plans.Side(plan.q_order, plan.q_offsets, plan.tokens, self.block, None)
            k = plans.Side(plan.k_order, plan.k_offsets, plan.tokens, self.block, None)
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
        """One execution: (o, lse, {phases: in ms, launch_hidden: as the clock says})."""
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
        phases = dict(zip(names, clock.phases()))
        return o, lse, {"phases": phases, "launch_hidden": clock.launch_hidden}

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


def refuse(reason):
    """Answers the first request, whatever it is."""
    with socket.socket(fileno=3).makefile("rw", encoding="utf-8") as stream:
        stream.readline()
        stream.write(json.dumps({"ok": False, "outcome": "unsupported", "reason": reason}) + "\n")


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
            o, lse, times = peer.run(request["id"])
            memory = self.mapped(4, request["bytes"])
            peer.tensors.store(o, memory, request["o"])
            if lse is not None:
                peer.tensors.store(lse, memory, request["lse"])
            return {**times, "has_lse": lse is not None}
        elif what == "sample":
            prepared = {"prepare": peer.prepare(request["id"])} if request["prepare"] else {}
            times = peer.run(request["id"])[2]
            return {**times, "phases": {**prepared, **times["phases"]}}
        elif what == "drop":
            peer.drop(request["id"])
        else:
            raise ValueError(f"unknown request {what}")
        return {}

    def guarded(self, request):
        try:
            return {"ok": True, **self.answer(request)}
        except (plans.Unsupported, NotImplementedError) as error:
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
    try:
        plans = load_text("raingauge_plan", 7)
        tensors = load_text("raingauge_tensors", 8)
    except ImportError as missing:
        refuse(missing_package(missing, {}))
    else:
        Server().serve()
