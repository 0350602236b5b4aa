"""README.md says what the sources and the command say: see scripts/update_readme.py."""
import os
import pathlib
import platform
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import update_readme  # noqa: E402

KRAIT = pathlib.Path(os.environ["KRAIT_BINARY_DIR"]) / "bin" / "krait"
AGAIN = "run scripts/update_readme.py"


class Readme(unittest.TestCase):
    def setUp(self):
        self.text = update_readme.README.read_text(encoding="utf-8")
        self.sections = update_readme.sections(self.text)

    def test_code_is_that_of_the_examples(self):
        code = {source: held for source, held in self.sections.items()
                if source.startswith("examples/")}
        self.assertEqual({"examples/generate.cpp", "examples/irregular_series.cpp"}, set(code))
        for source, held in code.items():
            self.assertEqual(update_readme.snippet(source), held, AGAIN)
        self.assertEqual(len(code), self.text.count("```cpp"), "C++ that no example compiles")

    @unittest.skipUnless(KRAIT.exists(), "the command is not built: KRAIT_CLI is off")
    @unittest.skipUnless(platform.machine() in ("x86_64", "AMD64"),
                         "README has the table of x86-64; other CPUs have other kernels")
    def test_op_table_is_what_the_command_prints(self):
        source = "krait ops --markdown"
        held = self.sections[source]
        self.assertEqual(update_readme.content(source, held, KRAIT), held, AGAIN)
        self.assertIn("| `selective_scan` |", held)

    def test_columns_of_absent_backends_stay(self):
        held = "| Op | What | cuda | cpu |\n| --- | --- | --- | --- |\n| a | b | c1 | c2 |\n"
        printed = ("| Op | What | cpu |\n| --- | --- | --- |\n"
                   "| a | b2 | c3 |\n| new | n | c4 |\n")
        self.assertEqual("| Op | What | cuda | cpu |\n| --- | --- | --- | --- |\n"
                         "| a | b2 | c1 | c3 |\n| new | n | – | c4 |\n",
                         update_readme.merged_table(held, printed))
        self.assertEqual(printed, update_readme.merged_table("", printed))
        self.assertEqual(held, update_readme.merged_table(printed, held))

    def test_links_lead_somewhere(self):
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", self.text)
        self.assertIn("ARCHITECTURE.md", links)
        for link in links:
            self.assertTrue((ROOT / link).exists(), link)


if __name__ == "__main__":
    unittest.main()
