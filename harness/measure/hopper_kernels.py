# SPDX-License-Identifier: Apache-2.0
"""The Hopper kernels next to FlashAttention-4 and cuDNN in one process, interleaved sample by sample: one
JSON line a case with every raw sample. One command on a machine with an H100 or H200, nvcc and PyTorch:

    python3 harness/measure/hopper_kernels.py --out results.jsonl

FlashAttention-4 (flash-attn-4, nvidia-cutlass-dsl) is used where it can be imported; its absence is said.
Lists are ascending with equal counts. Cases `random`: inputs N(0, 1) in bf16, lists drawn. Cases
`predicted`: inputs with the structure that data/synthetic_head.cpp plants, tokens in RainFusion2.0's order,
lists its top-k of pooled scores; every kernel gets the same. Every output is checked before it is timed: 64
rows of our kernel against float64, and against FlashAttention-4's output.
Further builds of our kernels can be timed beside this one: --library NAME=FILE, again and again."""
import argparse
import ctypes
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import warnings

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

warnings.filterwarnings("ignore")
try:
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch
    from flash_attn.cute.interface import _flash_attn_fwd
except ImportError as missing:
    _flash_attn_fwd = None
    print(f"FlashAttention-4 is not here: {missing}", file=sys.stderr)

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEVICE = "cuda"


def build_library():
    target = pathlib.Path(tempfile.mkdtemp()) / "hopper_kernels.so"
    sources = [ROOT / "harness/measure/hopper_kernels.cu"]
    sources += [ROOT / f"methods/kernels/cuda/{name}.cu" for name in ("forward_sm90", "mass")]
    subprocess.run(["nvcc", "-std=c++17", "-O3", f"-I{ROOT}", "-shared", "-Xcompiler", "-fPIC",
                    "-gencode=arch=compute_90a,code=sm_90a", "-o", target, *sources], check=True)
    return target


def pointers(*tensors):
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


def state():
    names = "name,clocks.sm,power.draw,temperature.gpu,clocks_throttle_reasons.active"
    return subprocess.run(["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader"],
                          capture_output=True, text=True, check=True).stdout.strip()


