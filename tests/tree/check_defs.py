# SPDX-License-Identifier: Apache-2.0
"""Is every source built, every .def line backed by its file, and every registered thing in its list?

A source that no list names is never compiled, and nobody notices.
"""

import re

import tree

LINE = re.compile(r"^RAINGAUGE_(?P<kind>[A-Z_]+)\((?P<name>\w+)(?:,\s*(?P<file>\w+))?\)", re.MULTILINE)
GLOB = re.compile(r"file\(\s*GLOB(?P<recurse>_RECURSE)?\s+\w+\s+(?:CONFIGURE_DEPENDS\s+)?(?P<patterns>[^)]*)\)")
SOURCE = re.compile(r"(?<![\w*$}])[\w./-]*\w+\.(?:cpp|cu)\b")


def listed_by_cmake(root, cmake):
    """The sources that a CMakeLists.txt names, outright or by a glob."""
    script = re.sub(r"#[^\n]*", "", (root / cmake).read_text())
    folder = root / cmake.parent
    named = {folder / name for name in SOURCE.findall(script)}
    for match in GLOB.finditer(script):
        for pattern in match["patterns"].split():
            inside, _, last = pattern.rpartition("/")
            start = folder / inside
            named |= set(start.rglob(last) if match["recurse"] else start.glob(last))
    # A tool's name stands in a loop: foreach(tool a b) … ${tool}_main.cpp
    for match in re.finditer(r"foreach\((\w+)\s+([^)]*)\)", script):
        for suffix in re.findall(r"\$\{%s\}([\w]*\.cpp)" % match[1], script):
            named |= {folder / (item + suffix) for item in match[2].split()}
    return named


def def_findings(root, path):
    """Findings about one list, and the sources that it names."""
    lines = [m.groupdict() for m in LINE.finditer((root / path).read_text())]
    folder, named, findings = (root / path).parent, set(), []
    if not lines:
        findings.append(f"{path}: no RAINGAUGE_…(name) line")
    for line in lines:
        source = folder / f"{line['file'] or line['name']}.cpp"
        named.add(source)
        if not source.is_file():
            findings.append(f"{path}: {line['name']} needs {source.relative_to(root)}")
    listed = [line["name"] for line in lines]
    findings += [f"{path}: {name} twice" for name in sorted(set(listed)) if listed.count(name) > 1]
    for kind in {line["kind"].lower() for line in lines}:
        defines = re.compile(r"^[\w:<>]+ (\w+?)_%s(?:_spec)?\(\)\s*\{" % kind, re.MULTILINE)
        for source in sorted(folder.glob("*.cpp")):
            for name in defines.findall(source.read_text()):
                if name not in listed:
                    findings.append(f"{source.relative_to(root)}: defines the {kind} '{name}', which "
                                    f"{path} does not list")
    return findings, named


def check(root):
    paths = [path for path in tree.files(root) if path.parts[0] in (*tree.FOLDERS, "tests")]
    findings, built = [], set()
    for path in paths:
        if path.suffix == ".def":
            found, named = def_findings(root, path)
            findings += found
            built |= named
        elif path.name == "CMakeLists.txt" or path.suffix == ".cmake":
            built |= listed_by_cmake(root, path)
    for path in paths:
        if path.suffix in (".cpp", ".cu") and root / path not in built:
            findings.append(f"{path}: neither a .def list nor CMake builds it")
    return findings


if __name__ == "__main__":
    tree.main(check, __doc__)
