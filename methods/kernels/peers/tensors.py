# SPDX-License-Identifier: Apache-2.0
"""Q, K and V as a peer wants them, and clocks for its phases.

Loaded by runner.py as the module raingauge_tensors.
"""

import time

import numpy as np
from raingauge_plan import Unsupported

FLUSH_BYTES = 512 << 20  # more than any L2
FLUSHES = 4  # together they keep the device busy while the host, Python above all, launches
MOST_FLUSHES = 128  # some 25 ms of an H100


class Clock:
    """Milliseconds between marks on the host."""

    launch_hidden = True  # nothing is launched

    def __init__(self):
        self.marks = [time.perf_counter()]

    def mark(self):
        self.marks.append(time.perf_counter())

    def phases(self):
        return [1000 * (b - a) for a, b in zip(self.marks, self.marks[1:])]


class CudaClock:
    """Milliseconds between marks on the current stream, after a flush of L2.

    The device is busy with the flush while the host launches. As long as the first event has not come
    when the last mark is launched, no launch is part of the time (launch_hidden); where it has, the next
    clock flushes twice as often. DeviceTimer of methods/kernels/device.h does the same.
    """

    flush = None
    flushes = FLUSHES

    def __init__(self, torch):
        self.torch = torch
        if CudaClock.flush is None:
            CudaClock.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        for _ in range(CudaClock.flushes):
            CudaClock.flush.zero_()
        self.events = []
        self.launch_hidden = False
        self.mark()

    def mark(self):
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        self.events.append(event)

    def phases(self):
        self.launch_hidden = not self.events[0].query()
        if not self.launch_hidden:
            CudaClock.flushes = min(2 * CudaClock.flushes, MOST_FLUSHES)
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
        if places is None:
            return x
        if places.shape[0] == 1:
            return x[:, places[0]]
        return np.stack([x[h, places[h]] for h in range(x.shape[0])])

    def describe(self, x):
        return list(x.shape) if hasattr(x, "shape") else None

    def store(self, x, memory, offset):
        flat = np.ascontiguousarray(x, np.float32).reshape(-1)
        np.frombuffer(memory, np.float32, flat.size, offset)[:] = flat