def frame_window(frames, height, width, side=8):
    """Token of every position: the first frame raster, the others windows, then rows below, then columns."""
    plane = torch.arange(height * width, device=DEVICE).view(height, width)
    high, wide = height // side * side, width // side * side
    windows = plane[:high, :wide].reshape(high // side, side, wide // side, side).transpose(1, 2)
    later = torch.cat([windows.flatten(), plane[high:].flatten(), plane[:high, wide:].flatten()])
    return torch.cat([plane.flatten()] + [f * height * width + later for f in range(1, frames)])


class Planted:
    """Heads in turn local, temporal, sink, textural, random: data/synthetic_head.cpp says what they are."""
    AXES = {"local": ((8.0, 0.8),) * 3, "temporal": ((0, 1), (9.0, 0.45), (9.0, 0.45)),
            "sink": ((0, 1), (3.0, 4.0), (3.0, 4.0)), "textural": (), "random": ()}

    def __init__(self, grid, dim):
        self.grid, self.dim = grid, dim
        self.places = torch.cartesian_prod(*(torch.arange(n, device=DEVICE) for n in grid))
        cells = self.places // 3
        cell = (cells[:, 0] * 10007 + cells[:, 1]) * 10007 + cells[:, 2]
        self.clusters = torch.randint(24, (int(cell.max()) + 1,), device=DEVICE)[cell]

    def signs(self):
        return torch.randint(2, (24, self.dim), device=DEVICE).float()[self.clusters] * 2 - 1

    def structure(self, kind):
        rows = torch.zeros(len(self.places), self.dim, device=DEVICE)
        used = [a for a in enumerate(self.AXES[kind]) if a[1][0] > 0]
        if kind == "textural":
            return self.signs() * math.sqrt(7.0 * math.sqrt(self.dim) / (self.dim - 1))
        pairs = (self.dim - 2) // 2 // max(1, len(used))
        quantiles = math.sqrt(2) * torch.erfinv((torch.arange(pairs, device=DEVICE) + 0.5) / pairs)
        for place, (axis, (logit, deviation)) in enumerate(used):
            angle = self.places[:, axis, None] * quantiles / (deviation * math.sqrt(logit))
            waves = torch.stack([angle.cos(), angle.sin()], -1).flatten(1)
            first = 2 + place * 2 * pairs
            rows[:, first:first + 2 * pairs] = waves * math.sqrt(logit * math.sqrt(self.dim) / pairs)
        return rows

    def head(self, kind):
        noise = 1.0 if kind == "random" else 0.5
        base = self.structure(kind)
        q, k = (base + noise * torch.randn_like(base) for _ in range(2))
        if kind == "sink":
            bias = math.sqrt(math.log(3.0 * (self.grid[0] - 1)) * math.sqrt(self.dim))
            q[:, 0], k[:, 0] = bias, bias * (self.places[:, 0] == 0)
        return q, k, self.signs() + 0.5 * torch.randn_like(base)


def planted_inputs(grid, text, heads, dim):
    """Q, K, V [1, tokens, heads, dim] in block order; text tokens, noise, come first."""
    model, order = Planted(grid, dim), frame_window(*grid)
    tensors = [torch.empty(1, text + len(order), heads, dim, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    for head in range(heads):
        for target, source in zip(tensors, model.head(list(Planted.AXES)[head % 5])):
            target[0, text:, head] = source[order].bfloat16()
            target[0, :text, head] = torch.randn(text, dim, device=DEVICE).bfloat16()
    return tensors


def predicted_lists(q, k, keep):
    """RainFusion2.0's prediction: block means, their products, top-k, ascending."""
    def means(x):
        x = x[0].transpose(0, 1).float()
        pad = -x.shape[1] % 128
        sums = torch.nn.functional.pad(x, (0, 0, 0, pad)).view(len(x), -1, 128, x.shape[2]).sum(2)
        counts = torch.full((sums.shape[1], 1), 128.0, device=DEVICE)
        counts[-1] = 128 - pad
        return sums / counts
    scores = means(q) @ means(k).transpose(1, 2)
    return scores.topk(keep, -1).indices.sort(-1).values.to(torch.int32)[None]


class Problem:
    """Q, K, V and the buffers of one shape."""

    def __init__(self, libraries, heads, tokens, dim, inputs=None):
        self.libraries, self.heads, self.tokens, self.dim = libraries, heads, tokens, dim
        self.q, self.k, self.v = inputs or (
            torch.randn(1, tokens, heads, dim, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
        self.o = torch.empty_like(self.q)
        self.lse = torch.empty(heads, tokens, device=DEVICE)
        self.counter = torch.zeros(2, dtype=torch.int32, device=DEVICE)
        self.blocks = math.ceil(tokens / 128)
        self.scale = ctypes.c_float(1.4426950408889634 / math.sqrt(dim))

    def items(self, keep, rows=128):
        tiles = math.ceil(self.tokens / rows)
        row = torch.arange(self.heads * tiles, device=DEVICE)
        first = row % tiles * rows
        items = torch.zeros(len(row), 6, dtype=torch.int32, device=DEVICE)
        items[:, 0:2] = (row * keep).to(torch.int64).view(-1, 1).view(torch.int32)
        items[:, 2] = row // tiles
        items[:, 3] = first
        items[:, 4] = torch.clamp(self.tokens - first, max=rows)
        items[:, 5] = keep
        return items

    def ours(self, lists, keep, library):
        # What the kernel `cuda` does: dense plans of head_dim 64 are items of 192 rows without lists.
        every_box = self.blocks if keep == self.blocks and self.dim == 64 else 0
        items = self.items(keep, 192 if every_box else 128)
        boxes = lists.contiguous().view(-1)

        def run():
            status = library.attend(*pointers(self.q, self.k, self.v, self.o, self.lse), self.heads,
                                    self.tokens, self.dim, *pointers(items), len(items),
                                    *pointers(boxes, self.counter), self.scale, every_box)
            assert status == 0, f"CUDA error {status}"
        return run

    def fa4_sparse(self, lists, keep):
        full = torch.zeros(1, self.heads, self.blocks, self.blocks, device=DEVICE, dtype=torch.int32)
        full[..., :keep] = lists
        count = torch.full((1, self.heads, self.blocks), keep, device=DEVICE, dtype=torch.int32)
        tensors = BlockSparseTensorsTorch(
            mask_block_cnt=torch.zeros_like(count), mask_block_idx=torch.zeros_like(full),
            full_block_cnt=count, full_block_idx=full, block_size=(128, 128))
        return lambda: _flash_attn_fwd(self.q, self.k, self.v, block_sparse_tensors=tensors)

    def cudnn(self):
        q, k, v = (t.transpose(1, 2).contiguous() for t in (self.q, self.k, self.v))

        def run():
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return run

    def check(self, lists, fa4):
        """Largest row errors over 64 rows of ours against float64: of the output, of the LSE."""
        worst, worst_lse = 0.0, 0.0
        for _ in range(64):
            head, row = (int(torch.randint(n, ())) for n in (self.heads, self.tokens))
            keys = (lists[0, head, row // 128].long()[:, None] * 128 + torch.arange(128, device=DEVICE)).flatten()
            keys = keys[keys < self.tokens]
            score = (self.k[0, keys, head].double() @ self.q[0, row, head].double()) / math.sqrt(self.dim)
            exact = score.softmax(-1) @ self.v[0, keys, head].double()
            error = ((self.o[0, row, head].double() - exact).norm() / exact.norm()).item()
            lse_error = abs(self.lse[head, row].item() - score.logsumexp(-1).item())
            assert error <= 1e-2 and lse_error <= 1e-3, f"head {head} row {row}: {error}, {lse_error}"
            worst, worst_lse = max(worst, error), max(worst_lse, lse_error)
        result = {"max_row_error": worst, "max_lse_error": worst_lse}
        if fa4 is not None:
            other = fa4()[0].float()
            result["against_fa4"] = ((self.o.float() - other).norm() / other.norm()).item()
            assert result["against_fa4"] <= 1e-2, result
        return result


def time_once(run):
    """Between two events. The device is kept busy until the launch is queued: what Python needs to call a
    kernel (a quarter of a millisecond for FlashAttention-4) is not the kernel's time."""
    torch.cuda._sleep(2_000_000)
    start, end = torch.cuda.Event(True), torch.cuda.Event(True)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def interleave(arms, samples):
    for run in arms.values():
        run()
    torch.cuda.synchronize()
    times = {name: [] for name in arms}
    for _ in range(samples):
        # In a new order each time: under a power limit a kernel pays for what ran before it.
        for name in random.sample(list(arms), len(arms)):
            times[name].append(time_once(arms[name]))
    return times


def median(values):
    return sorted(values)[len(values) // 2]


def report(out, case, times, flops, extra):
    line = {"case": case, "flops": flops, "samples_ms": times,
            "median_ms": {n: median(t) for n, t in times.items()},
            "tflops": {n: flops / median(t) / 1e9 for n, t in times.items()}, **extra, "state": state()}
    out.write(json.dumps(line) + "\n")
    out.flush()
    for name, values in times.items():
        print(f"{case:34s} {name:12s} {median(values):9.3f} ms ({min(values):.3f} to {max(values):.3f}) "
              f"{flops / median(values) / 1e9:6.1f} TFLOP/s", flush=True)


def attention_case(out, problem, lists, what, samples):
    keep = lists.shape[-1]
    arms = {name: problem.ours(lists, keep, library) for name, library in problem.libraries.items()}
    fa4 = None
    if _flash_attn_fwd is not None:
        fa4 = problem.fa4_sparse(lists, keep)
    errors = {}
    for name, run in arms.items():
        problem.o.fill_(math.nan)
        run()
        torch.cuda.synchronize()
        errors[name] = problem.check(lists, fa4)
    if fa4 is not None:
        arms["fa4_sparse"] = fa4
    if keep == problem.blocks:
        arms["cudnn_dense"] = problem.cudnn()
        if _flash_attn_fwd is not None:
            arms["fa4_dense"] = lambda: _flash_attn_fwd(problem.q, problem.k, problem.v)
    tokens, heads, dim = problem.tokens, problem.heads, problem.dim
    kept = torch.clamp(tokens - lists.long() * 128, max=128).sum(-1).double()
    rows = torch.clamp(tokens - torch.arange(problem.blocks, device=DEVICE) * 128, max=128).double()
    pairs = (kept * rows).sum().item()
    report(out, f"{tokens}x{heads}x{dim} {what} {keep / problem.blocks:.4f}", interleave(arms, samples),
           4 * dim * pairs, {"lists": what, "density": pairs / (heads * tokens * tokens), "errors": errors})


def random_cases(out, libraries, heads, tokens, dim, densities, samples):
    problem = Problem(libraries, heads, tokens, dim)
    for density in densities:
        keep = min(problem.blocks, math.ceil(problem.blocks * density))
        lists = torch.rand(1, heads, problem.blocks, problem.blocks, device=DEVICE)
        lists = lists.topk(keep, -1).indices.sort(-1).values.to(torch.int32)
        attention_case(out, problem, lists, "random", samples)


def predicted_cases(out, libraries, heads, grid, text, dim, densities, samples):
    inputs = planted_inputs(grid, text, heads, dim)
    problem = Problem(libraries, heads, text + math.prod(grid), dim, inputs)
    for density in densities:
        keep = math.ceil(problem.blocks * density)
        attention_case(out, problem, predicted_lists(problem.q, problem.k, keep), "predicted", samples)


class Oracle:
    """Mass of every block pair by one build of ours."""

    def __init__(self, problem, library):
        blocks, heads, tokens = problem.blocks, problem.heads, problem.tokens
        self.levels = torch.empty(heads, blocks, tokens, device=DEVICE)
        self.mass = torch.empty(heads, blocks, blocks, device=DEVICE)
        items = problem.items(0, 256)
        offsets = torch.clamp(torch.arange(blocks + 1, device=DEVICE) * 128, max=tokens).int()
        boxes = torch.arange(blocks + 1, device=DEVICE).int()

        def run():
            status = library.oracle(
                *pointers(problem.q, problem.k, problem.lse, self.levels, self.mass), heads, tokens, problem.dim,
                *pointers(items), len(items), *pointers(offsets, boxes), blocks, *pointers(problem.counter),
                problem.scale)
            assert status == 0, f"CUDA error {status}"
        self.run = run

    def check(self, problem):
        head, block = problem.heads - 1, problem.blocks // 2
        q = problem.q[0, block * 128:(block + 1) * 128, head].double()
        score = (q @ problem.k[0, :, head].double().T) / math.sqrt(problem.dim)
        exact = torch.nn.functional.pad(score.softmax(-1), (0, problem.blocks * 128 - problem.tokens))
        exact = exact.view(len(q), problem.blocks, 128).sum(-1).mean(0)
        error = (self.mass[head, block].double() - exact).abs().max().item()
        total = (self.mass.sum(-1) - 1).abs().max().item()
        assert error <= 1e-5 and total <= 1e-3, (error, total)
        return {"max_mass_error": error, "max_sum_error": total}


def oracle_case(out, libraries, heads, tokens, dim, samples):
    problem = Problem(libraries, heads, tokens, dim)
    arms, errors = {}, {}
    for name, library in libraries.items():
        oracle = Oracle(problem, library)
        oracle.run()
        torch.cuda.synchronize()
        errors[name] = oracle.check(problem)
        arms["oracle" if name == "ours" else f"oracle_{name}"] = oracle.run
    lists = torch.arange(problem.blocks, device=DEVICE, dtype=torch.int32).expand(1, heads, problem.blocks, -1)
    arms["ours_dense"] = problem.ours(lists, problem.blocks, libraries["ours"])
    if _flash_attn_fwd is not None:
        arms["fa4_dense"] = lambda: _flash_attn_fwd(problem.q, problem.k, problem.v)
    report(out, f"oracle {tokens}x{heads}x{dim}", interleave(arms, samples), 4 * dim * heads * tokens * tokens,
           {"errors": errors})


CASES = {
    "random": lambda *a: random_cases(*a, 40, 75600, 128, (0.05, 0.1, 0.2), 9),
    "predicted": lambda *a: predicted_cases(*a, 40, (21, 45, 80), 0, 128, (0.05, 0.1, 0.2), 9),
    "random_64": lambda *a: random_cases(*a, 48, 17776, 64, (0.05, 0.1, 0.2), 21),
    "predicted_64": lambda *a: predicted_cases(*a, 48, (13, 30, 45), 226, 64, (0.05, 0.1, 0.2), 21),
    "random_small": lambda *a: random_cases(*a, 12, 32760, 128, (0.1, 0.2), 21),
    "dense": lambda *a: random_cases(*a, 40, 75600, 128, (1.0,), 7),
    "dense_64": lambda *a: random_cases(*a, 48, 17776, 64, (1.0,), 15),
    "dense_small": lambda *a: random_cases(*a, 12, 32760, 128, (1.0,), 15),
    "oracle": lambda *a: oracle_case(*a, 40, 75600, 128, 7),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--library", action="append", default=[], metavar="NAME=FILE",
                        help="built before from hopper_kernels.cu; without any, this tree's is built as `ours`")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    files = dict(entry.split("=", 1) for entry in arguments.library) or {"ours": build_library()}
    libraries = {name: ctypes.CDLL(str(file)) for name, file in files.items()}
    with open(arguments.out, "w", encoding="utf-8") as out:
        out.write(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                              "cudnn": torch.backends.cudnn.version(), "seed": arguments.seed,
                              "fa4": _flash_attn_fwd is not None, "state": state()}) + "\n")
        for case in arguments.cases:
            CASES[case](out, libraries)


if __name__ == "__main__":
    main()
