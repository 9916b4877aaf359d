# SPDX-License-Identifier: Apache-2.0
"""Captures on disk, format 1 (data/README.md): an incremental writer and a lazy reader.

Elements travel as raw bits: HDF5 never converts one. bf16 is a 16-bit HDF5 float, so that generic tools
print its values.
"""

import os
import pathlib
import shutil

import h5py
import numpy as np
import torch

from .elements import ALIGNMENT, CHUNK_TOKENS, ElementFile, PageCopies, Stream, Threads
from .errors import CaptureError
from .segments import Segment

DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_BITS = {torch.float32: (torch.int32, "<u4"), torch.float16: (torch.int16, "<u2"),
         torch.bfloat16: (torch.int16, "<u2")}
# size, sign, exponent at, exponent bits, mantissa at, mantissa bits, bias
_FIELDS = {torch.float32: (4, 31, 23, 8, 0, 23, 127), torch.float16: (2, 15, 10, 5, 0, 10, 15),
           torch.bfloat16: (2, 15, 7, 8, 0, 7, 127)}
_SEGMENT = np.dtype([("role", "S16"), ("start", "<i8"), ("length", "<i8"), ("frames", "<i4"),
                     ("height", "<i4"), ("width", "<i4")])


def h5_float(dtype):
    size, *fields, bias = _FIELDS[dtype]
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(*fields)  # before the size: the library refuses fields outside the size of the time
    kind.set_size(size)
    kind.set_ebias(bias)
    return kind


def bits_of(tensor):
    """The elements of a CPU tensor as a NumPy array of unsigned integers, strided as they are, without a copy."""
    integer, name = _BITS[tensor.dtype]
    return tensor.view(integer).numpy().view(name)


def tensor_of(bits, dtype):
    return torch.from_numpy(bits.view(bits.dtype.str.replace("u", "i"))).view(dtype)


def is_finite(tensor):
    """Of a CPU tensor. As integers: Inf and NaN are the largest of their sign, with the sign bit as with unsigned numbers,
    without it as with signed ones. So it takes no temporary, and less time than comparing floats."""
    bits = bits_of(tensor)
    _, sign, exponent, exponent_bits, *_ = _FIELDS[tensor.dtype]
    infinity = ((1 << exponent_bits) - 1) << exponent
    signed = bits.view(bits.dtype.str.replace("u", "i"))
    return bool(signed.max() < infinity and bits.max() < infinity + (1 << sign))


def check_target(path, needed, overwrite=False):
    """Refuses an existing file, a missing folder, and a disk with less than `needed` bytes."""
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise CaptureError(f"{path}: exists already; choose another name or pass --overwrite")
    folder = path.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise CaptureError(f"{folder}: is no folder that can be written to")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CaptureError(f"{path}: no space left: {needed / 1e9:.3f} GB are needed, {free / 1e9:.3f} GB are free "
                           "there; record fewer heads, layers or steps, or choose another disk")


