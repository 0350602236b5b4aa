"""Reads the symbols of the CPU kernels' object files. A file that is compiled for a wide instruction
set must not define a function that another file defines as well: the linker would keep one of the
two, and a processor without the instructions could run the wide one. So every function that such
a file exports must stand in the namespace of its instruction set."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

BINARY_DIR = pathlib.Path(os.environ.get("KRAIT_BINARY_DIR", "build"))
OBJECT = re.compile(r"isa_(\w+)\.cpp\.o(bj)?$")

# Of nm's letters those that may be functions and that other files see; data runs nowhere.
VISIBLE_CODE = "TWwi"


def objects():
    """[(instruction set, object file)] of the build."""
    return [(match[1], path) for path in sorted(BINARY_DIR.rglob("*isa_*"))
            if (match := OBJECT.search(path.name))]


def foreign_symbols(isa, listing):
    """The functions in `nm -C` output that others could see and that do not belong to the set."""
    found = []
    for line in listing.splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) != 3 or len(parts[1]) != 1:
            continue  # undefined symbols have no address
        kind, name = parts[1], parts[2]
        if kind in VISIBLE_CODE and f"krait::cpu::{isa}::" not in name:
            found.append(f"{kind} {name}")
    return found


class CpuIsaSymbols(unittest.TestCase):
    def test_objects(self):
        for isa, path in objects():
            with self.subTest(isa=isa):
                listing = subprocess.run(["nm", "-C", path], check=True, capture_output=True,
                                         text=True).stdout
                self.assertIn(f"krait::cpu::{isa}_isa", listing)
                self.assertEqual([], foreign_symbols(isa, listing))

    def test_catches_planted_symbols(self):
        listing = """
0000000000000000 T krait::cpu::avx2::linear(krait::cpu::LinearArgs const&)
0000000000000000 D krait::cpu::avx2_isa
0000000000000000 r krait::cpu::avx2::zeros
                 U memcpy
0000000000000000 W float const& std::min<float>(float const&, float const&)
0000000000000000 W krait::to_float(krait::bf16)
0000000000000000 t local_function
0000000000000000 W xsimd::kernel::exp<xsimd::avx2>(float)
"""
        self.assertEqual(
            ["W float const& std::min<float>(float const&, float const&)",
             "W krait::to_float(krait::bf16)",
             "W xsimd::kernel::exp<xsimd::avx2>(float)"],
            foreign_symbols("avx2", listing))
        self.assertEqual(4, len(foreign_symbols("avx512", listing)))


if __name__ == "__main__":
    if not shutil.which("nm") or not objects():
        print("skipped: no nm, or no object files under", BINARY_DIR)
        sys.exit(77)
    unittest.main()
