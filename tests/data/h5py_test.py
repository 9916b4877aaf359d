# SPDX-License-Identifier: Apache-2.0
"""Do h5py, h5dump and our C++ readers agree, bit for bit, on captures and plans?

Usage: h5py_test.py H5_EXCHANGE [unittest options]; needs h5py and NumPy. H5_EXCHANGE is the program
built from tests/data/h5_exchange.cpp.
"""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np
from h5py import h5s, h5t

EXCHANGE = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else ""
EXPONENT = {"f32": 0x7F800000, "f16": 0x7C00, "bf16": 0x7F80}


def exchange(*arguments, fails=False):
    done = subprocess.run([EXCHANGE, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == (1 if fails else 0), (arguments, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if done.stdout else None


def patterns(dtype, which):
    """The same bit patterns as h5_exchange.cpp writes, [2, 512, 64]."""
    i = np.arange(65536, dtype=np.uint64)
    bits = (i, 65535 - i, i * 40503)[which] & 0xFFFFFFFF
    bits = (bits * 2654435761) & 0xFFFFFFFF if dtype == "f32" else bits & 0xFFFF
    hit = (bits & EXPONENT[dtype]) == EXPONENT[dtype]
    bits = np.where(hit, bits & (0xFFFFFFFF ^ EXPONENT[dtype]), bits)
    return bits.astype(np.uint32 if dtype == "f32" else np.uint16).reshape(2, 512, 64)


def as_float(bits, dtype):
    if dtype == "f32":
        return bits.view(np.float32)
    if dtype == "f16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bf16_type():
    t = h5t.IEEE_F32LE.copy()
    t.set_fields(15, 7, 8, 0, 7)
    t.set_size(2)
    t.set_ebias(127)
    return t


def write_bf16(group, name, bits, **options):
    d = group.create_dataset(name, bits.shape, dtype=h5py.Datatype(bf16_type()), **options)
    d.id.write(h5s.create_simple(bits.shape), d.id.get_space(), np.ascontiguousarray(bits),
               mtype=d.id.get_type())
    return d


def raw_bits(dataset):
    bits = np.empty(dataset.shape, np.uint16)
    dataset.id.read(h5s.create_simple(dataset.shape), dataset.id.get_space(), bits,
                    mtype=dataset.id.get_type())
    return bits


SEGMENTS = np.dtype([("role", "S16"), ("start", "<i8"), ("length", "<i8"), ("frames", "<i4"),
                     ("height", "<i4"), ("width", "<i4")])


def write_record(file, number=7, tensors=None, dtype="bf16", **options):
    """A minimal record as a Python program writes it."""
    record = file.create_group(f"records/{number:06d}")
    for which, name in enumerate("qkv"):
        bits = tensors[which] if tensors else patterns(dtype, which)
        if dtype == "bf16":
            write_bf16(record, name, bits, **options)
        else:
            record.create_dataset(name, data=bits.view({"f16": np.float16, "f32": np.float32}[dtype]),
                                  **options)
    record.attrs.update({"layer_index": 2, "step": np.uint8(9), "branch": "cond", "scale": 0.125})
    record.create_dataset("segments", data=np.array([(b"video", 0, 480, 4, 10, 12),
                                                     (b"text", 480, 32, 0, 0, 0)], SEGMENTS))
    return record


def start_capture(path):
    file = h5py.File(path, "w")
    file.attrs["format"] = "raingauge-capture"
    file.attrs["version"] = 1
    return file


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="raingauge_h5py_")
        self.path = os.path.join(self.folder, "file.h5")

    def tearDown(self):
        shutil.rmtree(self.folder)


class OurCaptures(Folder):
    """What we write, h5py and h5dump read."""

    def test_values_and_layout(self):
        for dtype in ("f32", "f16", "bf16"):
            for storage in ("contiguous", "gzip"):
                exchange("write-capture", self.path, dtype, storage)
                with h5py.File(self.path) as f, self.subTest(dtype=dtype, storage=storage):
                    for which, name in enumerate("qkv"):
                        d = f["records/000042"][name]
                        expected = as_float(patterns(dtype, which), dtype)
                        got = d[...].astype(np.float32)
                        np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))
                        if dtype == "bf16":
                            np.testing.assert_array_equal(raw_bits(d), patterns(dtype, which))
                        chunked = storage == "gzip"
                        self.assertEqual(d.chunks, (1, 512, 64) if chunked else None)
                        self.assertEqual(d.compression, "gzip" if chunked else None)
                        self.assertEqual(d.shuffle, chunked)
                        sha = hashlib.sha256(patterns(dtype, which).tobytes()).hexdigest()
                        self.assertEqual(d.parent.attrs["sha256_" + name], sha)

    def test_attributes(self):
        exchange("write-capture", self.path, "bf16", "contiguous")
        with h5py.File(self.path) as f:
            expected = {"format": "raingauge-capture", "version": 1, "complete": 1, "steps": 20,
                        "model_id": "modèle/☂", "seed": 2**64 - 1, "guidance": 5.5}
            for name, value in expected.items():
                self.assertEqual(f.attrs[name], value, name)
            np.testing.assert_array_equal(f.attrs["patch"], [1, 2, 2])
            np.testing.assert_array_equal(f["schedule/timesteps"], [1000, 937.5])
            np.testing.assert_array_equal(f["schedule/sigmas"], [1, 0.9375, 0])
            r = f["records/000042"]
            expected = {"layer_index": 7, "step": 3, "branch": "uncond", "scale": 0.125,
                        "layer": "blocks.7.attn1", "layers_total": 30, "expert": "transformer_2",
                        "timestep": 937.5, "sigma": 0.9375, "batch_item": 1, "kind": "joint",
                        "heads_total": 12, "rope_applied": 1}
            for name, value in expected.items():
                self.assertEqual(r.attrs[name], value, name)
            np.testing.assert_array_equal(r.attrs["heads"], [11, 4])
            self.assertEqual([tuple(s) for s in r["segments"]],
                             [(b"text", 0, 8, 0, 0, 0), (b"video", 8, 480, 4, 10, 12),
                              (b"pad", 488, 24, 0, 0, 0)])
            self.assertEqual(r["segments"].dtype.itemsize, SEGMENTS.itemsize + 4)  # aligned as in C
            np.testing.assert_array_equal(r["key_valid"], [1] * 488 + [0] * 24)
            np.testing.assert_array_equal(
                r["o"], (np.arange(65536, dtype=np.float32) / np.float32(7)).reshape(2, 512, 64))
            self.assertEqual(f["frames/dense"].dtype, np.uint8)
            np.testing.assert_array_equal(
                f["frames/dense"], (3 * np.arange(72)).astype(np.uint8).reshape(2, 3, 4, 3))

    @unittest.skipUnless(shutil.which("h5dump"), "h5dump (package hdf5-tools) is not installed")
    def test_h5dump_prints_the_values(self):
        exchange("write-capture", self.path, "bf16", "contiguous")
        # Row 0x3f80 / 64 = 254 of head 0: 1.0 and its successors, exact in every h5dump.
        text = subprocess.run(["h5dump", "-m", "%.9g", "-d", "/records/000042/q", "-s", "0,254,0",
                               "-c", "1,1,64", self.path], capture_output=True, text=True,
                              check=True).stdout
        data = text[text.index("DATA {"):]
        got = [float(v) for v in re.findall(r"(?<![(\d,])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?=[,\s])", data)]
        expected = as_float(patterns("bf16", 0)[0, 254], "bf16")
        np.testing.assert_array_equal(np.float32(got), expected)


