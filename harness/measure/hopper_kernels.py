# SPDX-License-Identifier: Apache-2.0
"""The Hopper kernels next to FlashAttention-4 and cuDNN in one process, interleaved sample by sample: one
JSON line a case with every raw sample. One command on a machine with an H100 or H200, nvcc and PyTorch:

    python3 harness/measure/hopper_kernels.py --out results.jsonl

FlashAttention-4 (flash-attn-4, nvidia-cutlass-dsl) is used where it can be imported; its absence is said.
Inputs are N(0, 1) in bf16, lists random and ascending, equal counts. Every output is checked before it
is timed: 64 rows of our kernel against float64, and against FlashAttention-4's output."""
import argparse
import ctypes
import json
import math
import pathlib
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


class Problem:
    """Q, K, V and the buffers of one shape."""

    def __init__(self, library, heads, tokens, dim):
        self.library, self.heads, self.tokens, self.dim = library, heads, tokens, dim
        self.q, self.k, self.v = (torch.randn(1, tokens, heads, dim, device=DEVICE, dtype=torch.bfloat16)
                                  for _ in range(3))
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

    def ours(self, lists, keep):
        items = self.items(keep)
        boxes = lists.contiguous().view(-1)

        def run():
            status = self.library.attend(*pointers(self.q, self.k, self.v, self.o, self.lse), self.heads,
                                         self.tokens, self.dim, *pointers(items), len(items),
                                         *pointers(boxes, self.counter), self.scale)
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
        for name, run in arms.items():
            times[name].append(time_once(run))
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


def attention_case(out, library, heads, tokens, dim, densities, samples):
    problem = Problem(library, heads, tokens, dim)
    for density in densities:
        keep = min(problem.blocks, math.ceil(problem.blocks * density))
        lists = torch.rand(1, heads, problem.blocks, problem.blocks, device=DEVICE)
        lists = lists.topk(keep, -1).indices.sort(-1).values.to(torch.int32)
        arms = {"ours": problem.ours(lists, keep)}
        fa4 = None
        if _flash_attn_fwd is not None:
            fa4 = problem.fa4_sparse(lists, keep)
            arms["fa4_sparse"] = fa4
        if keep == problem.blocks:
            arms["cudnn_dense"] = problem.cudnn()
            if _flash_attn_fwd is not None:
                arms["fa4_dense"] = lambda: _flash_attn_fwd(problem.q, problem.k, problem.v)
        arms["ours"]()
        torch.cuda.synchronize()
        errors = problem.check(lists, fa4)
        tokens_kept = torch.clamp(tokens - lists.long() * 128, max=128).sum(-1).double()
        rows = torch.clamp(tokens - torch.arange(problem.blocks, device=DEVICE) * 128, max=128).double()
        pairs = (tokens_kept * rows).sum().item()
        report(out, f"{tokens}x{heads}x{dim} density {keep / problem.blocks:.4f}",
               interleave(arms, samples), 4 * dim * pairs,
               {"density": pairs / (heads * tokens * tokens), **errors})


def oracle_case(out, library, heads, tokens, dim, samples):
    problem = Problem(library, heads, tokens, dim)
    blocks = problem.blocks
    levels = torch.empty(heads, blocks, tokens, device=DEVICE)
    mass = torch.empty(heads, blocks, blocks, device=DEVICE)
    items = problem.items(0, 256)
    offsets = torch.clamp(torch.arange(blocks + 1, device=DEVICE) * 128, max=tokens).int()
    boxes = torch.arange(blocks + 1, device=DEVICE).int()

    def ours():
        status = library.oracle(*pointers(problem.q, problem.k, problem.lse, levels, mass), heads, tokens, dim,
                                *pointers(items), len(items), *pointers(offsets, boxes), blocks,
                                *pointers(problem.counter), problem.scale)
        assert status == 0, f"CUDA error {status}"
    ours()
    torch.cuda.synchronize()
    head, block = heads - 1, blocks // 2
    q = problem.q[0, block * 128:(block + 1) * 128, head].double()
    score = (q @ problem.k[0, :, head].double().T) / math.sqrt(dim)
    exact = torch.nn.functional.pad(score.softmax(-1), (0, blocks * 128 - tokens))
    exact = exact.view(len(q), blocks, 128).sum(-1).mean(0)
    error = (mass[head, block].double() - exact).abs().max().item()
    total = (mass.sum(-1) - 1).abs().max().item()
    assert error <= 1e-5 and total <= 1e-3, (error, total)
    arms = {"oracle": ours, "cudnn_dense": problem.cudnn()}
    if _flash_attn_fwd is not None:
        arms["fa4_dense"] = lambda: _flash_attn_fwd(problem.q, problem.k, problem.v)
    report(out, f"oracle {tokens}x{heads}x{dim}", interleave(arms, samples), 4 * dim * heads * tokens * tokens,
           {"max_mass_error": error, "max_sum_error": total})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--library", help="built before from hopper_kernels.cu")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    library = ctypes.CDLL(str(arguments.library or build_library()))
    with open(arguments.out, "w", encoding="utf-8") as out:
        out.write(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                              "cudnn": torch.backends.cudnn.version(), "seed": arguments.seed,
                              "fa4": _flash_attn_fwd is not None, "state": state()}) + "\n")
        attention_case(out, library, 40, 75600, 128, (0.05, 0.1, 0.2), 9)
        attention_case(out, library, 40, 75600, 128, (1.0,), 5)
        oracle_case(out, library, 40, 75600, 128, 3)
        attention_case(out, library, 48, 17776, 64, (0.1, 0.2, 1.0), 15)
        attention_case(out, library, 12, 32760, 128, (0.1, 0.2, 1.0), 15)


if __name__ == "__main__":
    main()