class CaptureWriter:
    """Writes records as they come; until finish() the file counts as interrupted, and its whole records
    can be read. attributes: root attributes of format 1 (None and empty strings are left out)."""

    def __init__(self, path, attributes, *, overwrite=False, compress=False):
        self.path, self.compress, self.number, self.bytes = pathlib.Path(path), compress, 0, 0
        check_target(path, 0, overwrite)
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_alignment(1 << 16, ALIGNMENT)
        access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_V110)
        try:
            created = h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, fapl=access)
        except OSError as error:
            raise CaptureError(f"{path}: cannot be created: {error}") from error
        self.file = h5py.File(created)
        # Uncompressed elements go into the place that HDF5 gave a dataset without passing through HDF5, which would
        # hold up every other thread.
        self._elements, self._copies = ElementFile(path), PageCopies()
        self.file.attrs["format"] = "raingauge-capture"
        self.file.attrs["version"] = np.int64(1)
        self.set_attributes(attributes)
        self.file.create_group("records")
        self.file.flush()

    def set_attributes(self, attributes):
        for name, value in attributes.items():
            if value is None or value == "":
                continue
            self.file.attrs[name] = np.asarray(value, np.int32) if name == "patch" else value

    def set_schedule(self, timesteps=(), sigmas=()):
        """Replaces /schedule."""
        if "schedule" in self.file:
            del self.file["schedule"]
        for name, values in (("timesteps", timesteps), ("sigmas", sigmas)):
            if len(values):
                self.file.create_dataset(f"schedule/{name}", data=np.asarray(values, np.float64))
        self.file.flush()

    def _create(self, group, name, shape, dtype):
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # every byte is written by us
        if self.compress:
            creation.set_chunk((1, min(CHUNK_TOKENS, shape[1]), shape[2]))
            creation.set_shuffle()
            creation.set_deflate(1)
        else:
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        made = h5py.h5d.create(group.id, name.encode(), h5_float(dtype), h5py.h5s.create_simple(shape), creation)
        dataset = h5py.Dataset(made)
        dataset.attrs["dtype"] = DTYPES[dtype]
        return dataset

    def write(self, heads, attributes, segments, *, key_valid=None, check=None):
        """One record. heads: an iterable that gives, head by head, a mapping {q, k, v[, o]: tensor [tokens,
        head_dim]} of one dtype; its length is that of attributes["heads"]. Tensors on the CPU are read by other
        threads: they must stay unchanged until write() returns. check: called by those threads as check(name, index
        of the head, some of its rows) until it has seen every row; what it raises, write() raises. Returns the
        record's number."""
        number, name = self.number, f"{self.number:06d}"
        group = self.file["records"].create_group(name)
        try:
            hashes = self._write_heads(group, heads, len(attributes["heads"]), check)
            self._write_small(group, segments, key_valid)
            self.file.flush()  # data reaches the file before the attributes that say the record is whole
            for key, value in hashes.items():
                group.attrs[f"sha256_{key}"] = value
            for key, value in attributes.items():
                if value is None or value == "":
                    continue
                group.attrs[key] = np.asarray(value, np.int32) if key == "heads" else value
            self.file.flush()
        except BaseException as error:
            try:
                del self.file["records"][name]
            except (KeyError, RuntimeError, OSError):
                pass  # a full disk may refuse even that; the record has no attributes and is left out
            if isinstance(error, (OSError, RuntimeError)):
                raise CaptureError(f"{self.path}: /records/{name}: cannot be written ({error}); is there space "
                                   "left on the device?") from error
            raise
        self.number += 1
        return number

    def _write_heads(self, group, heads, count, check):
        streams, threads = {}, Threads()
        try:
            self._write_each(group, heads, count, check, streams, threads)
            hashes = {key: stream.finish() for key, stream in streams.items()}
            return {key: value for key, value in hashes.items() if value}
        finally:
            threads.close()

    def _write_each(self, group, heads, count, check, streams, threads):
        done = 0
        for index, tensors in enumerate(heads):
            if index == count:
                raise CaptureError(f"{self.path}: more heads than the {count} that `heads` names")
            for key, tensor in tensors.items():
                if tensor.dtype not in DTYPES:
                    raise CaptureError(f"{self.path}: {key} is {tensor.dtype}; allowed are float32, float16, bfloat16")
                if key not in streams:
                    streams[key] = self._stream(group, key, (count, *tensor.shape), tensor.dtype, check, threads)
                # A device's elements are copied here: in this thread that comes after what computes them.
                tensor = tensor.detach() if tensor.is_cpu else self._copies(tensor.detach())
                threads.take(streams[key], index, bits_of(tensor))
                self.bytes += tensor.nbytes
            done += 1
        if done != count:
            raise CaptureError(f"{self.path}: {done} heads given, `heads` names {count}")

    def _stream(self, group, key, shape, dtype, check, threads):
        dataset = self._create(group, key, shape, dtype)
        place = None if self.compress else dataset.id.get_offset()

        def put(index, first, block):
            if place is not None:
                row = block[0].nbytes
                self._elements.write(block, place + (index * shape[1] + first) * row)
                return
            space = dataset.id.get_space()
            space.select_hyperslab((index, first, 0), (1, *block.shape))
            dataset.id.write(h5py.h5s.create_simple((1, *block.shape)), space, block, mtype=dataset.id.get_type())

        def checked(index, block):
            check(key, index, tensor_of(block, dtype))
        return Stream(threads.disk, put, checked if check else None, key != "o")

    def _write_small(self, group, segments, key_valid):
        rows = [(s.role.encode(), s.start, s.length, s.frames, s.height, s.width) for s in segments]
        group.create_dataset("segments", data=np.array(rows, _SEGMENT))
        if key_valid is not None:
            group.create_dataset("key_valid", data=np.asarray(key_valid, np.uint8))

    def write_frames(self, arm, frames):
        """frames: uint8 [F, H, W, 3], RGB."""
        frames = np.ascontiguousarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise CaptureError(f"{self.path}: /frames/{arm}: {frames.dtype} {frames.shape}; needed is uint8 [F, H, W, 3]")
        self.file.create_dataset(f"frames/{arm}", data=frames, chunks=(1, *frames.shape[1:]), compression=1, shuffle=True)
        self.file.flush()

    def finish(self):
        self.file.attrs["complete"] = np.int64(1)
        self.close()

    def close(self):
        """Closes without `complete`: the file stays readable as interrupted."""
        if self.file:
            self._elements.close()
            self.file.close()


