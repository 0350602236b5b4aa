"""Runs the examples and reads what they print."""
import os
import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "cli"))
from command import GREEDY, MODEL, PROMPT  # noqa: E402

EXAMPLES = pathlib.Path(os.environ["KRAIT_BINARY_DIR"]) / "examples"


def run(name, *arguments, device="cpu"):
    return subprocess.run([EXAMPLES / name, *map(str, arguments)], capture_output=True,
                          encoding="utf-8", env={**os.environ, "KRAIT_DEVICE": device}, timeout=100,
                          check=False)


class Generate(unittest.TestCase):
    def test_greedy_text(self):
        done = run("generate", MODEL, PROMPT, 40, 0)
        self.assertEqual((0, GREEDY + "\n", ""), (done.returncode, done.stdout, done.stderr))

    def test_sampled_text_is_that_of_the_seed(self):
        one, two = (run("generate", MODEL, PROMPT, 40, 0.8).stdout for _ in range(2))
        self.assertEqual(one, two)
        self.assertNotEqual(GREEDY + "\n", one)

    def test_errors_are_messages(self):
        done = run("generate", "/no/such/model", PROMPT)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertIn("/no/such/model", done.stderr)


class IrregularSeries(unittest.TestCase):
    def test_parts_agree_and_gaps_matter(self):
        for device in ("cpu", "reference"):
            done = run("irregular_series", device=device)
            self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
            differences = re.findall(r"^(.+): largest difference (\S+), as it should be$",
                                     done.stdout, re.MULTILINE)
            self.assertEqual(["whole and in two parts", "whole and from a saved state",
                              "real and even gaps"], [what for what, _ in differences])
            parts, saved, gaps = (float(value) for _, value in differences)
            self.assertLess(max(parts, saved), 1e-5)
            self.assertGreater(gaps, 0.1)


if __name__ == "__main__":
    if not (EXAMPLES / "generate").exists():
        print("the examples are not built: KRAIT_EXAMPLES is off")
        sys.exit(77)
    unittest.main()
