# SPDX-License-Identifier: Apache-2.0
"""What the checks of the source tree share: the project's files, and how findings are told."""

import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("data", "methods", "metrics", "harness")
CPP = (".h", ".cpp", ".cu", ".cuh")


def files(root):
    """Paths relative to root of what git tracks or would; without git, of what stands there."""
    git = ["git", "-c", "safe.directory=*", "-C", str(root)]
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (root / ".git").exists():
        out = subprocess.run(git + listing, check=True, capture_output=True).stdout
        names = {pathlib.PurePath(name) for name in out.decode().split("\0") if name}
    else:
        names = {p.relative_to(root) for p in root.rglob("*") if "build" not in p.parts}
    return sorted(name for name in names if (root / name).is_file())


def text(path):
    """The file's text, or None for a binary file."""
    content = path.read_bytes()
    return None if b"\0" in content else content.decode("utf-8", errors="replace")


TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL)


def without_comments_and_strings(source):
    """C++ with comments and literals blanked, line numbers kept."""
    return TOKEN.sub(lambda m: "\n" * m.group().count("\n"), source)


def main(check, description):
    """Runs check(root) -> [finding]; the exit status says whether there are any."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("root", nargs="?", type=pathlib.Path, default=ROOT)
    root = parser.parse_args().root.resolve()
    count = len(files(root))
    if not count:
        sys.exit(f"no files under {root}")
    findings = check(root)
    for finding in findings:
        print(finding)
    print(f"{count} files, {len(findings)} findings")
    sys.exit(1 if findings else 0)
