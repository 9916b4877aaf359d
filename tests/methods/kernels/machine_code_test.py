# SPDX-License-Identifier: Apache-2.0
"""What the CUDA compiler made of the kernels, where there is a compiler and no GPU: no register spills (the
sm_80 kernel at 128 x 128 spills eight bytes a thread outside its loop), no serialised wgmma, matrix
instructions of the kind meant. usage: machine_code_test.py NVCC SOURCE_FOLDER
Needs no disassembler: instructions are 16 bytes, and their low 12 bits name the operation."""
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

# Low 12 bits with the bits that tell operand forms (9 to 11) cleared, as nvdisasm 13 names them.
OPERATIONS = {0x1F0: "HGMMA", 0x1B4: "UTMALDG", 0x03C: "HMMA", 0x183: "LDL", 0x187: "STL"}


def text_sections(cubin):
    """Name and bytes of every .text section of a 64-bit ELF file."""
    data = pathlib.Path(cubin).read_bytes()
    table, = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    start = headers[names][4]
    for name, _, _, _, offset, length in headers:
        end = data.index(b"\0", start + name)
        title = data[start + name:end].decode()
        if title.startswith(".text."):
            yield title[6:], data[offset:offset + length]


def operations(code):
    counts = dict.fromkeys(OPERATIONS.values(), 0)
    for low, _ in struct.iter_unpack("<QQ", code):
        name = OPERATIONS.get(low & 0x1FF)
        if name:
            counts[name] += 1
    return counts


def compile_kernel(nvcc, root, source, target, folder):
    cubin = pathlib.Path(folder) / "kernel.cubin"
    run = subprocess.run(
        [nvcc, "-std=c++17", "-O3", f"-I{root}", f"-gencode=arch=compute_{target},code=sm_{target}",
         "-Xptxas", "-v", "-cubin", "-o", str(cubin), str(root / source)],
        capture_output=True, text=True, check=False)
    report = run.stdout + run.stderr
    if run.returncode != 0:
        raise SystemExit(f"FAIL: {source} does not compile for sm_{target}:\n{report}")
    return cubin, report


def check(nvcc, root, source, target, expected, forbidden):
    with tempfile.TemporaryDirectory() as folder:
        cubin, report = compile_kernel(nvcc, root, source, target, folder)
        spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", report)
        failures = [] if spills else ["the assembler reported no function"]
        if "STL" in forbidden:
            failures += [f"stack frame or spills: {s}" for s in spills if any(int(n) for n in s)]
        failures += [line for line in report.splitlines() if re.search(r"\(C75\d\d\)", line)]
        kernels = 0
        for name, code in text_sections(cubin):
            counts = operations(code)
            if not any(counts[o] for o in ("HGMMA", "HMMA")):
                continue  # a kernel without products
            kernels += 1
            failures += [f"{name}: no {o}" for o in expected if counts[o] == 0]
            failures += [f"{name}: {counts[o]} {o}" for o in forbidden if counts[o] > 0]
        if kernels == 0:
            failures.append("no kernel with matrix instructions")
        print(f"{source} for sm_{target}: {len(spills)} functions, {kernels} with matrix products")
        for failure in failures:
            print("  FAIL:", failure)
        return not failures


def main():
    nvcc, root = sys.argv[1], pathlib.Path(sys.argv[2])
    if not nvcc or shutil.which(nvcc) is None:
        print("skipped: no CUDA compiler")
        return 77
    folder = pathlib.Path("methods/kernels/cuda")
    hopper = (("HGMMA", "UTMALDG"), ("HMMA", "LDL", "STL"))
    good = [check(nvcc, root, folder / name, "90a", *hopper) for name in ("forward_sm90.cu", "mass.cu")]
    good.append(check(nvcc, root, folder / "forward.cu", "80", ("HMMA",), ()))
    for target in ("80", "90a"):
        good.append(check(nvcc, root, folder / "row_evaluator.cu", target, ("HMMA",), ("LDL", "STL")))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
