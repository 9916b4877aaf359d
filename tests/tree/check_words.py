# SPDX-License-Identifier: Apache-2.0
"""Is the tree free of what belongs to one machine, of unfinished work, and of strays at the top?"""

import re

import tree

AT_THE_TOP = {"CMakeLists.txt", "CMakePresets.json", "Makefile", "README.md", "LICENSE",
              "data", "methods", "metrics", "harness", "experiments", "tests"}

# Absolute paths under these are somebody's machine. (/usr, /etc, /proc, /dev are the same everywhere;
# /records is HDF5's, /arms a YAML pointer.)
OF_A_MACHINE = ("home root Users Volumes mnt media srv opt work workspace scratch tmp var run").split()
PATH = re.compile(r"(?<![\w.)\]}>*/:~$%%@-])/(?:%s)/[\w.+-]+" % "|".join(OF_A_MACHINE))

UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", r"\bDIS" + "ABLED_")))

# Packages come from whatever index the user's tools are set to.
SETUP = ("Makefile", ".ci/", "harness/setup/", "harness/cmake/")
ADDRESS = re.compile(r"\w+://|\b[\w-]+\.(?:org|com|io|net)\b")


def line_findings(path, line):
    for match in PATH.finditer(line):
        yield f"{match.group()}: a path of one machine"
    for match in UNFINISHED.finditer(line):
        yield f"{match.group()}: unfinished work belongs in an issue"
    if path.as_posix().startswith(SETUP):
        for match in ADDRESS.finditer(line):
            yield f"{match.group()}: set-up names no host"


def check(root):
    paths = tree.files(root)
    top = {path.parts[0] for path in paths}
    findings = [f"{name}: not in the list of what stands at the top"
                for name in sorted(top - AT_THE_TOP) if not name.startswith(".")]
    for path in paths:
        content = tree.text(root / path)
        if content is None or path.name == "LICENSE":
            continue
        for number, line in enumerate(content.splitlines(), 1):
            findings += [f"{path}:{number}: {what}" for what in line_findings(path, line)]
    return findings


if __name__ == "__main__":
    tree.main(check, __doc__)
