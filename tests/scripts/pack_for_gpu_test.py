"""scripts/pack_for_gpu.sh: what it collects runs, with its own libraries and data."""
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ["KRAIT_BINARY_DIR"])
SCRIPT = ROOT / "scripts" / "pack_for_gpu.sh"


def run(*command, code=0, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, encoding="utf-8",
                          timeout=110, check=False, **options)
    if done.returncode != code:
        raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class PackForGpu(unittest.TestCase):
    def test_the_folder_runs(self):
        if not (BUILD / "bin" / "krait").exists():
            self.skipTest("this build has no krait command")
        with tempfile.TemporaryDirectory() as folder:
            run(SCRIPT, BUILD, folder)
            # From elsewhere, and as if the repository were not there.
            inside = pathlib.Path(folder)
            done = run("bash", "-c", '. "$0/environment" && krait devices && echo "$KRAIT_SOURCE_DIR"'
                       ' && krait verify --device cpu -m "$KRAIT_SOURCE_DIR/assets/classics-mamba"',
                       inside, cwd="/")
            self.assertIn("cpu", done.stdout)
            self.assertIn(str(inside / "data"), done.stdout)
            self.assertIn("passed", done.stdout)
            self.assertEqual((BUILD / "lib" / "libkrait_cuda.so").exists(),
                             (inside / "lib" / "libkrait_cuda.so").exists())
            for library in (inside / "lib").iterdir():
                self.assertFalse(library.is_symlink(), library)
                self.assertNotRegex(library.name, r"^lib(c|m|stdc\+\+|gcc_s)\.so")

    def test_a_folder_that_is_no_build(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run(SCRIPT, folder, folder + "/to", code=1)
            self.assertIn("build it first", done.stderr)
            self.assertIn("expected a build folder", run(SCRIPT, code=1).stderr)


if __name__ == "__main__":
    unittest.main()
