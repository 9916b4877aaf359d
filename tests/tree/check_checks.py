# SPDX-License-Identifier: Apache-2.0
"""Does every check of the tree find the fault that it is for, and pass a tree without it?"""

import pathlib
import tempfile
import unittest

import check_defs
import check_includes
import check_words


def findings(check, contents):
    """What the check says of a tree made of {path: text}."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, content in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return check(root)


class Includes(unittest.TestCase):
    def assert_fault(self, path, line):
        self.assertEqual(len(findings(check_includes.check, {path: line + "\n"})), 1, (path, line))

    def assert_clean(self, path, line):
        self.assertEqual(findings(check_includes.check, {path: line + "\n"}), [], (path, line))

    def test_direction(self):
        for path, header in [("data/a.h", "methods/b.h"), ("data/a.h", "metrics/b.h"),
                             ("data/demo/a.cpp", "harness/b.h"), ("metrics/a.cpp", "methods/b.h"),
                             ("metrics/a.cpp", "harness/b.h"), ("methods/kernels/a.cu", "metrics/b.h"),
                             ("methods/a.cuh", "harness/b.h"), ("methods/a.cpp", "../data/b.h")]:
            self.assert_fault(path, f'#include "{header}"')
        for path, header in [("data/a.h", "data/b.h"), ("methods/a.h", "data/b.h"),
                             ("metrics/a.h", "data/b.h"), ("harness/a.h", "metrics/b.h")]:
            self.assert_clean(path, f'#include "{header}"')

    def test_libraries(self):
        for path, header in [("methods/a.cpp", "hdf5.h"), ("harness/a.cpp", "hdf5.h"),
                             ("data/a.cpp", "yaml-cpp/yaml.h"), ("methods/a.cpp", "benchmark/benchmark.h"),
                             ("metrics/frames/psnr.cpp", "opencv2/core.hpp"),
                             ("methods/a.cpp", "torch/torch.h"), ("data/a.cpp", "ATen/ATen.h"),
                             ("harness/a.h", "c10/util/Half.h")]:
            self.assert_fault(path, f"#include <{header}>")
        for path, header in [("data/a.cpp", "hdf5.h"), ("harness/a.cpp", "yaml-cpp/yaml.h"),
                             ("data/demo/a.cpp", "torch/torch.h"), ("methods/torch_a.cpp", "ATen/ATen.h"),
                             ("methods/kernels/torch/a.cpp", "torch/torch.h")]:
            self.assert_clean(path, f"#include <{header}>")

    def test_printing_and_ending(self):
        for line in ["std::cerr << x;", 'printf("%d", x);', "std::exit(1);", "  abort();",
                     'fprintf(stderr, "x");', "spdlog::info(x);"]:
            self.assert_fault("methods/a.cpp", line)
            self.assert_clean("harness/a.cpp", line)
        for line in ["// printf(x)", 'throw Error("exit(1)");', 'snprintf(b, 4, "x");', "f.exit(1);"]:
            self.assert_clean("methods/a.cpp", line)


class Words(unittest.TestCase):
    def test_paths(self):
        for path in ["/ho" + "me/a/b", "/ro" + "ot/a", "/op" + "t/b/c", "/tm" + "p/x.h5"]:
            for line in [f"see {path}", f'"{path}"', f"X={path}"]:
                self.assertEqual(len(findings(check_words.check, {"data/a.py": line})), 1, line)
        for line in ["/usr/local/cuda", "/records/000042", "/arms/rf2", "a/b/c", "// x", "${X}/a/b", "~/a/b", "1 / 2",
                     "s/a/b/"]:
            self.assertEqual(findings(check_words.check, {"data/a.py": line}), [], line)

    def test_top(self):
        self.assertEqual(len(findings(check_words.check, {"notes.txt": "x"})), 1)
        self.assertEqual(findings(check_words.check, {"README.md": "x", ".ci/run": "x"}), [])

    def test_unfinished_and_hosts(self):
        self.assertEqual(len(findings(check_words.check, {"data/a.h": "// TO" + "DO: x"})), 1)
        self.assertEqual(len(findings(check_words.check, {"Makefile": "get example" + ".org"})), 1)
        self.assertEqual(findings(check_words.check, {"README.md": "https://example" + ".org"}), [])


class Defs(unittest.TestCase):
    CMAKE = {"methods/CMakeLists.txt": "file(GLOB cpu CONFIGURE_DEPENDS cpu/*.cpp)\nlib(a.cpp ${cpu})\n",
             "methods/methods.def": "// RAINGAUGE_METHOD(x)\nRAINGAUGE_METHOD(top)\nRAINGAUGE_METHOD(hat, top)\n",
             "methods/a.cpp": "", "methods/cpu/b.cpp": "",
             "methods/top.cpp": "E top_method() {\n}\nE hat_method() {\n}\n"}

    def test_clean(self):
        self.assertEqual(findings(check_defs.check, self.CMAKE), [])

    def test_faults(self):
        for extra in [{"methods/lost.cpp": ""}, {"methods/lost/c.cu": ""},
                      {"methods/methods.def": "RAINGAUGE_METHOD(top)\n"},
                      {"methods/a.cpp": "Entry other_method() {\n}\n"},
                      {"methods/methods.def": self.CMAKE["methods/methods.def"] + "RAINGAUGE_METHOD(no)\n"},
                      {"methods/methods.def": self.CMAKE["methods/methods.def"] + "RAINGAUGE_METHOD(top)\n"}]:
            self.assertEqual(len(findings(check_defs.check, {**self.CMAKE, **extra})), 1, extra)


if __name__ == "__main__":
    unittest.main()