class TheirCaptures(Folder):
    """What h5py writes, we read."""

    def check(self, dtype):
        result = exchange("read-capture", self.path)
        self.assertTrue(result["complete"])
        record = result["records"][0]
        self.assertEqual(record["dtype"], dtype)
        self.assertEqual(record["shape"], [2, 512, 64])
        self.assertEqual(record["sha256"], [hashlib.sha256(patterns(dtype, w).tobytes()).hexdigest()
                                            for w in range(3)])
        return result, record

    def test_minimal_and_compressed(self):
        for dtype in ("f32", "f16", "bf16"):
            for options in ({}, {"chunks": (1, 100, 64), "compression": "gzip", "shuffle": True},
                            {"chunks": (2, 512, 16)}, {"compression": "gzip", "fletcher32": True}):
                with start_capture(self.path) as f:
                    write_record(f, dtype=dtype, **options)
                    f.attrs["complete"] = 1
                with self.subTest(dtype=dtype, options=options):
                    _, record = self.check(dtype)
                    self.assertEqual((record["step"], record["layer_index"]), (9, 2))
                    self.assertEqual(record["heads"], [0, 1])
                    self.assertEqual(record["segments"][1], ["text", 480, 32, 0, 0, 0])

    def test_uint16_and_big_endian(self):
        with start_capture(self.path) as f:
            record = write_record(f)
            for which, name in enumerate("qkv"):
                del record[name]
                d = record.create_dataset(name, data=patterns("bf16", which))
                d.attrs["dtype"] = np.bytes_("bfloat16")
            f.attrs["complete"] = True
        self.check("bf16")
        for dtype, stored in (("f32", ">f4"), ("f16", ">f2")):
            with start_capture(self.path) as f:
                record = write_record(f, dtype=dtype)
                for which, name in enumerate("qkv"):
                    del record[name]
                    native = patterns(dtype, which).view(stored.replace(">", "<"))
                    record.create_dataset(name, data=native.byteswap().view(stored))
                f.attrs["complete"] = True
            self.check(dtype)

    def test_every_kind_of_attribute(self):
        with start_capture(self.path) as f:
            f.attrs["format"] = np.bytes_("raingauge-capture")
            f.attrs["version"] = np.array([1, 3], np.uint8)
            f.attrs["complete"] = np.bool_(True)
            f.attrs["seed"] = np.int64(-5)
            f.attrs["prompt"] = "Regen ☂"
            f.attrs["patch"] = (1, 2, 2)
            f["schedule/timesteps"] = np.array([3, 2, 1], np.float32)
            record = write_record(f)
            record.attrs["heads"] = np.array([30, 3], ">i2")
            record.attrs["heads_total"] = 40
            record.attrs["rope_applied"] = False
            record.attrs["branch"] = np.bytes_("uncond")
            record.attrs["scale"] = np.float32(0.25)
            del record["segments"]
            kinds = np.dtype([("role", h5py.string_dtype()), ("start", "u4"), ("length", "u4"),
                              ("frames", "u1"), ("height", "u1"), ("width", ">i8")])
            record["segments"] = np.array([("video", 0, 480, 4, 10, 12), ("pad", 480, 32, 0, 0, 0)],
                                          kinds)
            record["key_valid"] = np.arange(512) < 480  # bool
            record["o"] = np.ones((2, 512, 64), np.float16)
            f["frames/dense"] = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
        result, record = self.check("bf16")
        self.assertEqual((result["seed"], result["prompt"], result["patch"]), ("-5", "Regen ☂", [1, 2, 2]))
        self.assertEqual(result["timesteps"], [3, 2, 1])
        self.assertEqual((record["heads"], record["heads_total"]), ([30, 3], 40))
        self.assertEqual((record["rope_applied"], record["branch"], record["scale"]),
                         (False, "uncond", 0.25))
        self.assertEqual(record["segments"][1], ["pad", 480, 32, 0, 0, 0])
        self.assertEqual(record["key_valid"], [1] * 480 + [0] * 32)
        ones = np.ones((2, 512, 64), np.float32)
        self.assertEqual(record["o_sha256"], hashlib.sha256(ones.tobytes()).hexdigest())
        self.assertEqual(result["frames"]["dense"], {"shape": [1, 2, 4, 3], "rgb": list(range(24))})

    def test_nonfinite(self):
        for bad in (0x7FC0, 0x7F80, 0xFF80, 0x7F81):
            tensors = [patterns("bf16", w) for w in range(3)]
            tensors[1][1, 100, 5] = bad
            with start_capture(self.path) as f:
                write_record(f, tensors=tensors)
                f.attrs["complete"] = 1
            error = exchange("read-capture", self.path, fails=True)["error"]
            self.assertIn("/records/000007/k: head 1, token 100, channel 5 is NaN or Inf", error)
            record = exchange("read-capture", self.path, "allow_nonfinite")["records"][0]
            self.assertEqual(record["sha256"][1], hashlib.sha256(tensors[1].tobytes()).hexdigest())

    def test_interrupted(self):
        with start_capture(self.path) as f:
            write_record(f, 1)
            write_bf16(f.create_group("records/000002"), "q", patterns("bf16", 0))
        result = exchange("read-capture", self.path)
        self.assertFalse(result["complete"])
        self.assertEqual([r["number"] for r in result["records"]], [1])
        self.assertEqual(len(result["warnings"]), 2)
        with h5py.File(self.path, "a") as f:
            f.attrs["complete"] = 1
        self.assertIn("/records/000002", exchange("read-capture", self.path, fails=True)["error"])

    def test_never_written(self):
        for options in ({}, {"chunks": (1, 512, 64)}):
            with start_capture(self.path) as f:
                record = write_record(f)
                del record["v"]
                record.create_dataset("v", (2, 512, 64), h5py.Datatype(bf16_type()), **options)
                f.attrs["complete"] = 1
            self.assertIn("never written completely",
                          exchange("read-capture", self.path, fails=True)["error"])


