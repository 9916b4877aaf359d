# SPDX-License-Identifier: Apache-2.0
"""How fast does a recorder write a layer, next to a plain sequential write of the same bytes? Pairs in turn, fsync
in all of them, the file removed in between. With `make test` done once:

    PYTHONPATH=data/capture harness/setup/python.sh harness/measure/capture_rate.py --folder build

75,600 tokens x 40 heads x 128 in bf16 (2.3 GB) from [tokens, heads, head_dim], as models hold them. Raw is the faster of
two plain writes, buffered and past the page cache."""
import argparse
import mmap
import os
import pathlib
import statistics
import time

import torch
from raingauge_capture.file import CaptureWriter, is_finite
from raingauge_capture.segments import Segment


def sync(path):
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


def raw(path, size, flags):
    """Seconds for `size` bytes from one buffer of 4 MB."""
    buffer = mmap.mmap(-1, 4 << 20)
    buffer.write(os.urandom(1 << 20) * 4)
    begin = time.monotonic()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o600)
    for offset in range(0, size, len(buffer)):
        os.pwrite(descriptor, buffer, offset)
    os.fsync(descriptor)
    os.close(descriptor)
    return time.monotonic() - begin


def recorded(path, tensors):
    tokens, heads, _ = tensors["q"].shape

    def check(name, head, elements):  # as Recorder does
        assert is_finite(elements)
    by_head = ({name: tensor[:, head] for name, tensor in tensors.items()} for head in range(heads))
    attributes = {"layer_index": 0, "step": 0, "branch": "cond", "scale": 0.1, "heads": list(range(heads)), "heads_total": heads}
    begin = time.monotonic()
    writer = CaptureWriter(path, {"model_id": "rate"}, overwrite=True)
    writer.write(by_head, attributes, [Segment("video", 0, tokens, 21, 45, tokens // 945)], check=check)
    writer.finish()
    sync(path)
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="on the disk to measure")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=75600)
    arguments = parser.parse_args()
    tensors = {name: torch.randn(arguments.tokens, 40, 128, dtype=torch.bfloat16) for name in "qkv"}
    size = sum(tensor.nbytes for tensor in tensors.values())
    path = arguments.folder / "capture_rate.h5"
    ratios = []
    for pair in range(arguments.pairs):
        seconds = {}
        for name, run in (("buffered", lambda: raw(path, size, 0)), ("direct", lambda: raw(path, size, os.O_DIRECT)),
                          ("recorder", lambda: recorded(path, tensors))):
            seconds[name] = run()
            path.unlink()
        ratios.append(min(seconds["buffered"], seconds["direct"]) / seconds["recorder"])
        print(f"pair {pair}: " + ", ".join(f"{name} {size / s / 1e6:.0f} MB/s" for name, s in seconds.items()) +
              f", recorder / faster raw {ratios[-1]:.2f}", flush=True)
    print(f"recorder / faster raw: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
