# SPDX-License-Identifier: Apache-2.0
"""The file writer and reader: bits, laziness, interruption, full disks."""
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from raingauge_capture import CaptureError, CaptureReader, CaptureWriter, Segment, make_segments
from raingauge_capture.elements import ALIGNMENT, PageCopies

SITE = {"layer_index": 0, "step": 0, "branch": "cond", "scale": 0.25}
PACKAGE = pathlib.Path(__file__).resolve().parents[3] / "data" / "capture"


def write(path, heads, name="q", **options):
    """One record whose q, k, v are `heads` ([H, N, D])."""
    writer = CaptureWriter(path, {"prompt": "p", "seed": 3}, **options)
    writer.write(({"q": h, "k": h, "v": h} for h in heads), SITE | {"heads": list(range(len(heads)))},
                 [Segment("image", 0, heads.shape[1], 1, 1, heads.shape[1])])
    writer.finish()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_bit_survives(tmp_path, dtype, compress, raingauge):
    """All 65,536 patterns of the 16-bit types that are finite: -0, subnormals, the largest; f32 likewise at its edges."""
    if dtype == torch.float32:
        bits = torch.tensor([0, -2 ** 31, 1, -2 ** 31 + 1, 0x7F7FFFFF, 0x00800000, 0x007FFFFF, 0x3F800001], dtype=torch.int32).repeat(8)
    else:
        bits = torch.arange(-2 ** 15, 2 ** 15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype)
    values = values[torch.isfinite(values)]
    heads = values[: values.numel() // 16 * 16].reshape(2, -1, 8)
    assert (heads == 0).any() and (heads.float().abs() == torch.finfo(dtype).max).any()
    write(tmp_path / "a.h5", heads, compress=compress)
    integer = torch.int32 if dtype == torch.float32 else torch.int16
    with CaptureReader(tmp_path / "a.h5") as capture:
        for name in "qkv":
            assert torch.equal(capture.records[0].tensor(name).view(integer), heads.view(integer))
    assert json.loads(raingauge("capture", "validate", tmp_path / "a.h5", "--json"))["valid"]  # hashes included
    raingauge("capture", "slice", tmp_path / "a.h5", "--out", tmp_path / "b.h5")  # through the C++ reader and writer
    with CaptureReader(tmp_path / "b.h5") as capture:
        assert torch.equal(capture.records[0].tensor("q").view(integer), heads.view(integer))
    if dtype == torch.bfloat16:
        with h5py.File(tmp_path / "a.h5") as file:  # generic tools see the values
            assert np.array_equal(file["records/000000/q"][()], heads.float().numpy())


def elements_written(folder, tokens, strided):
    """(bytes past the page cache, all bytes) of a record whose heads hold every finite pattern of bf16, read back."""
    bits = torch.arange(-2 ** 15, 2 ** 15, dtype=torch.int32).to(torch.int16)
    values = bits.view(torch.bfloat16)
    values = values[torch.isfinite(values)]
    heads = values.repeat(3 * tokens * 64 // values.numel() + 1)[: 3 * tokens * 64].reshape(3, tokens, 64)
    given = heads.transpose(0, 1).contiguous().transpose(0, 1) if strided else heads
    writer = CaptureWriter(folder / "d.h5", {})
    writer.write(({"q": h, "k": h, "v": h} for h in given), SITE | {"heads": [0, 1, 2]},
                 [Segment("image", 0, tokens, 1, 1, tokens)])
    past_cache = writer._elements.direct_bytes
    writer.finish()
    with CaptureReader(folder / "d.h5") as capture:
        for name in "qkv":
            assert torch.equal(capture.records[0].tensor(name).view(torch.int16), heads.view(torch.int16))
    return past_cache, 3 * heads.nbytes


def takes_direct_writes(folder):
    try:
        os.close(os.open(folder / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("tokens", [4096, 4097])
def test_whole_pages_go_past_the_page_cache(tmp_path, tokens, strided, raingauge):
    """A head of 4,096 x 64 elements is whole pages, one of 4,097 x 64 is not: it goes the usual way, bits equal."""
    if not takes_direct_writes(tmp_path):
        pytest.skip(f"skipped: {tmp_path} takes no writes past the page cache")
    past_cache, total = elements_written(tmp_path, tokens, strided)
    assert past_cache == (total if tokens == 4096 else 0)
    assert json.loads(raingauge("capture", "validate", tmp_path / "d.h5", "--json"))["valid"]


def test_a_file_system_without_direct_writes(monkeypatch, tmp_path):
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *mode: opened("", flags) if flags & os.O_DIRECT else opened(path, flags, *mode))
    assert elements_written(tmp_path, 4096, True)[0] == 0


def test_direct_writes_that_are_refused(monkeypatch, tmp_path):
    """A file system that opens the file so and then wants another alignment."""
    write_at = os.pwrite

    def refusing(descriptor, *arguments):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "refused")
        return write_at(descriptor, *arguments)
    monkeypatch.setattr(os, "pwrite", refusing)
    assert elements_written(tmp_path, 4096, True)[0] == 0


@pytest.mark.parametrize("given", ["strided", "on_pages", "off_pages", "inference"])
@pytest.mark.parametrize("compress", [False, True])
def test_heads_of_many_blocks_while_the_disk_is_slow(monkeypatch, tmp_path, given, compress):
    """Memory of a block is not used again before it is written; hashes are those of all elements in order."""
    heads, tokens = 5, 70001
    source = torch.randn(tokens, heads, 8, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16)
    expected = source.transpose(0, 1).contiguous()
    if given == "inference":
        with torch.inference_mode():
            source = source.clone()
    given_heads = [source[:, head] for head in range(heads)]
    if given in ("on_pages", "off_pages"):
        copies = PageCopies()
        held = [copies(torch.cat([x, x[:1]])) for x in given_heads]
        given_heads = [x[:-1] if given == "on_pages" else x.copy_(torch.cat([y[:1], y]))[1:] for x, y in zip(held, given_heads)]
        assert all((x.data_ptr() % ALIGNMENT == 0) == (given == "on_pages") for x in given_heads)
    write_at = os.pwrite

    def slow(descriptor, data, offset):
        time.sleep(0.003)
        return write_at(descriptor, data[:100_000 // ALIGNMENT * ALIGNMENT], offset)  # parts are a disk's right, too
    monkeypatch.setattr(os, "pwrite", slow)
    writer = CaptureWriter(tmp_path / "s.h5", {}, compress=compress)
    writer.write(({name: sign * x if sign < 0 else x for name, sign in (("q", 1), ("k", -1), ("v", 1), ("o", 1))}
                  for x in given_heads), SITE | {"heads": list(range(heads))}, [Segment("image", 0, tokens, 1, 1, tokens)])
    writer.finish()
    with CaptureReader(tmp_path / "s.h5") as capture:
        record, = capture.records
        for name, elements in (("q", expected), ("k", -expected), ("v", expected), ("o", expected)):
            bits = elements.view(torch.int16)
            assert torch.equal(record.tensor(name).view(torch.int16), bits)
            if name != "o":
                assert record.attributes[f"sha256_{name}"] == hashlib.sha256(bits.numpy()).hexdigest()
        assert "sha256_o" not in record.attributes


def test_hashes_are_of_the_heads_in_order_when_the_first_takes_longest(tmp_path):
    heads = torch.randn(6, 64, 8)

    def check(name, index, _):
        if (name, index) == ("q", 0):
            time.sleep(0.3)  # other threads reach the next heads meanwhile
    writer = CaptureWriter(tmp_path / "h.h5", {})
    writer.write(({"q": x, "k": x, "v": x} for x in heads), SITE | {"heads": list(range(6))},
                 [Segment("image", 0, 64, 1, 1, 64)], check=check)
    writer.finish()
    with CaptureReader(tmp_path / "h.h5") as capture:
        for name in "qkv":
            assert capture.records[0].attributes[f"sha256_{name}"] == hashlib.sha256(heads.numpy()).hexdigest()


@pytest.mark.parametrize("place", [(0, 0), (3, 40000), (5, 69999)])
def test_what_a_check_or_a_disk_raises_comes_out(monkeypatch, tmp_path, place):
    """The first, a middle and the last block; the record is dropped, the one before and the next one are whole."""
    head, row = place
    heads = torch.arange(6 * 70000 * 8).remainder(251).to(torch.float16).reshape(6, 70000, 8)
    marked = heads.clone()
    marked[head, row, 3] = -1
    writer = CaptureWriter(tmp_path / "e.h5", {})

    def add(layer, k, check=None):
        writer.write(({"q": q, "k": k, "v": q} for q, k in zip(heads, k)), SITE | {"layer_index": layer, "heads": list(range(6))},
                     [Segment("image", 0, 70000, 1, 1, 70000)], check=check)

    def check(name, index, elements):
        if (elements < 0).any():
            raise CaptureError(f"negative in {name} of {index}")
    add(0, heads, check)
    with pytest.raises(CaptureError, match=f"negative in k of {head}"):
        add(1, marked, check)
    write_at = os.pwrite

    def failing(descriptor, data, offset):
        if bool((np.frombuffer(data, np.float16) < 0).any()):
            raise OSError(errno.EIO, "broken")
        return write_at(descriptor, data, offset)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing)
        with pytest.raises(CaptureError, match="broken"):
            add(2, marked)

    def interrupted():
        yield heads[0]
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        add(3, interrupted())
    add(4, marked)
    writer.finish()
    with CaptureReader(tmp_path / "e.h5") as capture:
        assert [record.attributes["layer_index"] for record in capture.records] == [0, 4]
        assert torch.equal(capture.records[0].tensor("k"), heads) and torch.equal(capture.records[1].tensor("k"), marked)


def test_memory_of_copies_is_used_again_when_nobody_holds_it():
    copies = PageCopies()
    source = torch.randn(64, 3, 32)
    held = [copies(source[:, i]) for i in range(3)]
    assert len({x.data_ptr() for x in held}) == 3 and all(x.data_ptr() % 4096 == 0 for x in held)
    assert all(torch.equal(x, source[:, i]) for i, x in enumerate(held))
    first, view = held[0].data_ptr(), held[0].numpy()
    del held[0]
    assert copies(source[:, 0]).data_ptr() != first  # the array still looks at it
    del view
    assert copies(source[:, 1]).data_ptr() == first


@pytest.mark.parametrize("after", [0.05, 0.2, 0.4])
def test_a_killed_run_is_readable_up_to_its_last_record(tmp_path, after, raingauge):
    script = f"""
import sys, torch
sys.path.insert(0, {str(PACKAGE)!r})
from raingauge_capture import CaptureWriter, Segment
w = CaptureWriter({str(tmp_path / 'k.h5')!r}, {{"seed": 1}})
x = torch.randn(4, 4096, 64).to(torch.bfloat16)
for i in range(100000):
    w.write(({{"q": h, "k": h, "v": h}} for h in x), {{"layer_index": i, "step": 0, "branch": "cond", "scale": 0.125,
            "heads": [0, 1, 2, 3]}}, [Segment("video", 0, 4096, 4, 32, 32)])
    print(i, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-B", "-c", script], stdout=subprocess.PIPE, text=True)
    first = child.stdout.readline()
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    done = [first, *child.stdout.read().split("\n")]
    last = max(int(line) for line in done if line.strip().isdigit())
    with CaptureReader(tmp_path / "k.h5") as capture:
        assert not capture.complete and len(capture.records) >= last + 1
    info = json.loads(raingauge("capture", "info", tmp_path / "k.h5", "--json"))
    assert info["complete"] is False and len(info["records"]) >= last + 1
    raingauge("capture", "slice", tmp_path / "k.h5", "--records", last, "--out", tmp_path / "whole.h5")
    assert json.loads(raingauge("capture", "validate", tmp_path / "whole.h5", "--json"))["valid"]


def test_reading_head_by_head_is_lazy(tmp_path):
    """A record is larger than what reading it may add to the process."""
    code = f"""
import sys, resource, torch
sys.path.insert(0, {str(PACKAGE)!r})
from raingauge_capture import CaptureReader, CaptureWriter, Segment
w = CaptureWriter({str(tmp_path / 'l.h5')!r}, {{}})
w.write(({{name: torch.full((16384, 128), h + 1.0, dtype=torch.bfloat16) for name in "qkv"}} for h in range(24)),
        {{"layer_index": 0, "step": 0, "branch": "cond", "scale": 0.1, "heads": list(range(24))}}, [Segment("video", 0, 16384, 4, 64, 64)])
w.finish()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with CaptureReader({str(tmp_path / 'l.h5')!r}) as c:
    for h in range(24):
        assert float(c.records[0].head("k", h).float().mean()) == h + 1
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    out = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = (int(x) for x in out.split())
    assert os.path.getsize(tmp_path / "l.h5") > 300e6
    assert (after - before) * 1024 < 50e6  # one head is 4 MB, as float32 8 MB


def test_a_full_disk_is_an_error_and_leaves_whole_records(tmp_path):
    path = tmp_path / "full.h5"
    writer = CaptureWriter(path, {})
    heads = torch.randn(2, 2048, 64)

    def add(n):
        writer.write(({"q": h, "k": h, "v": h} for h in heads), SITE | {"heads": [0, 1], "layer_index": n},
                     [Segment("image", 0, 2048, 1, 32, 64)])
    add(0)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 500_000, hard))  # writing beyond fails
    try:
        with pytest.raises(CaptureError, match="space"):
            add(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.close()
    with CaptureReader(path) as capture:
        assert [r.attributes["layer_index"] for r in capture.records] == [0]
        assert torch.equal(capture.records[0].tensor("q"), heads)


def test_bad_calls(tmp_path):
    write(tmp_path / "a.h5", torch.randn(1, 8, 8))
    with pytest.raises(CaptureError, match="exists already"):
        CaptureWriter(tmp_path / "a.h5", {})
    with pytest.raises(CaptureError, match="no folder"):
        CaptureWriter(tmp_path / "missing" / "a.h5", {})
    writer = CaptureWriter(tmp_path / "b.h5", {})
    with pytest.raises(CaptureError, match="float64"):
        writer.write([{"q": torch.zeros(8, 8, dtype=torch.float64)}], SITE | {"heads": [0]}, [])
    with pytest.raises(CaptureError, match="1 heads given"):
        writer.write([{"q": torch.zeros(8, 8)}], SITE | {"heads": [0, 1]}, [])
    with pytest.raises(CaptureError, match="uint8"):
        writer.write_frames("dense", np.zeros((2, 4, 4, 3), np.float32))
    assert not writer.file["records"].keys()


def test_segments():
    assert [str(s) for s in make_segments([(2, 3, 4)], 29, "front")] == ["text 5", "video 2x3x4"]
    assert [str(s) for s in make_segments([(1, 3, 4), (1, 2, 2)], 16, None)] == ["image 1x3x4", "reference 1x2x2"]
    with pytest.raises(CaptureError, match="wrong grid: 2x3x4 is 24 tokens, the sequence has 20"):
        make_segments([(2, 3, 4)], 20, "front")
    with pytest.raises(CaptureError, match="--text-pos"):
        make_segments([(2, 3, 4)], 29, None)
