# SPDX-License-Identifier: Apache-2.0
"""Do includes go only from harness to {methods, metrics} to data, and libraries stay where they belong?

Also: nothing below harness prints or ends the process.
"""

import re

import tree

MAY_INCLUDE = {
    "data": {"data"},
    "methods": {"data", "methods"},
    "metrics": {"data", "metrics"},
    "harness": {"data", "methods", "metrics", "harness"},
}


def is_torch_place(path):
    name = path.as_posix()
    return name.startswith(("data/demo/", "methods/kernels/torch/")) or "torch" in path.name


# (headers, where they may be included, in words)
LIBRARIES = [
    (re.compile(r"hdf5|H5"), lambda path: path.parts[0] == "data", "HDF5: only in data/"),
    (re.compile(r"yaml-cpp/"), lambda path: path.parts[0] == "harness", "yaml-cpp: only in harness/"),
    (re.compile(r"opencv2/"), lambda path: path.as_posix() in ("data/frames_opencv.cpp", "metrics/frames/flow.cpp"),
     "OpenCV: only in data/frames_opencv.cpp and metrics/frames/flow.cpp"),
    (re.compile(r"benchmark/"), lambda path: path.parts[0] == "harness",
     "Google Benchmark: only in harness/"),
    (re.compile(r"(torch|ATen|c10)/"), is_torch_place,
     "libtorch: only in data/demo/, methods/kernels/torch/ and files named *torch*"),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SPEAKS_OR_ENDS = re.compile(
    r"std::(cout|cerr|clog|print|println|exit|quick_exit|abort|terminate)\b|\bspdlog::"
    r"|(?<![\w:.>])(v?f?printf|f?puts|putchar|exit|_exit|abort)\s*\(")


def include_findings(path, line, quote, header):
    folder, first = path.parts[0], header.split("/")[0]
    if ".." in header.split("/"):
        yield f"{path}:{line}: {header}: write the path from the root of the project"
    elif first in MAY_INCLUDE and quote == '"' and first not in MAY_INCLUDE[folder]:
        yield f"{path}:{line}: {folder}/ must not include {header}"
    for headers, is_allowed, rule in LIBRARIES:
        # "torch/x.h" in quotes can only be libtorch's too: no folder of ours has that name at the top.
        if headers.match(header) and not is_allowed(path):
            yield f"{path}:{line}: <{header}> ({rule})"


def check(root):
    findings = []
    for path in tree.files(root):
        if path.suffix not in tree.CPP or path.parts[0] not in tree.FOLDERS:
            continue
        source = tree.text(root / path)
        for number, line in enumerate(source.splitlines(), 1):
            match = INCLUDE.match(line)
            if match:
                findings += include_findings(path, number, *match.groups())
        if path.parts[0] == "harness" or path.name.endswith("_main.cpp"):
            continue
        for number, line in enumerate(tree.without_comments_and_strings(source).splitlines(), 1):
            match = SPEAKS_OR_ENDS.search(line)
            if match:
                findings.append(f"{path}:{number}: {match.group().strip()}: below harness/ nothing "
                                "prints and nothing exits; throw an Error")
    return findings


if __name__ == "__main__":
    tree.main(check, __doc__)