class RecordReader:
    """One record; tensors are read head by head."""

    def __init__(self, group):
        self.group, self.attributes = group, dict(group.attrs)
        self.heads, self.tokens, self.head_dim = group["q"].shape
        self.head_numbers = [int(h) for h in self.attributes.get("heads", range(self.heads))]
        self.dtype = _dtype_of(group["q"])
        self.segments = [Segment(row["role"].decode(), *(int(row[n]) for n in _SEGMENT.names[1:]))
                         for row in group["segments"][()]]

    def head(self, name, index):
        """Dataset q, k, v or o of the index-th stored head: [tokens, head_dim], the stored bits."""
        dataset = self.group[name]
        dtype = _dtype_of(dataset)
        bits = np.empty((1, *dataset.shape[1:]), _BITS[dtype][1])
        space = dataset.id.get_space()
        space.select_hyperslab((index, 0, 0), bits.shape)
        dataset.id.read(h5py.h5s.create_simple(bits.shape), space, bits, mtype=dataset.id.get_type())
        return tensor_of(bits[0], dtype)

    def tensor(self, name):
        return torch.stack([self.head(name, i) for i in range(self.heads)])


def _dtype_of(dataset):
    stored = dataset.id.get_type()
    if stored.get_class() != h5py.h5t.FLOAT:
        if stored.get_size() == 2 and dataset.attrs.get("dtype") == "bfloat16":
            return torch.bfloat16
        raise CaptureError(f"{dataset.name}: not f32, f16 or bf16")
    fields = (stored.get_size(), *stored.get_fields(), stored.get_ebias())
    for dtype, known in _FIELDS.items():
        if fields == known and stored.get_order() == h5py.h5t.ORDER_LE:
            return dtype
    raise CaptureError(f"{dataset.name}: a float with fields {fields}; allowed are f32, f16 and bf16, little endian")


class CaptureReader:
    """`with CaptureReader(path) as capture: capture.records[0].head("q", 3)`. Records of an interrupted
    capture are those that were written whole."""

    def __init__(self, path):
        self.file = h5py.File(path, "r")
        self.attributes = dict(self.file.attrs)
        if self.attributes.get("format") != "raingauge-capture":
            self.file.close()
            raise CaptureError(f"{path}: is no raingauge capture")
        self.complete = bool(self.attributes.get("complete", 0))
        groups = [group for _, group in sorted(self.file["records"].items())]
        self.records = [RecordReader(group) for group in groups if "layer_index" in group.attrs]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