class Plans(Folder):
    def test_ours(self):
        exchange("write-plan", self.path)
        with h5py.File(self.path) as f:
            self.assertEqual(f.attrs["format"], "raingauge-plan")
            self.assertEqual(f.attrs["record"], 42)
            self.assertEqual(f.attrs["arm"], "{method: rainfusion2, density: 0.25}")
            np.testing.assert_array_equal(f["q_order"], [np.arange(10)])
            self.assertEqual(f["k_order"].shape, (2, 10))
            np.testing.assert_array_equal(f["q_offsets"], [[0, 4, 8, 10, 10]])
            np.testing.assert_array_equal(f["row_offsets"], [[0, 2, 3, 4, 4], [4, 5, 7, 8, 8]])
            np.testing.assert_array_equal(f["columns"], [0, 2, 1, 2, 0, 0, 2, 2])
            np.testing.assert_array_equal(f["heads"], [11, 4])
            for name, kind in (("q_order", "i4"), ("k_offsets", "i4"), ("row_offsets", "i8"),
                               ("columns", "i4"), ("density_pairs", "f8")):
                self.assertEqual(f[name].dtype, np.dtype(kind), name)
            np.testing.assert_allclose(f["density_pairs"], self.count_pairs(f), rtol=1e-15)
            np.testing.assert_array_equal(f["nominal_density"], [0.25, np.nan])

    @staticmethod
    def count_pairs(f):
        """Kept pairs of all, token by token."""
        densities = []
        for h in range(2):
            mask = np.zeros((10, 10), bool)
            q = f["q_offsets"][0]
            k = f["k_offsets"][h]
            rows = f["row_offsets"][h]
            for i in range(len(q) - 1):
                for j in f["columns"][rows[i]:rows[i + 1]]:
                    mask[q[i]:q[i + 1], k[j]:k[j + 1]] = True
            densities.append(mask.mean())
        return densities

    def write(self, **changes):
        rng = np.random.default_rng(0)
        data = {"q_order": np.arange(10)[None], "k_order": rng.permutation(10)[None],
                "q_offsets": np.array([[0, 5, 10]]), "k_offsets": np.array([[0, 3, 6, 10]]),
                "row_offsets": np.array([[0, 2, 3], [3, 4, 6]]),
                "columns": np.array([0, 2, 1, 0, 1, 2]), "heads": np.array([11, 4]), **changes}
        with h5py.File(self.path, "w") as f:
            f.attrs["format"] = "raingauge-plan"
            f.attrs["version"] = 1
            for name, value in data.items():
                if value is not None:
                    f[name] = value
        return data

    def test_theirs(self):
        data = self.write()
        got = exchange("read-plan", self.path)
        self.assertEqual(got["lists"], [[[0, 2], [1]], [[0], [1, 2]]])
        self.assertEqual(got["orders"][1][1], data["k_order"][0].tolist())
        np.testing.assert_allclose(got["density_pairs"], [0.35 + 0.15, 0.15 + 0.35])
        self.assertEqual(got["nominal_density"], [None, None])
        self.assertEqual(got["warnings"], [])
        self.write(density_pairs=np.array([0.5, 0.6]), columns=data["columns"].astype(np.int16),
                   q_order=np.arange(10, dtype=np.uint64))
        self.assertIn("/density_pairs", exchange("read-plan", self.path)["warnings"][0])

    def test_breaches(self):
        for changes, part in (({"k_order": np.zeros((1, 10), int)}, "key order is no permutation"),
                              ({"columns": np.array([0, 3, 1, 0, 1, 2])}, "key block 3"),
                              ({"columns": np.array([2, 0, 1, 0, 1, 2])}, "ascend"),
                              ({"heads": None}, "`heads` is missing"),
                              ({"row_offsets": np.array([[0, 2, 3], [0, 1, 3]])}, "absolute"),
                              ({"k_offsets": np.array([[0, 3, 6, 9]])}, "token count 10")):
            self.write(**changes)
            error = exchange("read-plan", self.path, fails=True)["error"]
            self.assertIn(part, error)
            self.assertIn(self.path, error)


if __name__ == "__main__":
    if not EXCHANGE:
        sys.exit(__doc__)
    unittest.main()
